"""CHAP over real connections, with libiscsi as the initiator too, and where the secrets do not go."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bootlink_blockstore.access import Access
from bootlink_events import BootFailed, BootId, ClusterKey, target_iqn
from bootlink_events.plans import Chap
from bootlink_wire.iscsi_codes import LoginStatus
from lab.blockstore import MAC, Lab, digest, identity, make_image, plan, serving
from lab.iscsi import Initiator, LoginFailed
from lab.tools import tool

KEY = ClusterKey(b"the cluster key of this test: 32")
OTHER_MAC = "52:54:00:00:00:02"


@contextlib.asynccontextmanager
async def lab(tmp_path: Path, chap: Chap = "one-way", access: Access | None = None) -> AsyncIterator[Lab]:
    base = make_image(tmp_path / "base.img")
    before = digest(base)
    plans = plan(base, chap=chap), plan(base, mac=OTHER_MAC, chap=chap)
    async with serving(tmp_path, *plans, access=access or Access(KEY)) as running:
        yield running
    assert digest(base) == before, "the image's bytes have changed"


def url(running: Lab, boot: BootId, secret: str = "") -> str:
    known = KEY.credentials(MAC, boot)
    return f"iscsi://{known.user}%{secret or known.secret}@{running.host}:{running.port}/{target_iqn(MAC)}/0"


async def test_rule_15_libiscsi_logs_in_with_the_secret_of_its_boot_and_with_no_other(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        boot = BootId.mint()
        name = identity(boot)
        assert "Total size:" in await tool("iscsi-readcapacity16", "-i", name, url(running, boot))
        with pytest.raises(AssertionError, match="failed"):
            await tool("iscsi-readcapacity16", "-i", name, url(running, boot, "0123456789abcdef"))
        with pytest.raises(AssertionError, match="failed"):
            await tool("iscsi-readcapacity16", "-i", name, running.url())
        former = KEY.credentials(MAC, BootId.mint()).secret
        with pytest.raises(AssertionError, match="failed"):
            await tool("iscsi-readcapacity16", "-i", name, url(running, boot, former))
        failures = [event for event in running.told.of(BootFailed) if isinstance(event, BootFailed)]
        assert len(failures) >= 3
        assert all(event.boot_id == boot and event.stage == "disk" for event in failures)
        assert "BOOTLINK_CLUSTER_KEY" in failures[0].remedy


async def test_rule_15_libiscsi_asks_the_target_for_a_proof_and_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(tmp_path, "mutual") as running:
        boot = BootId.mint()
        known = KEY.credentials(MAC, boot)
        monkeypatch.setenv("LIBISCSI_CHAP_TARGET_USERNAME", known.target_user)
        monkeypatch.setenv("LIBISCSI_CHAP_TARGET_PASSWORD", known.target_secret)
        name = identity(boot)
        assert "Total size:" in await tool("iscsi-readcapacity16", "-i", name, url(running, boot))
        monkeypatch.setenv("LIBISCSI_CHAP_TARGET_PASSWORD", "another password")
        with pytest.raises(AssertionError, match="failed"):
            await tool("iscsi-readcapacity16", "-i", name, url(running, boot))


async def test_rule_14_discovery_asks_for_the_secret_too(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        boot = BootId.mint()
        known = KEY.credentials(MAC, boot)
        portal = f"{running.host}:{running.port}"
        found = await tool("iscsi-ls", "-i", identity(boot), f"iscsi://{known.user}%{known.secret}@{portal}")
        assert f"Target:{target_iqn(MAC)} " in found
        with pytest.raises(AssertionError, match="failed"):
            await tool("iscsi-ls", "-i", identity(boot), f"iscsi://{portal}")


async def test_a_secret_of_one_client_opens_no_other_clients_disk(tmp_path: Path) -> None:
    """Not under its own name, and not under the other's with the boot id that the secret is of."""
    async with lab(tmp_path) as running:
        boot = BootId.mint()
        own = KEY.credentials(OTHER_MAC, boot)
        stolen = f"iscsi://{own.user}%{own.secret}@{running.host}:{running.port}/{target_iqn(MAC)}/0"
        for name in (identity(boot, OTHER_MAC), identity(boot, MAC)):
            with pytest.raises(AssertionError, match="failed"):
                await tool("iscsi-readcapacity16", "-i", name, stolen)
        assert running.store.attachments.boots == []


@pytest.mark.parametrize("name", ["iqn.1993-08.org.debian:01:test", "iqn.2026-11.io.bootlink:52-54-00-00-00-01"])
async def test_a_name_without_a_boot_id_has_no_secret(tmp_path: Path, name: str) -> None:
    async with lab(tmp_path) as running:
        pc = await Initiator.connect(running.host, running.port, name=name)
        with pytest.raises(LoginFailed) as caught:
            await pc.log_in()
        assert caught.value.status == LoginStatus.AUTHENTICATION_FAILURE
        (event,) = running.told.of(BootFailed)
        assert isinstance(event, BootFailed)
        assert "carries no boot id" in event.cause
        assert "restart the PC" in event.remedy
        await pc.close()


async def test_a_block_store_without_a_key_lets_nobody_in_who_must_prove_himself(tmp_path: Path) -> None:
    async with lab(tmp_path, access=Access()) as running:
        pc = await Initiator.connect(running.host, running.port, name=identity(BootId.mint()))
        with pytest.raises(LoginFailed) as caught:
            await pc.log_in()
        assert caught.value.status == LoginStatus.TARGET_ERROR
        (event,) = running.told.of(BootFailed)
        assert isinstance(event, BootFailed)
        assert "BOOTLINK_CLUSTER_KEY" in event.remedy
        await pc.close()


async def test_a_boot_goes_on_under_its_rule_where_its_plan_has_gone(tmp_path: Path) -> None:
    async with lab(tmp_path) as running:
        boot = BootId.mint()
        assert "Total size:" in await tool("iscsi-readcapacity16", "-i", identity(boot), url(running, boot))
        running.plans.clear()
        assert "Total size:" in await tool("iscsi-readcapacity16", "-i", identity(boot), url(running, boot))
        with pytest.raises(LoginFailed) as caught:
            await Initiator.logged_in(running.host, running.port, name=identity(boot))
        assert caught.value.status == LoginStatus.AUTHENTICATION_FAILURE


async def test_a_secret_shows_in_no_event_no_span_no_log_and_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with lab(tmp_path, "mutual") as running:
        boot = BootId.mint()
        known = KEY.credentials(MAC, boot)
        assert "Total size:" in await tool("iscsi-readcapacity16", "-i", identity(boot), url(running, boot))
        with pytest.raises(AssertionError):
            await tool("iscsi-readcapacity16", "-i", identity(boot), running.url())
    told = f"{running.told.events}{running.told.spans}{running.told.counters}" + "".join(capsys.readouterr())
    assert "disk attached" in told
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    assert b'"chap"' in files
    for secret in (known.secret, known.target_secret):
        assert secret not in told
        assert secret.encode() not in files


async def test_with_the_setting_for_it_a_name_must_carry_its_clients_boot_id(tmp_path: Path) -> None:
    async with lab(tmp_path, "off", Access(require_boot_id=True)) as running:
        for name in ("iqn.1993-08.org.debian:01:test", "iqn.2026-11.io.bootlink:52-54-00-00-00-01"):
            with pytest.raises(LoginFailed) as caught:
                await Initiator.logged_in(running.host, running.port, name=name)
            assert caught.value.status == LoginStatus.AUTHORIZATION_FAILURE
        pc = await Initiator.logged_in(running.host, running.port, name=identity(BootId.mint()))
        await pc.close()
