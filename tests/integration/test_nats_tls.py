"""TLS to NATS, with a real nats-server: on by a setting, and never in clear where it was asked for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bootlink_runtime import Bus, BusUnavailable, Health, StartupError, connect_once, logger
from bootlink_runtime.access import access
from lab.certificates import Authority
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.up import FREE_PORTS, Up, bootlink

WAIT = 20


async def refusal(nats: NatsServer, ca: Path) -> tuple[str, str]:
    """What a command is told that trusts this authority."""
    with pytest.raises(BusUnavailable) as told:
        await connect_once(nats.url, "test", access(url=nats.url, ca=ca))
    return str(told.value), told.value.remedy


async def test_a_bus_speaks_tls_and_finds_a_server_again_that_was_away(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    with NatsServer(tmp_path, tls=authority.server()) as nats:
        assert nats.url.startswith("tls://")
        async with bus_on(nats.url, access=access(url=nats.url, ca=authority.file)) as bus:
            nats.kill()
            nats.start()
            async with asyncio.timeout(WAIT):
                await bus.epoch_after(1)
            assert await bus.key_value("bootlink_plans") is not None


@pytest.mark.parametrize(
    ("name", "expired", "own", "said", "remedy"),
    [
        ("127.0.0.1", False, False, "certificate verify failed", "name the right one in BOOTLINK_NATS_CA_FILE"),
        ("127.0.0.1", True, True, "expired", "renew it, and restart the server"),
        ("10.1.2.3", False, True, "IP address mismatch", "with the name in BOOTLINK_NATS_URL"),
    ],
)
async def test_a_server_that_does_not_prove_itself_is_refused_with_what_to_do(
    tmp_path: Path, name: str, expired: bool, own: bool, said: str, remedy: str
) -> None:
    authority = Authority(tmp_path / "ca")
    trusted = authority if own else Authority(tmp_path / "other")
    with NatsServer(tmp_path, tls=authority.server(name, expired=expired)) as nats:
        problem, told = await refusal(nats, trusted.file)
    assert said in problem
    assert remedy in told


async def test_a_bus_goes_on_trying_until_the_servers_certificate_is_renewed(tmp_path: Path) -> None:
    """nats-py by itself would hang in the first handshake that fails."""
    authority = Authority(tmp_path / "ca")
    with NatsServer(tmp_path, tls=authority.server(expired=True)) as nats:
        shown = access(url=nats.url, ca=authority.file)
        bus = Bus(nats.url, access=shown, service="test", node="lab", log=logger("test"), health=Health("test", "lab"))
        bus.start()
        try:
            await bus.tried()
            assert not bus.connected
            authority.server()
            nats.reload()
            async with asyncio.timeout(WAIT):
                await bus.epoch_after(0)
        finally:
            await bus.close()


async def test_nothing_is_said_in_clear_to_a_server_without_tls(nats: NatsServer, tmp_path: Path) -> None:
    problem, remedy = await refusal(nats, Authority(tmp_path / "ca").file)
    assert "does not speak TLS" in problem
    assert "unset BOOTLINK_NATS_CA_FILE" in remedy


def test_files_that_are_no_certificates_are_named_at_the_start(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("no certificate")
    with pytest.raises(StartupError, match="BOOTLINK_NATS_CA_FILE"):
        access(url="nats://127.0.0.1", ca=nothing)
    with pytest.raises(StartupError, match="BOOTLINK_NATS_CERT_FILE"):
        access(url="nats://127.0.0.1", cert=nothing)
    with pytest.raises(StartupError, match="BOOTLINK_NATS_CREDENTIALS"):
        access(url="nats://127.0.0.1", credentials="no key")


def test_up_runs_a_whole_system_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    tls = authority.server()
    ours = {
        "BOOTLINK_NATS_SERVER_CERT_FILE": str(tls.cert),
        "BOOTLINK_NATS_SERVER_KEY_FILE": str(tls.key),
        "BOOTLINK_NATS_CA_FILE": str(authority.file),
    }
    with Up("--services", "blockstore", env=FREE_PORTS | ours) as up:
        assert up.facts["nats"].startswith("tls://127.0.0.1:")
        here = {"BOOTLINK_NATS_URL": up.facts["nats"], "BOOTLINK_DATA": up.facts["data"]}
        status = bootlink("status", "--json", env=here | {"BOOTLINK_NATS_CA_FILE": str(authority.file)})
        assert [service["service"] for service in json.loads(status.stdout)["services"]] == ["blockstore"]
        assert "another CA" in bootlink("status", env=here).stderr


async def test_a_server_that_wants_a_certificate_of_ours_is_shown_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    tls = authority.server()
    asking = {"cert_file": str(tls.cert), "key_file": str(tls.key), "ca_file": str(authority.file), "verify": True}
    ours = authority.client("dhcp.lab")
    with NatsServer(tmp_path, tls=tls) as nats:
        nats.reload(tls=asking)
        remedy = ""
        async with asyncio.timeout(WAIT):
            while not remedy:
                try:
                    await (await connect_once(nats.url, "test", access(url=nats.url, ca=authority.file))).close()
                except BusUnavailable as told:
                    remedy = told.remedy
        assert "BOOTLINK_NATS_CERT_FILE" in remedy
        shown = access(url=nats.url, ca=authority.file, cert=ours.cert, key=ours.key)
        async with bus_on(nats.url, access=shown) as bus:
            assert await bus.key_value("bootlink_plans") is not None
