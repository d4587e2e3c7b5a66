"""A guest's hello: what is read of it, and whom the chronicle believes."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_events import BootHello, BootId, initiator_iqn
from bootlink_tftp.chronicle import HELLOS_BURST
from bootlink_tftp.hello import SYSTEM_MAX, Hello, HelloRefused, read
from lab.boot_plans import BOOT_ID, MAC, plan
from lab.chronicle import ChronicleRig

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
OTHER = "52:54:00:00:00:99"
PEER = "10.77.0.50"
IQN = initiator_iqn(MAC, BOOT_ID)


def form(**fields: str) -> bytes:
    return urlencode({"initiator": IQN} | fields).encode()


def test_a_hello_names_its_boot_and_when_its_kernel_began() -> None:
    hello = read(form(system="Debian GNU/Linux 12 (bookworm)", uptime="12.5"))
    assert hello == Hello(MAC, BOOT_ID, "Debian GNU/Linux 12 (bookworm)", timedelta(seconds=12.5))
    assert hello.began(NOW) == NOW - timedelta(seconds=12.5)


def test_no_kernel_began_before_its_boot_unless_the_clocks_differ() -> None:
    boot_id = BootId.mint(now_ms=int(NOW.timestamp() * 1000) - 60_000)
    hello = Hello(MAC, boot_id, uptime=timedelta(minutes=50))
    assert hello.began(NOW) == NOW - timedelta(seconds=60)
    assert hello.began(NOW - timedelta(seconds=90)) == NOW - timedelta(seconds=90, minutes=50)


def test_system_and_uptime_may_be_left_out_and_a_comma_is_a_point() -> None:
    assert read(form()) == Hello(MAC, BOOT_ID)
    assert read(form()).began(NOW) == NOW
    assert read(form(uptime="7,25")).uptime == timedelta(seconds=7.25)


@pytest.mark.parametrize("uptime", ["-1", "nan", "inf", "3601", "soon", "1e999"])
def test_an_uptime_that_no_boot_has_is_none(uptime: str) -> None:
    assert read(form(uptime=uptime)).uptime is None


def test_of_what_a_system_calls_itself_so_much_is_kept_and_no_control_characters() -> None:
    assert read(form(system="a\x1b[31m\nb" + "x" * 999)).system == ("a [31m b" + "x" * 999)[:SYSTEM_MAX]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"initiator=",
        b"initiator=iqn.1993-08.org.debian:01:abc",
        f"initiator=iqn.2026-11.io.bootlink:{MAC.replace(':', '-')}".encode(),
        b"\xff\xfe",
        b"&".join(b"a%d=1" % n for n in range(50)),
    ],
    ids=["empty", "none", "another's", "without a boot", "binary", "many fields"],
)
def test_what_names_no_boot_of_ours_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(HelloRefused, match=r"send"):
        read(body)


@given(st.binary(max_size=1024))
def test_whatever_is_posted_it_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(HelloRefused):
        assert len(read(body).system) <= SYSTEM_MAX


# -- whom the chronicle believes --


class Rig(ChronicleRig):
    """A chronicle with one client, which is near."""

    def __init__(self) -> None:
        super().__init__(neighbours={PEER: MAC}, plans={MAC: plan()})

    def hello(self, boot_id: BootId = BOOT_ID, *, mac: str = MAC, peer: str = PEER) -> str | None:
        return self.chronicle.hello(Hello(mac, boot_id, "Linux", timedelta(seconds=9)), peer, NOW)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_hello_is_told_once_for_each_boot(rig: Rig) -> None:
    assert [rig.hello(), rig.hello(), rig.hello(BootId.mint(after=BOOT_ID))] == [None] * 3
    told = [event for event in rig.events if isinstance(event, BootHello)]
    assert len(told) == len(rig.events) == 2
    assert (told[0].mac, told[0].boot_id, told[0].system, told[0].peer) == (MAC, BOOT_ID, "Linux", PEER)
    assert (told[0].started, told[0].ended) == (NOW - timedelta(seconds=9), NOW)


def test_a_pc_behind_a_router_may_say_hello_though_its_card_cannot_be_seen(rig: Rig) -> None:
    assert rig.hello(peer="10.99.0.5") is None


def test_nobody_says_hello_for_another_pc(rig: Rig) -> None:
    rig.neighbours["10.77.0.66"] = OTHER
    assert "10.77.0.66 is not the client" in str(rig.hello(peer="10.77.0.66"))
    rig.chronicle.loader_sent(BOOT_ID, "undionly.kpxe", 1, "10.77.0.66", NOW, NOW)
    assert "is not the client" in str(rig.hello(peer="10.99.0.5")), "it was another PC that got this boot's loader"
    assert "no client" in str(rig.hello(mac=OTHER))
    assert not [event for event in rig.events if isinstance(event, BootHello)]


def test_a_flood_of_hellos_is_cut(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    boot, refusals = BOOT_ID, 0
    for _ in range(HELLOS_BURST + 10):
        boot = BootId.mint(after=boot)
        refusals += rig.hello(boot) is not None
    assert (len(rig.events), refusals) == (HELLOS_BURST, 10)
