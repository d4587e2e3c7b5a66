"""A loader that a group's rule asks for in vain is told, once, for as long as it is so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bootlink_dhcp.group_loaders import GroupLoaders
from bootlink_dhcp.loaders import LoaderShelf
from bootlink_events import BootPlan, LoaderRule
from lab.boot_plans import plan
from lab.loaders import put_loaders

PCS = ("52:54:00:00:00:01", "52:54:00:00:00:02")


class Log:
    """What was warned of."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def warning(self, _: str, *, reason: str, remedy: str) -> None:
        assert "bootlink group loader set" in remedy
        self.reasons.append(reason)


@pytest.fixture
def log() -> Log:
    return Log()


def teachers(mac: str, *loaders: str, arch: str = "") -> BootPlan:
    rules = (LoaderRule(arch=arch, loaders=loaders),) if loaders else ()
    return plan().model_copy(update={"mac": mac, "group": "teachers", "loaders": rules})


def looked(folder: Path) -> LoaderShelf:
    shelf = LoaderShelf((put_loaders(folder),))
    shelf.look()
    return shelf


def test_a_loader_that_is_not_there_is_told_until_it_is_or_nobody_asks(tmp_path: Path, log: Any) -> None:
    shelf = looked(tmp_path)
    asked = GroupLoaders(shelf, log)
    for mac in PCS:
        asked.changed(mac, teachers(mac, "nothere.efi", "snponly.efi"))
    wrong = ["group teachers asks for nothere.efi, which is in none of the loader folders"]
    assert asked.wrong() == log.reasons == wrong, "once for the group"
    asked.changed(PCS[0], teachers(PCS[0], "nothere.efi", "undionly.kpxe"))
    assert log.reasons == wrong, "nothing new"
    asked.changed(PCS[0], None)
    assert asked.wrong() == wrong, "the other PC still asks"
    asked.changed(PCS[1], teachers(PCS[1]))
    assert asked.wrong() == []
    asked.changed(PCS[1], teachers(PCS[1], "nothere.efi"))
    assert log.reasons == wrong * 2
    put_loaders(tmp_path, ["nothere.efi"])
    assert shelf.look() == {"nothere.efi"}
    assert asked.wrong() == []


def test_a_loader_that_the_architecture_of_the_rule_cannot_start_is_told(tmp_path: Path, log: Any) -> None:
    asked = GroupLoaders(looked(tmp_path), log)
    asked.changed(PCS[0], teachers(PCS[0], "snponly.efi", arch="uefi-x64"))
    assert log.reasons == []
    asked.changed(PCS[0], teachers(PCS[0], "snponly.efi", arch="bios"))
    assert asked.wrong() == log.reasons
    assert "snponly.efi, which is a" in log.reasons[0], log.reasons[0]
    (tmp_path / "empty.efi").touch()
    empty = GroupLoaders(looked(tmp_path), log)
    empty.changed(PCS[0], teachers(PCS[0], "empty.efi"))
    assert "empty" in empty.wrong()[0].removeprefix("group teachers asks for empty.efi")
