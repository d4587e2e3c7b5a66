"""What is learned of a PC's firmware from boot to boot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bootlink_dhcp.firmware import FRESH, MAX_CLIENTS, PATIENCE, FirmwareMemory, LoaderChange, Shape

MAC = "52:54:00:12:34:56"
THREE = ("shim.efi", "snponly.efi", "ipxe.efi")


class Lab:
    def __init__(self) -> None:
        self.disk: dict[str, Mapping[str, Any]] = {}
        self.memory = self.restarted()

    def record(self, key: str, value: Mapping[str, Any] | None) -> None:
        self.disk.pop(key, None)
        if value is not None:
            self.disk[key] = value

    def restarted(self, *, max_clients: int = MAX_CLIENTS) -> FirmwareMemory:
        self.memory = FirmwareMemory(self.record, max_clients=max_clients)
        assert self.memory.restore(list(self.disk.items())) == 0
        return self.memory

    def lose(self, boots: int, candidates: tuple[str, ...] = THREE) -> list[LoaderChange]:
        """So many boots that never ask for their script. Returns the changes that were told."""
        changes = []
        for _ in range(boots):
            given = self.memory.choose(MAC, candidates)
            change = self.memory.boot_lost(MAC, candidates)
            if change is not None:
                assert change.former == given
                changes.append(change)
        return changes


def test_after_some_lost_boots_the_next_loader_is_given_and_that_is_remembered() -> None:
    lab = Lab()
    assert lab.memory.choose(MAC, THREE) == "shim.efi"
    assert lab.lose(PATIENCE - 1) == []
    assert lab.memory.choose(MAC, THREE) == "shim.efi"
    assert lab.lose(1) == [LoaderChange("shim.efi", "snponly.efi", PATIENCE)]
    assert lab.restarted().choose(MAC, THREE) == "snponly.efi"
    assert lab.memory.choose("52:54:00:00:00:01", THREE) == "shim.efi"  # another PC's is another matter


def test_a_boot_that_comes_up_clears_the_count() -> None:
    lab = Lab()
    for _ in range(5):
        assert lab.lose(PATIENCE - 1) == []
        lab.memory.came_up(MAC)
    assert lab.memory.choose(MAC, THREE) == "shim.efi"


def test_when_all_have_failed_all_are_tried_anew() -> None:
    lab = Lab()
    given = [change.loader for change in lab.lose(PATIENCE * 7)]
    assert given == ["snponly.efi", "ipxe.efi", "shim.efi", "snponly.efi", "ipxe.efi", "shim.efi", "snponly.efi"]


def test_with_one_loader_there_is_nothing_to_fall_back_to() -> None:
    lab = Lab()
    assert lab.lose(PATIENCE * 3, ("snponly.efi",)) == []
    assert lab.memory.choose(MAC, ("snponly.efi",)) == "snponly.efi"
    assert lab.memory.choose(MAC, ()) is None
    assert lab.memory.boot_lost(MAC, ()) is None


def test_a_loader_whose_file_changes_is_tried_anew() -> None:
    lab = Lab()
    lab.lose(PATIENCE)
    lab.memory.changed({"unrelated.efi"})
    assert lab.memory.choose(MAC, THREE) == "snponly.efi"
    lab.memory.changed({"shim.efi"})
    assert lab.memory.choose(MAC, THREE) == "shim.efi"
    assert lab.lose(PATIENCE - 1) == []  # its count began anew, too


def test_lost_boots_count_for_the_loader_that_they_were_given() -> None:
    lab = Lab()
    lab.lose(PATIENCE - 1)
    assert lab.memory.choose(MAC, ("new.efi", *THREE)) == "new.efi"  # a rule came, and puts another one first
    assert lab.lose(PATIENCE - 1, ("new.efi", *THREE)) == []
    assert lab.lose(1, ("new.efi", *THREE)) == [LoaderChange("new.efi", "shim.efi", PATIENCE)]


def test_a_shape_that_was_rejected_is_changed_and_one_that_led_to_a_script_is_proved() -> None:
    lab = Lab()
    assert lab.memory.of(MAC) == FRESH
    assert lab.memory.reshape(MAC) is Shape.BINL
    lab.memory.came_up(MAC)
    known = lab.restarted().of(MAC)
    assert (known.shape, known.proved) == (Shape.BINL, True)
    assert lab.memory.reshape(MAC) is Shape.FILE
    assert not lab.memory.of(MAC).proved


def test_memory_is_bounded_and_what_is_forgotten_is_learned_again() -> None:
    lab = Lab()
    memory = lab.restarted(max_clients=2)
    for n in range(5):
        memory.came_up(f"52:54:00:00:00:{n:02x}")
    assert len(memory) == len(lab.disk) == 2
    assert memory.of("52:54:00:00:00:00") == FRESH


def test_made_up_clients_do_not_push_out_what_was_learned_of_those_that_belong_here() -> None:
    lab = Lab()
    memory = FirmwareMemory(lab.record, max_clients=10, belongs=lambda mac: mac == MAC)
    memory.came_up(MAC)
    for n in range(1_000):
        memory.came_up(f"02:00:00:00:{n >> 8:02x}:{n & 0xFF:02x}")
    assert memory.of(MAC).proved
    assert len(memory) == len(lab.disk) == 10
    everybody = FirmwareMemory(lab.record, max_clients=3, belongs=lambda mac: True)
    assert everybody.restore(list(lab.disk.items())) == 0
    assert len(everybody) == len(lab.disk) == 3, "what is read back is bounded too, also where all belong here"


def test_records_that_cannot_be_read_are_counted_and_left_out() -> None:
    memory = FirmwareMemory(lambda key, value: None)
    broken: list[tuple[str, Mapping[str, Any]]] = [
        ("a", {}),
        ("b", {"among": [], "at": 0, "failed": "x", "shape": "file", "proved": False}),
        ("c", {"among": 1, "at": 0, "failed": 0, "shape": "file", "proved": False}),
        ("d", {"among": [], "at": 0, "failed": 0, "shape": "round", "proved": False}),
    ]
    assert memory.restore(broken) == 4
    assert len(memory) == 0
