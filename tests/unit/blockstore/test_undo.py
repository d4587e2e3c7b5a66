"""What was discarded: how long it stays, and how it comes back; and what is thrown away on purpose."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bootlink_blockstore.holdings import Holdings
from bootlink_blockstore.reclaim import NOTHING, Retention, due
from bootlink_blockstore.writeback import Manifest, Writebacks, write_manifest
from bootlink_events import BootId, WritebackDiscarded, WritebackRestored
from bootlink_events.commands import ContentLayers, DropWriteback, ListLasting, ListWritebacks, RestoreWriteback
from bootlink_runtime import CommandError
from bootlink_wire.iscsi_codes import LoginStatus
from lab.blockstore import MAC, Plans, Policy, identity, make_image, plan
from lab.house import House, Someone, boot_id, house, read, write
from lab.menu import with_menu

ALL = Retention(count=9, age=1e12, space=1 << 60)


def left(holdings: Holdings, retention: Retention, now: float) -> list[BootId]:
    """The discarded boots that are not due, the newest first."""
    boots = holdings.reclaimable(MAC)
    gone = {manifest.boot_id for manifest in due([boots], retention, now)}
    return [boot.boot_id for boot in boots if boot.boot_id not in gone]


async def boots(home: House, *ids: BootId) -> None:
    """One boot after the other, each of which writes its number."""
    for number, each in enumerate(ids):
        await write(await home.login(identity(each)), bytes((number + 1,)) * 4096)


# Retention


async def test_discarded_boots_stay_by_count_age_and_space(tmp_path: Path) -> None:
    ids = [boot_id(hours) for hours in (5, 4, 3, 2)]
    async with house(tmp_path) as home:
        await boots(home, *ids)
        holdings, now = home.attachments.holdings, ids[3].timestamp_ms / 1000
        first, second, third = ids[:3]
        assert left(holdings, ALL, now) == [third, second, first]
        assert left(holdings, Retention(2, 1e12, 1 << 60), now) == [third, second]
        assert left(holdings, Retention(9, 3700.0, 1 << 60), now) == [third, second], "each since the next boot began"
        assert left(holdings, Retention(9, 1e12, 2 * 4096), now) == [third, second], "the oldest goes first"
        assert left(holdings, Retention(9, 1e12, 4095), now) == []
        assert left(holdings, NOTHING, now) == []


async def test_what_was_asked_back_and_what_is_being_read_is_not_reclaimed(tmp_path: Path) -> None:
    ids = [boot_id(hours) for hours in (5, 4, 3)]
    async with house(tmp_path) as home:
        await boots(home, *ids)
        holdings = home.attachments.holdings
        await home.ask(RestoreWriteback(mac=MAC, boot_id=ids[0]))
        assert {m.boot_id for m in due([holdings.reclaimable(MAC)], NOTHING, 1e12)} == {ids[1]}
        (read_now,) = holdings.of_boot(MAC, ids[1])
        holdings.pin(read_now)
        assert due([holdings.reclaimable(MAC)], NOTHING, 1e12) == []


async def test_what_is_asked_back_while_others_are_reclaimed_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reclaiming takes its time, and what it would take next may be asked back, or read, meanwhile."""
    ids = [boot_id(hours) for hours in (5, 4, 3, 2)]
    monkeypatch.setattr("bootlink_blockstore.reclaim.PAUSE_SECONDS", 0)
    async with house(tmp_path) as home:
        await boots(home, *ids)
        holdings = home.attachments.holdings
        first, second, third = ((holdings.of_boot(MAC, each))[0] for each in ids[:3])
        holdings.pin(second)
        forgotten: list[BootId] = []
        real = holdings.writebacks.remove

        def remove(manifest: Manifest) -> None:
            forgotten.append(manifest.boot_id)
            real(manifest)

        monkeypatch.setattr(holdings.writebacks, "remove", remove)
        restore = home.ask(RestoreWriteback(mac=MAC, boot_id=ids[0]))
        checked = asyncio.Event()
        whole = home.store.commands._require_whole

        def look(manifests: list[Manifest]) -> None:
            whole(manifests)
            loop.call_soon_threadsafe(checked.set)
            gate.wait(10)

        loop, gate = asyncio.get_running_loop(), threading.Event()
        monkeypatch.setattr(home.store.commands, "_require_whole", look)
        asking = asyncio.create_task(restore)
        await checked.wait()
        for manifest in (third, second, first):  # as a look of before has found them
            await holdings.reclaim(manifest)
        gate.set()
        await asking
        assert forgotten == [ids[2]]
        await holdings.reclaim(first)
        assert await read(await home.login(identity(boot_id(1)))) == b"\1" * 512


