"""A loader that a rule asks for in vain is told, once, for as long as it is so."""

from __future__ import annotations

from pathlib import Path

from bootlink_dhcp.asked_loaders import AskedLoaders, Unfulfilled
from bootlink_dhcp.loaders import LoaderShelf
from bootlink_events import BootPlan, LoaderRule
from lab.boot_plans import plan
from lab.loaders import put_loaders

PCS = ("52:54:00:00:00:01", "52:54:00:00:00:02")


def teachers(mac: str, *loaders: str, arch: str = "") -> BootPlan:
    rules = (LoaderRule(arch=arch, loaders=loaders),) if loaders else ()
    return plan().model_copy(update={"mac": mac, "group": "teachers", "loaders": rules})


def looked(folder: Path) -> LoaderShelf:
    shelf = LoaderShelf((put_loaders(folder),))
    shelf.look()
    return shelf


class Told:
    """What was told."""

    def __init__(self, shelf: LoaderShelf, *rules: LoaderRule) -> None:
        self.wrong: list[Unfulfilled] = []
        self.asked = AskedLoaders(shelf, self.wrong.append, rules)

    @property
    def texts(self) -> list[str]:
        return [one.text for one in self.wrong]


def texts(asked: AskedLoaders) -> list[str]:
    return [one.text for one in asked.wrong()]


def test_a_loader_that_is_not_there_is_told_until_it_is_or_nobody_asks(tmp_path: Path) -> None:
    shelf = looked(tmp_path)
    told = Told(shelf)
    asked = told.asked
    for mac in PCS:
        asked.changed(mac, teachers(mac, "nothere.efi", "snponly.efi"))
    wrong = ["group teachers asks for nothere.efi, which is in none of the loader folders"]
    assert texts(asked) == told.texts == wrong, "once for the group"
    assert "bootlink group loader set" in told.wrong[0].remedy
    asked.changed(PCS[0], teachers(PCS[0], "nothere.efi", "undionly.kpxe"))
    asked.looked()
    assert told.texts == wrong, "nothing new"
    asked.changed(PCS[0], None)
    assert texts(asked) == wrong, "the other PC still asks"
    asked.changed(PCS[1], teachers(PCS[1]))
    assert asked.wrong() == []
    asked.changed(PCS[1], teachers(PCS[1], "nothere.efi"))
    assert told.texts == wrong * 2
    put_loaders(tmp_path, ["nothere.efi"])
    assert shelf.look() == {"nothere.efi"}
    asked.looked()
    assert asked.wrong() == []
    assert told.texts == wrong * 2


def test_what_the_settings_ask_for_is_told_at_the_start_and_each_time_that_it_goes(tmp_path: Path) -> None:
    shelf = looked(tmp_path)
    told = Told(shelf, LoaderRule(arch="uefi-x64", loaders=("own.efi", "snponly.efi")))
    (wrong,) = told.wrong
    assert wrong.text == "BOOTLINK_DHCP_LOADER_RULES asks for own.efi, which is in none of the loader folders"
    assert wrong.remedy.endswith("or correct BOOTLINK_DHCP_LOADER_RULES")
    put_loaders(tmp_path, ["own.efi"])
    shelf.look()
    told.asked.looked()
    assert told.asked.wrong() == []
    (tmp_path / "own.efi").unlink()
    shelf.look()
    told.asked.looked()
    told.asked.looked()
    assert told.wrong == [wrong, wrong]


def test_a_loader_that_the_architecture_of_the_rule_cannot_start_is_told(tmp_path: Path) -> None:
    told = Told(looked(tmp_path))
    told.asked.changed(PCS[0], teachers(PCS[0], "snponly.efi", arch="uefi-x64"))
    assert told.wrong == []
    told.asked.changed(PCS[0], teachers(PCS[0], "snponly.efi", arch="bios"))
    assert told.asked.wrong() == told.wrong
    assert "snponly.efi, which is a" in told.texts[0], told.texts[0]
    (tmp_path / "empty.efi").touch()
    empty = Told(looked(tmp_path)).asked
    empty.changed(PCS[0], teachers(PCS[0], "empty.efi"))
    assert "empty" in texts(empty)[0].removeprefix("group teachers asks for empty.efi")
