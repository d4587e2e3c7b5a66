"""Which disk a login gets: boots, fences, manifests and restarts (DESIGN, section 3)."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from bootlink_blockstore import attach as module
from bootlink_blockstore import reclaim, writeback
from bootlink_blockstore.boot import SESSIONS_LIMIT
from bootlink_blockstore.disk import DiskFault
from bootlink_blockstore.login import Admission
from bootlink_blockstore.overlay import Overlay
from bootlink_events import (
    BootFailed,
    BootId,
    Refusal,
    WritebackDiscarded,
    WritebackKept,
    target_iqn,
)
from bootlink_wire.iscsi_codes import LoginStatus
from lab.blockstore import MAC, Plans, identity, make_image, plan
from lab.house import Someone, boot_id, house, read, write
from lab.menu import with_menu

OTHER = "52:54:00:00:00:02"


# One boot, many logins


async def test_firmware_and_operating_system_of_one_boot_share_one_writeback(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        name = identity(boot_id())
        firmware = Someone()
        first = await home.login(name, isid=1, seat=firmware)
        await write(first, b"f" * 512)
        second = await home.login(name, isid=2)
        assert second is first
        assert await read(second) == b"f" * 512
        assert not firmware.evicted, "the firmware's session may stay open while the system logs in"


async def test_a_login_without_a_boot_id_joins_the_current_boot(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        boot = await home.login(identity(boot_id()))
        assert await home.login("iqn.2004-01.org.example:someone") is boot


async def test_a_login_without_a_boot_id_begins_one_if_there_is_none(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        boot = await home.login("iqn.2004-01.org.example:someone")
        assert boot.boot_id.timestamp_ms == pytest.approx(time.time() * 1000, abs=5000)


async def test_the_same_initiator_and_isid_reinstates(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        name, old, other = identity(boot_id()), Someone(), Someone()
        await home.login(name, isid=1, seat=old)
        await home.login(name, isid=2, seat=other)
        await home.login(name, isid=1)
        assert old.evicted == "reinstated"
        assert not other.evicted


async def test_logins_without_logout_never_lock_a_client_out(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        seats = [Someone() for _ in range(51)]
        for number, seat in enumerate(seats):
            await home.login(identity(boot_id(1)) if number == 0 else "iqn.x:same", isid=number, seat=seat)
        assert not seats[-1].evicted
        assert sum(bool(seat.evicted) for seat in seats) == 51 - SESSIONS_LIMIT


async def test_nobody_adds_a_connection_to_a_session(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        assert (await home.refused("iqn.x:a", tsih=7)).status == LoginStatus.SESSION_DOES_NOT_EXIST
        await home.login("iqn.x:a")
        assert (await home.refused("iqn.x:a", tsih=7)).status == LoginStatus.TOO_MANY_CONNECTIONS


# The fence


async def test_a_newer_boot_starts_fresh_and_ends_the_older_sessions(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        seat, older = Someone(), boot_id(2)
        first = await home.login(identity(older), seat=seat)
        await write(first, b"f" * 512)
        newer = boot_id(1)
        second = await home.login(identity(newer))
        assert seat.evicted
        assert await read(second) == (tmp_path / "base.img").read_bytes()[:512]
        with pytest.raises(DiskFault):
            first.disks[0].disk.write(0, b"late" * 128)
        (told,) = home.told.of(WritebackDiscarded)
        assert isinstance(told, WritebackDiscarded)
        assert (told.boot_id, told.lun, told.bytes) == (older, 0, 4096)
        assert home.told.spans == [("writeback.discard", newer, None)], "it is a part of the new boot's trace"
        assert home.told.linked == [("writeback.discard", older)]


async def test_an_older_boot_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        older = boot_id(2)
        boot = await home.login(identity(boot_id(1)))
        refusal = await home.refused(identity(older))
        assert refusal.status == LoginStatus.AUTHORIZATION_FAILURE
        assert str(older) in refusal.cause
        assert home.attachments.boots == [boot]


async def test_the_fence_survives_a_restart(tmp_path: Path) -> None:
    older, newer = boot_id(2), boot_id(1)
    async with house(tmp_path) as home:
        await home.login(identity(newer))
    async with house(tmp_path) as home:
        assert (await home.refused(identity(older))).status == LoginStatus.AUTHORIZATION_FAILURE
        assert (await home.login("iqn.x:a")).boot_id == newer


async def test_a_boot_from_the_future_locks_nobody_out(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        refusal = await home.refused(identity(boot_id(-1000)))
        assert "future" in refusal.cause
        await home.login(identity(boot_id()))


async def test_a_clock_that_was_set_back_neither_ends_a_boot_nor_locks_its_client_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = boot_id(-72)
    wrong_now = time.time() + 72 * 3600
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: wrong_now)
        async with house(tmp_path) as home:
            await write(await home.login(identity(ahead)), b"f" * 512)
            wrong.undo()  # the administrator sets the clock right
            assert await read(await home.login(identity(ahead), isid=2)) == b"f" * 512
    async with house(tmp_path) as home:
        assert await read(await home.login(identity(ahead))) == b"f" * 512
        # The next boot's id is minted after the last, so it lies in the future as well.
        assert (await home.login(identity(BootId.mint(after=ahead)))).boot_id > ahead
        assert "future" in (await home.refused(identity(boot_id(-96)))).cause


async def test_a_boot_does_not_outlive_the_machine_as_its_last_writes_may_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_image(tmp_path / "base.img", 1 << 20)
    for policy in ("discard", "keep"):
        current = boot_id(2 if policy == "discard" else 1.5)
        async with house(tmp_path, Plans({MAC: plan(base, policy=policy)})) as home:
            await write(await home.login(identity(current)), b"f" * 512)
        with monkeypatch.context() as restarted:
            restarted.setattr(writeback, "machine_run", lambda: "another run")
            async with house(tmp_path, Plans({MAC: plan(base, policy=policy)})) as home:
                refusal = await home.refused(identity(current))
                assert refusal.status == LoginStatus.AUTHORIZATION_FAILURE
                assert "machine was restarted" in refusal.cause
                boot = await home.login("iqn.x:names-no-boot")
                assert boot.boot_id > current
                kept = await read(boot)
                assert kept == (b"f" * 512 if policy == "keep" else base.read_bytes()[:512])
        for path in home.folder.iterdir():
            path.unlink()


async def test_the_target_says_what_was_chosen_at_the_boot_menu(tmp_path: Path) -> None:
    async with house(tmp_path, with_menu(tmp_path)) as home:
        boot = await home.login(identity(boot_id()), entry="other")
        assert {lun: attached.manifest.image for lun, attached in boot.disks.items()} == {0: "other", 1: "data"}
        assert await read(boot) == (tmp_path / "other.img").read_bytes()[:512]
        assert await home.login(identity(boot.boot_id), isid=2, entry="other") is boot
        assert await home.login(identity(boot.boot_id), isid=3) is boot, "a target without an entry is the boot's own"
        assert await home.login("iqn.2001-04.com.example:someone", isid=4) is boot


async def test_another_choice_in_the_same_boot_has_its_own_writeback_and_the_first_finds_its_own_again(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, with_menu(tmp_path)) as home:
        name, firmware = identity(boot_id()), Someone()
        first = await home.login(name, entry="base", seat=firmware)
        await write(first, b"f" * 512)
        second = await home.login(name, entry="other")
        assert firmware.evicted == "other was chosen at the boot menu"
        assert await read(second) == (tmp_path / "other.img").read_bytes()[:512]
        back = await home.login(name, entry="base")
        assert await read(back) == b"f" * 512, "what was acknowledged in this boot is there"
        assert home.told.of(WritebackDiscarded) == []
        await home.login(identity(boot_id(0.5)), entry="base")
        assert len(home.told.of(WritebackDiscarded)) == 4, "two entries of two disks each"


async def test_a_kept_data_disk_is_shared_by_all_entries_of_a_menu(tmp_path: Path) -> None:
    plans, name = with_menu(tmp_path), identity(boot_id())
    plan_of = plans[MAC]
    disks = (plan_of.disks[0], plan_of.disks[1].model_copy(update={"policy": "keep"}))
    plans[MAC] = plan_of.model_copy(update={"disks": disks})
    async with house(tmp_path, plans) as home:
        await write(await home.login(name, entry="base"), b"d" * 512, lun=1)
        other = await home.login(name, entry="other")
        assert await read(other, lun=1) == b"d" * 512
        await write(other, b"D" * 512, lun=1)
        assert await read(await home.login(name, entry="base"), lun=1) == b"D" * 512
    async with house(tmp_path, plans) as home:
        for entry in ("other", "base", ""):
            assert await read(await home.login(name, entry=entry), lun=1) == b"D" * 512


async def test_after_a_restart_a_boot_finds_the_disk_that_was_chosen(tmp_path: Path) -> None:
    plans, name = with_menu(tmp_path), identity(boot_id())
    async with house(tmp_path, plans) as home:
        await home.login(name, entry="base")
        await write(await home.login(name, entry="other"), b"o" * 512)
    for asked in ("other", ""):
        async with house(tmp_path, Plans({MAC: plan(tmp_path / "base.img")})) as home:  # the menu has gone meanwhile
            assert await read(await home.login(name, entry=asked)) == b"o" * 512


async def test_an_entry_that_the_menu_does_not_offer_is_refused_and_the_running_boot_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path, with_menu(tmp_path)) as home:
        seat = Someone()
        boot = await home.login(identity(boot_id()), entry="other", seat=seat)
        refusal = await home.refused(identity(boot.boot_id), entry="gone")
        assert (refusal.status, "offers no gone" in refusal.cause) == (LoginStatus.NOT_FOUND, True)
        assert seat.evicted == ""


async def test_two_logins_of_a_new_boot_at_once_open_one_disk(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        name = identity(boot_id())
        boots = await asyncio.gather(*(home.login(name, isid=n) for n in range(8)))
        assert len(set(map(id, boots))) == 1


# Manifests


async def test_after_a_restart_the_same_boot_gets_the_very_same_disk_whatever_the_plan_says(tmp_path: Path) -> None:
    name = identity(boot_id())
    other = make_image(tmp_path / "other.img", 2 << 20, seed=9)
    async with house(tmp_path) as home:
        await write(await home.login(name), b"f" * 512)
    for plans in (
        Plans(),
        Plans({MAC: plan(other, policy="keep", version=2)}),
        Plans({MAC: plan(refusal=Refusal(cause="disabled", detail="the client is disabled", remedy="enable it"))}),
    ):
        async with house(tmp_path, plans) as home:
            boot = await home.login(name)
            assert await read(boot) == b"f" * 512
            assert boot.disks[0].disk.size == 1 << 20
            assert boot.disks[0].manifest.policy == "discard"


async def test_a_manifest_says_whose_and_on_what(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        boot = await home.login(identity(boot_id()))
        assert home.files() == [f"{boot.boot_id}.lun0.{kind}" for kind in ("json", "overlay", "zeros")]
        held = json.loads((home.folder / f"{boot.boot_id}.lun0.json").read_text())
        assert (held["client"], held["mac"], held["boot_id"], held["lun"]) == ("pc-001", MAC, str(boot.boot_id), 0)
        assert held["layers"][0]["id"] == "layer-base.img"


async def test_a_boot_whose_manifests_are_not_all_there_begins_anew(tmp_path: Path) -> None:
    second = make_image(tmp_path / "second.img", 1 << 20, seed=5)
    base = make_image(tmp_path / "base.img", 1 << 20)
    plans, current = Plans({MAC: plan(base, second)}), boot_id()
    async with house(tmp_path, plans) as home:
        boot = await home.login(identity(current))
        assert await read(boot, lun=1) == second.read_bytes()[:512]
        await write(boot, b"x" * 512, lun=0)
    (home.folder / f"{current}.lun1.json").unlink()  # as if the service had died between the two
    async with house(tmp_path, plans) as home:
        boot = await home.login(identity(current))
        assert sorted(boot.disks) == [0, 1]
        assert await read(boot) == base.read_bytes()[:512]


async def test_an_overlay_without_a_manifest_goes_at_the_next_start(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.login(identity(boot_id()))
        (home.folder / "stray.overlay").write_bytes(b"never used")
        (home.folder / "stray.zeros").write_bytes(b"never used")
    async with house(tmp_path) as home:
        assert not [name for name in home.files() if name.startswith("stray")]
        assert len(home.files()) == 3


@pytest.mark.parametrize("damage", ["{", "{}", '{"format": 1, "file": "../../etc/passwd.overlay"}'])
async def test_a_damaged_manifest_is_told_and_harms_nobody_else(tmp_path: Path, damage: str) -> None:
    async with house(tmp_path) as home:
        await home.login(identity(boot_id()))
        (home.folder / "bad.json").write_text(damage)
    async with house(tmp_path) as home:
        await home.login(identity(boot_id(0.5)))


@pytest.mark.parametrize("damage", ["manifest", "overlay", "zeros", "mark"])
async def test_a_boot_whose_writeback_was_damaged_is_never_given_a_fresh_one(tmp_path: Path, damage: str) -> None:
    """It would go on with half its bytes gone; only a newer boot begins anew."""
    current = boot_id()
    async with house(tmp_path) as home:
        await write(await home.login(identity(current)), b"f" * 512)
    if damage == "manifest":
        (home.folder / f"{current}.lun0.json").write_text("{")
    elif damage == "mark":
        with (home.folder / f"{current}.lun0.zeros").open("r+b") as marks:
            marks.write(b"\1")
    else:
        (home.folder / f"{current}.lun0.{damage}").unlink()
    async with house(tmp_path) as home:
        await home.refused(identity(current))
        assert len(home.files()) == (2 if damage in ("overlay", "zeros") else 3)
        await home.login(identity(boot_id(0.5)))


async def test_a_boot_that_could_not_begin_may_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_folder: Path) -> None:
        if list(_folder.glob("*.json")):
            raise OSError(5, "Input/output error")

    async with house(tmp_path) as home:
        name = identity(boot_id())
        monkeypatch.setattr(writeback, "sync_folder", broken)
        assert (await home.refused(name)).status == LoginStatus.OUT_OF_RESOURCES
        monkeypatch.undo()
        await home.login(name)


# Keep


async def test_keep_survives_reboots_and_is_told(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", 1 << 20)
    plans, first_id, second_id = Plans({MAC: plan(base, policy="keep")}), boot_id(2), boot_id(1)
    async with house(tmp_path, plans) as home:
        first = await home.login(identity(first_id))
        await write(first, b"k" * 512)
        second = await home.login(identity(second_id))
        assert second is not first
        assert await read(second) == b"k" * 512
        with pytest.raises(DiskFault):
            first.disks[0].disk.write(0, b"late" * 128)
        (told,) = home.told.of(WritebackKept)
        assert isinstance(told, WritebackKept)
        assert told.boot_id == first_id
        assert len(home.files()) == 3
    async with house(tmp_path, plans) as home:
        assert (await home.refused(identity(first_id))).status == LoginStatus.AUTHORIZATION_FAILURE
        assert await read(await home.login(identity(second_id))) == b"k" * 512


async def test_a_kept_writeback_that_could_not_be_synced_is_failed_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may have dropped what it could not write: neither a new boot nor a restart may believe the file."""

    def broken(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    base = make_image(tmp_path / "base.img", 1 << 20)
    plans = Plans({MAC: plan(base, policy="keep")})
    async with house(tmp_path, plans) as home:
        boot = await home.login(identity(boot_id(3)))
        await write(boot, b"k" * 512)
        with monkeypatch.context() as failing:
            failing.setattr(os, "fdatasync", broken)
            flushing = boot.disks[0].disk.flush()
            assert flushing is not None
            with pytest.raises(DiskFault):
                await flushing
        assert "could not be synced" in (await home.refused(identity(boot_id(2)))).cause
        assert home.told.counters["writebacks_failed"] == 1
    async with house(tmp_path, plans) as home:
        for name in (identity(boot_id(1)), "iqn.x:a"):
            refusal = await home.refused(name)
            assert "could not be synced" in refusal.cause
            assert "keep.lun0." in refusal.remedy
        plans[MAC] = plan(base, policy="discard")
        await home.login(identity(boot_id(0.5)))


async def test_a_kept_writeback_is_never_put_on_another_layer(tmp_path: Path) -> None:
    base, next_version = make_image(tmp_path / "base.img", 1 << 20), make_image(tmp_path / "v2.img", 1 << 20, seed=2)
    plans = Plans({MAC: plan(base, policy="keep")})
    async with house(tmp_path, plans) as home:
        await write(await home.login(identity(boot_id(3))), b"k" * 512)
        plans[MAC] = plan(next_version, policy="keep", version=2)
        assert await read(await home.login(identity(boot_id(2)))) == next_version.read_bytes()[:512]
        plans[MAC] = plan(base, policy="keep")
        assert await read(await home.login(identity(boot_id(1)))) == b"k" * 512


# Refusals


async def test_a_manifest_that_names_other_layers_refuses_its_overlay(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", 1 << 20)
    plans = Plans({MAC: plan(base, policy="keep")})
    async with house(tmp_path, plans) as home:
        await write(await home.login(identity(boot_id(3))), b"k" * 512)
    (path,) = home.folder.glob("keep*.json")
    path.write_text(path.read_text().replace("layer-base.img", "layer-another.img"))
    async with house(tmp_path, plans) as home:
        assert "lies on other layers" in (await home.refused(identity(boot_id(2)))).cause


async def test_every_refusal_names_cause_and_remedy_and_is_an_event(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.plans[OTHER] = plan(
            mac=OTHER, refusal=Refusal(cause="no_link", detail="no link leads to an image", remedy="set one")
        )
        refusal = await home.refused(identity(boot_id(), OTHER), mac=OTHER)
        assert (refusal.cause, refusal.remedy) == ("no link leads to an image", "set one")
        stranger = await home.refused("iqn.x:a", mac="52:54:00:00:00:09")
        assert stranger.status == LoginStatus.NOT_FOUND
        crossed = await home.refused(identity(boot_id(), OTHER))
        assert crossed.status == LoginStatus.AUTHORIZATION_FAILURE
        told = [event for event in home.told.of(BootFailed) if isinstance(event, BootFailed)]
        assert [event.cause for event in told] == [refusal.cause, stranger.cause, crossed.cause]
        assert all(event.stage == "disk" and event.remedy for event in told)


async def test_an_image_that_is_gone_or_changed_is_refused_and_the_running_boot_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        base = tmp_path / "base.img"
        boot = await home.login(identity(boot_id(2)))
        await write(boot, b"f" * 512)
        info = base.stat()
        os.utime(base, ns=(info.st_atime_ns, info.st_mtime_ns + 1))
        assert "changed" in (await home.refused(identity(boot_id(1)))).cause
        os.utime(base, ns=(info.st_atime_ns, info.st_mtime_ns))
        assert await read(await home.login("iqn.x:a")) == b"f" * 512


async def test_a_writeback_that_cannot_be_made_leaves_nothing_open(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        home.folder.write_text("in the way")
        refusal = await home.refused(identity(boot_id()))
        assert refusal.status == LoginStatus.OUT_OF_RESOURCES
        home.folder.unlink()
        await home.login(identity(boot_id()))


async def test_a_stranger_sees_no_target_and_a_client_its_own(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        assert home.attachments.targets("iqn.x:a") == []
        assert home.attachments.targets(identity(boot_id())) == [target_iqn(MAC)]
        assert home.attachments.targets(identity(boot_id(), OTHER)) == []


# Reclaiming


async def test_a_discarded_writeback_gives_its_space_back_after_a_while_and_never_the_current_one(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        old, current = boot_id(2), boot_id(1)
        await home.login(identity(old))
        await write(await home.login(identity(current)), b"c" * 512)
        began = current.timestamp_ms / 1000
        holdings, limits = home.attachments.holdings, reclaim.Retention(count=9, age=600, space=1 << 30)
        assert reclaim.due([holdings.reclaimable(MAC)], limits, began + 599) == []
        (gone,) = reclaim.due([holdings.reclaimable(MAC)], limits, began + 601)
        assert gone.boot_id == old
        await holdings.forget(gone)
        assert home.files() == [f"{current}.lun0.{kind}" for kind in ("json", "overlay", "zeros")]
        assert (await home.refused(identity(old))).status == LoginStatus.AUTHORIZATION_FAILURE


async def test_an_idle_boot_is_closed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as home:
        name, seat = identity(boot_id()), Someone()
        boot = await home.login(name, seat=seat)
        await write(boot, b"f" * 512)
        monkeypatch.setattr(module, "IDLE_SECONDS", -1.0)
        await home.attachments.close_idle()
        assert home.attachments.boots == [boot], "somebody sits there"
        home.attachments.leave(boot, Admission(name, target_iqn(MAC), (1).to_bytes(6, "big"), 0, False, False), seat)
        await home.attachments.close_idle()
        assert home.attachments.boots == []
        assert boot.disks[0].disk.overlay.fd == -1
        assert await read(await home.login(name)) == b"f" * 512


async def test_a_boot_that_is_closed_as_idle_while_the_block_store_stops_is_closed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_image(tmp_path / "base.img", 1 << 20)
    async with house(tmp_path, Plans({MAC: plan(base), OTHER: plan(base, mac=OTHER)})) as home:
        busy = await home.login(identity(boot_id()))
        idle = await home.login(identity(boot_id(), OTHER), mac=OTHER)
        idle.seats.clear()
        monkeypatch.setattr(Overlay, "write", lambda *_: time.sleep(0.2))
        writing = busy.disks[0].disk.write(0, b"x" * (1 << 19))
        assert writing is not None
        closing = asyncio.ensure_future(home.attachments.close())
        while busy in home.attachments.boots:
            await asyncio.sleep(0)
        assert home.attachments.boots == [idle], "the first one's write is still under way"
        monkeypatch.setattr(module, "IDLE_SECONDS", -1.0)
        await home.attachments.close_idle()
        await asyncio.gather(closing, writing)
        assert home.attachments.boots == []