async def test_what_cannot_come_back_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, current = boot_id(2), boot_id(1)
    async with house(tmp_path) as home:
        await boots(home, old, current)
    monkeypatch.setattr("bootlink_blockstore.writeback.machine_run", lambda: "another")
    async with house(tmp_path) as home:
        assert {m.boot_id for m in due([home.attachments.holdings.reclaimable(MAC)], ALL, 0)} == {old}
        with pytest.raises(CommandError, match="is here any more"):
            await home.ask(RestoreWriteback(mac=MAC))
        with pytest.raises(CommandError, match="machine was restarted"):
            await home.ask(RestoreWriteback(mac=MAC, boot_id=old))
        states = {item.boot_id: item.state for item in (await home.ask(ListWritebacks(mac=MAC))).items}
        assert states == {old: "outlived", current: "outlived"}


# Undo


async def test_the_last_discarded_boot_comes_back_once_with_the_next_one(tmp_path: Path) -> None:
    ids = [boot_id(hours) for hours in (5, 4, 3, 2, 1)]
    base = (tmp_path / "base.img", make_image(tmp_path / "base.img", 1 << 20).read_bytes()[:512])[1]
    async with house(tmp_path) as home:
        await boots(home, *ids[:3])
        seat = Someone()
        running = await home.login(identity(ids[2]), seat=seat)
        (item,) = (await home.ask(RestoreWriteback(mac=MAC))).items
        assert (item.boot_id, item.state, item.returning) == (ids[1], "discarded", True)
        assert seat.evicted == "", "it comes back at the next boot, and not before"
        assert await read(running) == b"\3" * 512
        boot = await home.login(identity(ids[3]))
        assert await read(boot) == b"\2" * 512
        (told,) = home.told.of(WritebackRestored)
        assert isinstance(told, WritebackRestored)
        assert (told.boot_id, told.written_by, told.lun) == (ids[3], ids[1], 0)
        assert [e.boot_id for e in home.told.of(WritebackDiscarded) if isinstance(e, WritebackDiscarded)] == ids[:3]
        await write(boot, b"more" * 128, at=8192)
        assert await read(await home.login(identity(ids[4]))) == base, "what came back is discarded as any other"
        (again,) = (await home.ask(RestoreWriteback(mac=MAC))).items
        assert again.boot_id == ids[3]


async def test_what_was_asked_back_comes_back_after_a_restart_on_the_image_that_it_was_written_on(
    tmp_path: Path,
) -> None:
    old, current, after = boot_id(3), boot_id(2), boot_id(1)
    other = make_image(tmp_path / "v2.img", 2 << 20, seed=2)
    async with house(tmp_path) as home:
        await boots(home, old, current)
        await home.ask(RestoreWriteback(mac=MAC))
    newer = Plans({MAC: plan(other, version=2)})
    async with house(tmp_path, newer) as home:
        assert await read(await home.login(identity(current))) == b"\2" * 512
        boot = await home.login(identity(after))
        assert await read(boot) == b"\1" * 512
        assert boot.disks[0].disk.size == 1 << 20
        assert (boot.disks[0].manifest.image, boot.disks[0].manifest.version) == ("base", 1)
    async with house(tmp_path, newer) as home:
        assert await read(await home.login(identity(after))) == b"\1" * 512, "and is this boot's from then on"
        assert (await home.login(identity(BootId.mint(after=after)))).disks[0].disk.size == 2 << 20


