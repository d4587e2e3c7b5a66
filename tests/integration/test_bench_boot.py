"""The measures of DHCP and TFTP ask real servers, count what they answer, and take no wrong file for a right one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench import boot_servers, dhcp, power_on, tftp
from bench.boot_servers import Server
from lab.netns import Cable

Serving = Callable[[Path, Cable], AbstractContextManager[Server]]


@pytest.mark.parametrize("serving", [boot_servers.dhcp, boot_servers.kea])
def test_perfdhcp_gets_leases_from_either_server_and_its_report_is_understood(serving: Serving, tmp_path: Path) -> None:
    with boot_servers.lan() as cable, serving(tmp_path / "server", cable) as server:
        run = dhcp.measured(server, 50, seconds=1)
    assert run.asked > 20
    assert run.drops < 0.5
    offers, acks = run.waits
    assert len(offers) >= len(acks) > 10
    assert 0 < offers[0] <= offers[-1]
    assert run.server_cpu >= 0


def test_a_server_that_answers_nothing_serves_no_rate() -> None:
    said = "sent packets: 10\nreceived packets: 4\n***Timestamps for packets: REQUEST-ACK***\n"
    run = dhcp.read(said + "sent packets: 4\nreceived packets: 0\n", 1.0)
    assert run.rate == 0
    assert run.drops == 1 - 4 / 14
    assert dhcp.p99(run) == float("inf")


def test_a_report_that_is_not_understood_is_none() -> None:
    with pytest.raises(RuntimeError, match="nothing that is understood"):
        dhcp.read("sent packets: 10\n", 0.0)


@pytest.mark.parametrize("serving", [boot_servers.tftp, boot_servers.hpa])
def test_either_server_sends_one_client_and_a_room_what_they_ask_for(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(boot_servers.LOADERS, "large.img", 1 << 20)
    with boot_servers.lan() as cable, serving(tmp_path / "server", cable) as server:
        rate, used = tftp.fetched(server, tmp_path / "fetched")
        assert rate > 0
        assert used >= 0
        assert 0 < tftp.fetched_from_away(server, 20) < tftp.BLOCK / tftp.AWAY
        assert len(tftp.room_fetched(server, 5)) == 5
        monkeypatch.setitem(boot_servers.LOADERS, "large.img", 2 << 20)
        with pytest.raises(RuntimeError, match="something else than the file"):
            tftp.fetched(server, tmp_path / "fetched")


def test_simulated_pcs_come_from_power_on_to_the_script_that_starts_their_disk(tmp_path: Path) -> None:
    with power_on.serving(tmp_path / "room") as (cable, _):
        boots = power_on.switched_on(cable, 5)
    assert [boot.problem for boot in boots] == [""] * 5
    assert all(0 < boot.loader < boot.script for boot in boots)
    assert all(boot.longest_wait > 0 for boot in boots)
