"""Two dhcp servers on one pool: no address is ever given to two PCs, with NATS, without it, and after it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bootlink_wire.dhcp import MessageType
from lab.dhcp_pair import FIRST, SECOND, Crowd, Pair, PairCable, macs

BOTH = {FIRST, SECOND}
WAIT = 30.0


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    with PairCable() as cable:
        pair = Pair(cable, tmp_path, pool="10.77.0.20-10.77.0.219", lease_seconds="60")
        try:
            await pair.start_nats()
            yield pair
        finally:
            pair.stop()


async def both_offer(crowd: Crowd, mac: str) -> None:
    """Wait until each of the servers offers an address to a new PC."""
    async with asyncio.timeout(WAIT):
        while await crowd.offers(mac) != BOTH:
            pass


async def boot_all(crowd: Crowd, room: list[str]) -> None:
    found = await asyncio.gather(*(crowd.boot(mac) for mac in room))
    assert None not in found, f"{found.count(None)} of {len(room)} PCs have no address"


async def test_two_servers_give_no_address_to_two_pcs_also_while_nats_is_cut(pair: Pair) -> None:
    one, two = pair.servers
    crowd = Crowd(pair.cable, seed=5)
    try:
        with one, two:
            (probe,) = macs(0xF000, 1)
            await both_offer(crowd, probe)
            first, second, third = list(macs(0, 60)), list(macs(100, 40)), list(macs(200, 40))
            await boot_all(crowd, first)

            storm = asyncio.gather(*(crowd.boot(mac) for mac in second))
            await asyncio.sleep(0.3)
            pair.cut_nats()  # in the middle of it
            assert None not in await storm
            again = await asyncio.gather(*(crowd.rebind(mac) for mac in first[:20]))
            assert set(again) == {MessageType.ACK}  # known leases go on without NATS
            # And none of the two refuses a client that the other was given since.
            again = await asyncio.gather(*(crowd.rebind(mac) for mac in second))
            assert set(again) == {MessageType.ACK}

            await pair.start_nats()
            await boot_all(crowd, third)
            await asyncio.sleep(1)
            two.kill()  # the one that is left renews what the other gave out
            again = await asyncio.gather(*(crowd.rebind(mac) for mac in first))
            assert set(again) == {MessageType.ACK}
    finally:
        crowd.close()
    assert crowd.twice() == {}
    assert set(crowd.by_server) == BOTH
    assert len(crowd.given) >= 140
    for server in pair.servers:
        assert "Traceback" not in server.log.read_text()
        assert "lease given up" not in server.log.read_text()


async def test_a_server_that_starts_anew_without_nats_goes_on_with_what_it_holds(pair: Pair) -> None:
    one, two = pair.servers
    crowd = Crowd(pair.cable, seed=7)
    try:
        with one, two:
            (probe,) = macs(0xF000, 1)
            await both_offer(crowd, probe)
            room = list(macs(0, 20))
            await boot_all(crowd, room)
            await asyncio.sleep(2)  # the snapshot of the bucket is a second behind
            pair.cut_nats()
            one.kill()
            two.kill()
            with one:  # the other stays away, and its clients come here
                async with asyncio.timeout(WAIT):
                    while FIRST not in await crowd.offers(probe):
                        pass
                assert set(await asyncio.gather(*(crowd.rebind(mac) for mac in room))) == {MessageType.ACK}
                await boot_all(crowd, list(macs(100, 10)))
                with two:
                    async with asyncio.timeout(WAIT):
                        while SECOND not in await crowd.offers(probe):
                            pass
                    await boot_all(crowd, list(macs(200, 20)))
    finally:
        crowd.close()
    assert crowd.twice() == {}