async def test_a_boot_may_ask_to_outlive_its_own_restart(tmp_path: Path) -> None:
    current, after = boot_id(2), boot_id(1)
    async with house(tmp_path) as home:
        await boots(home, current)
        await home.ask(RestoreWriteback(mac=MAC, boot_id=current))
        assert await read(await home.login(identity(after))) == b"\1" * 512
        assert home.told.of(WritebackDiscarded) == []
        assert (await home.refused(identity(current))).status == LoginStatus.AUTHORIZATION_FAILURE


async def test_with_a_menu_it_comes_back_when_that_entry_is_chosen(tmp_path: Path) -> None:
    ids = [boot_id(hours) for hours in (5, 4, 3, 2)]
    async with house(tmp_path, with_menu(tmp_path)) as home:
        await write(await home.login(identity(ids[0]), entry="other"), b"o" * 512)
        await home.login(identity(ids[1]), entry="base")
        await home.ask(RestoreWriteback(mac=MAC))
        assert await read(await home.login(identity(ids[2]), entry="base")) != b"o" * 512
        assert await read(await home.login(identity(ids[3]), entry="other")) == b"o" * 512


@pytest.mark.parametrize("damage", ["overlay", "layer"])
async def test_what_cannot_return_after_all_costs_the_client_no_boot(tmp_path: Path, damage: str) -> None:
    old, current, after = boot_id(3), boot_id(2), boot_id(1)
    plain, other = make_image(tmp_path / "base.img", 1 << 20), make_image(tmp_path / "gone.img", 1 << 20, seed=7)
    plans = Plans({MAC: plan(other)})
    async with house(tmp_path, plans) as home:
        await boots(home, old, current)
        await home.ask(RestoreWriteback(mac=MAC))
        plans[MAC] = plan(plain)
        if damage == "overlay":
            (home.folder / f"{old}.lun0.overlay").write_bytes(b"short")
        else:
            other.unlink()
        assert await read(await home.login(identity(after))) == plain.read_bytes()[:512]


async def test_every_crash_while_two_disks_come_back_leaves_both_or_will(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifests take the new boot's id one by one: killed between, the same boot or a newer one has both disks."""
    second = make_image(tmp_path / "second.img", 1 << 20, seed=5)
    plans = Plans({MAC: plan(make_image(tmp_path / "base.img", 1 << 20), second)})
    old, current, after = boot_id(4), boot_id(3), boot_id(2)
    async with house(tmp_path, plans) as home:
        boot = await home.login(identity(old))
        await write(boot, b"a" * 512, lun=0)
        await write(boot, b"b" * 512, lun=1)
        await home.login(identity(current))
        await home.ask(RestoreWriteback(mac=MAC))
    for killed_after, newer in ((1, after), (2, boot_id(1))):
        async with house(tmp_path, plans) as home:
            writebacks = home.store.holdings.writebacks
            manifests = writebacks.intended(plans[MAC], newer, "", home.store.holdings.returning(MAC))
            monkeypatch.setattr("bootlink_blockstore.writeback.write_manifest", _dies(killed_after))
            with pytest.raises(_Killed):
                writebacks.begin(manifests)
            monkeypatch.undo()
        async with house(tmp_path, plans) as home:
            boot = await home.login(identity(newer))
            assert (await read(boot, lun=0), await read(boot, lun=1)) == (b"a" * 512, b"b" * 512)
            if killed_after == 1:  # and once more, for the other moment
                await home.login(identity(BootId.mint(after=newer, now_ms=newer.timestamp_ms)))
                await home.ask(RestoreWriteback(mac=MAC))


class _Killed(BaseException):
    pass


def _dies(after: int) -> Callable[[Path, Manifest], None]:
    """`write_manifest`, of a process that is killed after so many."""
    real, done = write_manifest, 0

    def write_one(path: Path, manifest: Manifest) -> None:
        nonlocal done
        real(path, manifest)
        done += 1
        if done == after:
            raise _Killed

    return write_one


# Binding


async def test_a_merge_of_layers_below_loses_no_kept_writeback(tmp_path: Path) -> None:
    """The contents are the same, and every layer is another."""
    base = make_image(tmp_path / "base.img", 1 << 20)
    merged = tmp_path / "merged.img"
    merged.write_bytes(base.read_bytes())
    plans = Plans({MAC: plan(base, policy="keep", content="win11-7")})
    async with house(tmp_path, plans) as home:
        await write(await home.login(identity(boot_id(3))), b"k" * 512)
        plans[MAC] = plan(merged, policy="keep", content="win11-7")
        boot = await home.login(identity(boot_id(2)))
        assert await read(boot) == b"k" * 512
        assert boot.disks[0].manifest.layers[0].path == str(merged)
        await write(boot, b"K" * 512)
        base.rename(tmp_path / "base.away")  # and the former layers may go
        assert await read(await home.login(identity(boot_id(1)))) == b"K" * 512
        (tmp_path / "base.away").rename(base)


async def test_what_was_discarded_comes_back_on_merged_layers_where_the_former_ones_are_gone(tmp_path: Path) -> None:
    """By then the client boots something else, so that its plan does not say where the content lies."""
    base, other = make_image(tmp_path / "old.img", 1 << 20), make_image(tmp_path / "other.img", 1 << 20)
    merged = tmp_path / "merged.img"
    merged.write_bytes(base.read_bytes())
    plans, lost = Plans({MAC: plan(base, content="win11-7")}), boot_id(3)
    now = ContentLayers(content="win11-7.0", layers=plan(merged).disks[0].layers)
    async with house(tmp_path, plans) as home:
        await write(await home.login(identity(lost)), b"f" * 512)
        plans[MAC] = plan(other, content="linux-1")
        await home.login(identity(boot_id(2)))
        base.unlink()
        with pytest.raises(CommandError, match="cannot come back"):
            await home.ask(RestoreWriteback(mac=MAC))
        (item,) = (await home.ask(RestoreWriteback(mac=MAC, stacks=(now,)))).items
        assert (item.boot_id, item.returning) == (lost, True)
    async with house(tmp_path, plans) as home:  # it outlives a restart of the service
        boot = await home.login(identity(boot_id(1)))
        assert await read(boot) == b"f" * 512
        assert await read(boot, at=4096) == merged.read_bytes()[4096:4608]


async def test_what_comes_back_on_merged_layers_is_known_by_the_content_that_it_was_written_upon(
    tmp_path: Path,
) -> None:
    """A manifest of before names no content, but is known by its top layer, which is another one now."""
    base, merged = make_image(tmp_path / "old.img", 1 << 20), make_image(tmp_path / "merged.img", 1 << 20)
    async with house(tmp_path, Plans({MAC: plan(base)})) as home:
        await boots(home, boot_id(3), boot_id(2))
        before = (await home.ask(ListWritebacks(mac=MAC))).items[-1]
        now = ContentLayers(content=before.content, layers=plan(merged).disks[0].layers)
        (item,) = (await home.ask(RestoreWriteback(mac=MAC, stacks=(now,)))).items
        assert (item.boot_id, item.content) == (before.boot_id, before.content)


async def test_a_running_boot_finds_its_disk_after_a_merge_and_a_restart(tmp_path: Path) -> None:
    base, current = make_image(tmp_path / "old.img", 1 << 20), boot_id()
    merged = tmp_path / "merged.img"
    merged.write_bytes(base.read_bytes())
    plans = Plans({MAC: plan(base, content="win11-7")})
    async with house(tmp_path, plans) as home:
        await write(await home.login(identity(current)), b"f" * 512)
    plans[MAC] = plan(merged, content="win11-7")
    base.unlink()
    async with house(tmp_path, plans) as home:
        boot = await home.login(identity(current))
        assert await read(boot) == b"f" * 512
        assert await read(boot, at=4096) == merged.read_bytes()[4096:4608]


async def test_a_kept_writeback_of_before_is_found_by_its_top_layer(tmp_path: Path) -> None:
    """Manifests of before name no content; the registry made the top layer's id the content of each version."""
    base = make_image(tmp_path / "base.img", 1 << 20)
    plans = Plans({MAC: plan(base, policy="keep")})
    async with house(tmp_path, plans) as home:
        await write(await home.login(identity(boot_id(3))), b"k" * 512)
        disk = plans[MAC].disks[0].model_copy(update={"content": "layer-base.img"})
        plans[MAC] = plans[MAC].model_copy(update={"disks": (disk,)})
        assert await read(await home.login(identity(boot_id(2)))) == b"k" * 512


# Super, and what is thrown away


async def test_a_super_client_keeps_what_it_writes_apart_from_what_was_kept(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", 1 << 20)
    plans = Plans({MAC: plan(base, policy="keep")})
    async with house(tmp_path, plans) as home:
        await write(await home.login(identity(boot_id(5))), b"k" * 512)
        plans[MAC] = plan(base, policy="super")
        boot = await home.login(identity(boot_id(4)))
        assert boot.disks[0].disk.durable
        assert await read(boot) == base.read_bytes()[:512]
        await write(boot, b"s" * 512)
        assert await read(await home.login(identity(boot_id(3)))) == b"s" * 512
        plans[MAC] = plan(base, policy="keep")
        assert await read(await home.login(identity(boot_id(2)))) == b"k" * 512


async def test_what_was_dropped_is_gone_and_its_boot_is_over(tmp_path: Path) -> None:
    """A PC that comes back to a boot whose write-back was committed must not get a fresh disk in its middle."""
    base = make_image(tmp_path / "base.img", 1 << 20)
    plans, current = Plans({MAC: plan(base, policy="super", content="c")}), boot_id(2)
    async with house(tmp_path, plans) as home:
        seat = Someone()
        boot = await home.login(identity(current), seat=seat)
        await write(boot, b"s" * 512)
        with pytest.raises(CommandError, match="has the disk open"):
            await home.ask(DropWriteback(mac=MAC))
        boot.seats.clear()
        assert (await home.ask(DropWriteback(mac=MAC, content="another"))).items == ()
        (item,) = (await home.ask(DropWriteback(mac=MAC, content="c.0"))).items
        assert (item.policy, item.state, item.boot_id) == ("super", "idle", current)
        assert home.files() == ["client.ledger"]
        assert (await home.ask(DropWriteback(mac=MAC, content="c.0"))).items == (), "and again, as after no answer"
    async with house(tmp_path, plans) as home:
        refusal = await home.refused(identity(current))
        assert (refusal.status, "is over" in refusal.cause) == (LoginStatus.AUTHORIZATION_FAILURE, True)
        assert (await home.refused(identity(boot_id(3)))).status == LoginStatus.AUTHORIZATION_FAILURE
        fresh = await home.login("iqn.2004-01.org.example:someone")
        assert fresh.boot_id > current
        assert await read(fresh) == base.read_bytes()[:512]


async def test_of_whom_something_lasts_is_told_in_pages(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", 1 << 20)
    macs = [f"52:54:00:00:00:{number:02x}" for number in range(1, 6)]
    policies: list[Policy] = ["keep", "discard", "super", "keep", "discard"]
    plans = Plans({mac: plan(base, mac=mac, policy=policy) for mac, policy in zip(macs, policies, strict=True)})
    begun = {mac: boot_id(3) for mac in macs}
    async with house(tmp_path, plans) as home:
        for mac in macs:
            await home.login(identity(begun[mac], mac), mac=mac)
        first = await home.ask(ListLasting(limit=2))
        rest = await home.ask(ListLasting(limit=2, after=first.next or ""))
        assert (first.next, rest.next) == (macs[2], None)
        told = {one.mac: one.boot_id for one in (*first.clients, *rest.clients)}
        assert told == {mac: begun[mac] for mac in (macs[0], macs[2], macs[3])}


async def test_a_new_boot_is_begun_by_the_block_store_that_the_plan_names_and_goes_on_where_it_is(
    tmp_path: Path,
) -> None:
    base = make_image(tmp_path / "base.img", 1 << 20)
    here = plan(base, policy="keep")
    plans, current = Plans({MAC: here}), boot_id(3)
    async with house(tmp_path, plans) as home:
        boot = await home.login(identity(current))
        await write(boot, b"k" * 512)
        plans[MAC] = here.model_copy(update={"home": "another"})
        assert await home.login(identity(current), isid=2) is boot, "it is not cut off"
        refusal = await home.refused(identity(boot_id(2)))
        assert refusal.status == LoginStatus.AUTHORIZATION_FAILURE
        assert "lies on block store another" in refusal.cause
        plans[MAC] = plan(base).model_copy(update={"home": "another"})
        await home.login(identity(boot_id(1.5)))  # of which nothing lasts
        plans[MAC] = here
        assert await read(await home.login(identity(boot_id(1)))) == b"k" * 512


async def test_what_holds_more_than_the_layer_that_was_made_of_it_is_left(tmp_path: Path) -> None:
    base, current = make_image(tmp_path / "base.img", 1 << 20), boot_id(3)
    plans = Plans({MAC: plan(base, policy="super", content="c")})
    async with house(tmp_path, plans) as home:
        boot = await home.login(identity(current))
        await write(boot, b"1" * 512)
        boot.seats.clear()
        (made,) = (await home.ask(ListWritebacks(mac=MAC))).items
        drop = DropWriteback(mac=MAC, content="c.0", exported_boot=current, exported_written=made.written)
        late = await home.login(identity(boot_id(2)))
        with pytest.raises(CommandError, match="has the disk open"):
            await home.ask(drop)  # it has written nothing yet
        await write(late, b"2" * 512, at=8192)
        for seated in (True, False):
            if not seated:
                late.seats.clear()
            answer = await home.ask(drop)
            assert (answer.items, [item.boot_id for item in answer.left]) == ((), [late.boot_id])
        by_boot = DropWriteback(mac=MAC, content="c.0", exported_boot=current)
        assert (await home.ask(by_boot)).left, "without a time it goes by the boot"
        again = await home.login(identity(boot_id(1)))
        assert await read(again) == b"1" * 512
        again.seats.clear()
        (now,) = (await home.ask(ListWritebacks(mac=MAC))).items
        all_of_it = DropWriteback(mac=MAC, exported_boot=now.boot_id, exported_written=now.written)
        answer = await home.ask(all_of_it)
        assert (len(answer.items), answer.left) == (1, ())


async def test_a_drop_that_was_cut_short_forgets_no_fence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, current = make_image(tmp_path / "base.img", 1 << 20), boot_id(2)
    plans = Plans({MAC: plan(base, policy="super")})
    async with house(tmp_path, plans) as home:
        (await home.login(identity(current))).seats.clear()

        def dies(_self: Writebacks, _manifest: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(Writebacks, "remove", dies)
        with pytest.raises(OSError, match="Input/output"):
            await home.ask(DropWriteback(mac=MAC))
        monkeypatch.undo()
    async with house(tmp_path, plans) as home:
        assert "is over" in (await home.refused(identity(current))).cause
        assert await home.ask(DropWriteback(mac=MAC)), "and may be repeated"
        assert home.files() == ["client.ledger"]


async def test_a_list_tells_the_state_of_each(tmp_path: Path) -> None:
    base, second = make_image(tmp_path / "base.img", 1 << 20), make_image(tmp_path / "two.img", 1 << 20, seed=2)
    plans = Plans({MAC: plan(base, policy="keep")})
    kept, discarded, current = boot_id(3), boot_id(2), boot_id(1)
    async with house(tmp_path, plans) as home:
        await boots(home, kept)
        plans[MAC] = plan(second)
        await boots(home, discarded, current)
        items = (await home.ask(ListWritebacks(mac=MAC))).items
        assert [(item.boot_id, item.state) for item in items] == [
            (current, "in_use"),
            (discarded, "discarded"),
            (kept, "kept"),
        ]
        assert items[2].bytes == 4096
        await home.attachments.disconnect(MAC, "test")
        assert (await home.ask(ListWritebacks(mac=MAC))).items[0].state == "idle"
