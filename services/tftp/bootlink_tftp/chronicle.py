"""The chronicle: what the boot files' transfers say about boots, as events, spans and log lines.

A loader's name carries the boot id but not the PC's MAC address, which every event has. The kernel's neighbour table
knows it for a PC on our own LAN. For one behind a relay the finding is kept until the PC asks for its script, whose
name does carry the address; a PC that never does so leaves a log line only.

A PC that shows a screen asks again every few seconds. Each *change* is told, once: repeats of the same finding in
the same boot are counted, not published.

What an unknown PC does is told as far as an allowance goes, as the dhcp service has it: a request for a script has no
more behind it than one datagram, and anybody can make up MAC addresses and boot ids.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Protocol

from bootlink_events import (
    BootFailed,
    BootHello,
    BootId,
    BootLoaderSent,
    BootPlan,
    BootScriptServed,
    BootStarted,
    ClientSeen,
    EventData,
)
from bootlink_runtime import Allowance, Health, Logger, Telemetry
from bootlink_tftp import screens
from bootlink_tftp.hello import Hello
from bootlink_tftp.names import ScriptName
from bootlink_tftp.scripts import Script
from bootlink_wire.tftp_transfer import Outcome

BOOTS_MAX: Final = 4_096  # boots remembered; each takes a few hundred bytes
# A PC that asks for its script anew has been restarted, but not within this time: no firmware starts so fast. It
# covers a request that was repeated from another port.
SAME_BOOT_SECONDS: Final = 3
WAITING_MAX: Final = 4  # findings of one boot that wait for its MAC address: a loader and a failure, twice

TOLD_MAX: Final = 16  # failures told of one boot: what asks for ever new names that are missing is no PC
TRANSIENT_SHOWN: Final = 4  # times a screen that should go by itself is shown, in 9 s, before the boot counts as failed

STRANGERS_BURST: Final = 3_000
"""Events of unknown PCs that are told at once: a thousand new PCs that boot together; each has three such."""
STRANGERS_PER_SECOND: Final = 60.0  # and then; as in the dhcp service

HELLOS_BURST: Final = 1_000
"""Hellos that are told at once: a large room that was switched on together. Each boot has one."""
HELLOS_PER_SECOND: Final = 20.0  # and then

StageName = Literal["loader", "script", "disk"]
Transport = Literal["tftp", "http"]

Told = BootStarted | ClientSeen | BootLoaderSent | BootScriptServed | BootHello | BootFailed


class Plans(Protocol):
    """What is needed of the plan book."""

    def get(self, mac: str, /) -> BootPlan | None: ...


@dataclass(slots=True)
class _Boot:
    """What was already told of one boot."""

    mac: str | None = None
    told: frozenset[tuple[str, str]] = frozenset()
    served: tuple[str, str | None] | None = None
    times: int = 0  # in a row
    greeted: bool = False
    waiting: tuple[Callable[[str], None], ...] = ()


class Chronicle:
    """Turns findings into events and spans. One per service."""

    def __init__(
        self,
        *,
        emit: Callable[[EventData], None],
        telemetry: Telemetry,
        health: Health,
        log: Logger,
        plans: Plans,
        mac_of: Callable[[str], str | None],
    ) -> None:
        self._publish = emit
        self._strangers = Allowance(STRANGERS_BURST, STRANGERS_PER_SECOND)
        self._hellos = Allowance(HELLOS_BURST, HELLOS_PER_SECOND)
        self._telemetry = telemetry
        self._health = health
        self._log = log
        self._plans = plans
        self._mac_of = mac_of
        self._boots: OrderedDict[BootId, _Boot] = OrderedDict()
        self._minted: OrderedDict[str, BootId] = OrderedDict()

    def begin(self, mac: str, peer: str, now: datetime) -> BootId:
        """The boot id of a PC that asks for its script without one: our DHCP was not asked, so the boot begins here."""
        former = self._minted.get(mac)
        now_ms = int(now.timestamp() * 1000)
        if former is not None and 0 <= now_ms - former.timestamp_ms < SAME_BOOT_SECONDS * 1000:
            return former
        boot_id = BootId.mint(now_ms=now_ms, after=former)
        self._minted[mac] = boot_id
        self._minted.move_to_end(mac)
        while len(self._minted) > BOOTS_MAX:
            self._minted.popitem(last=False)
        plan = self._plans.get(mac)
        client = plan.client if plan else None
        self._tell(
            BootStarted(mac=mac, client=client, boot_id=boot_id, started=now, ended=now, arch="", firmware="iPXE")
        )
        if plan is None:
            self._tell(ClientSeen(mac=mac, boot_id=boot_id))
        self._log.info("boot begins", mac=mac, client=client, boot_id=str(boot_id), peer=peer)
        return boot_id

    def loader_sent(
        self,
        boot_id: BootId,
        file: str,
        size: int,
        peer: str,
        started: datetime,
        ended: datetime,
        *,
        over: Transport = "tftp",
    ) -> None:
        """A loader has reached the PC."""

        def tell(mac: str) -> None:
            client = self._client(mac)
            self._tell(
                BootLoaderSent(
                    mac=mac,
                    client=client,
                    boot_id=boot_id,
                    started=started,
                    ended=ended,
                    file=file,
                    bytes=size,
                    peer=peer,
                )
            )

        attributes = _from(peer, over) | {"file.name": file.rsplit("/", 1)[-1], "file.path": file, "file.size": size}
        self._telemetry.boot_span(boot_id, "tftp.loader", started, ended, attributes)
        self._with_mac(boot_id, peer, tell)

    def failed(
        self,
        boot_id: BootId,
        stage: StageName,
        cause: str,
        remedy: str,
        *,
        peer: str,
        mac: str | None = None,
        started: datetime | None = None,
    ) -> None:
        """A boot cannot go on. Told once per boot, stage and cause."""
        boot = self._boot(boot_id)
        if (stage, cause) in boot.told or len(boot.told) >= TOLD_MAX:
            self._health.count("boot_failed_repeats")
            return
        boot.told |= {(stage, cause)}
        ended = datetime.now(UTC)
        began = started or ended
        self._log.warning("boot failed", boot_id=str(boot_id), stage=stage, cause=cause, remedy=remedy, peer=peer)
        attributes = {"network.peer.address": peer, "error.type": stage}
        self._telemetry.boot_span(boot_id, f"tftp.{stage}", began, ended, attributes, error=cause)

        def tell(mac: str) -> None:
            client = self._client(mac)
            self._tell(
                BootFailed(
                    mac=mac,
                    client=client,
                    boot_id=boot_id,
                    started=began,
                    ended=ended,
                    stage=stage,
                    cause=cause,
                    remedy=remedy,
                )
            )

        if mac is not None:
            tell(mac)
        else:
            self._with_mac(boot_id, peer, tell)

    def script_asked(self, name: ScriptName, boot_id: BootId, peer: str) -> None:
        """A PC asks for its script. So its MAC address is known, and, from the name, what failed before."""
        boot = self._boot(boot_id)
        boot.mac = name.mac
        waiting, boot.waiting = boot.waiting, ()
        for tell in waiting:
            tell(name.mac)
        if name.failure is not None and name.failure in screens.FAILURES:
            whole = self._plans.get(name.mac)
            plan = whole and (whole.chosen(name.entry) or whole)
            image = plan.disks[0].image if plan and plan.disks else ""
            start = plan.start if plan else None
            facts = {
                "client": plan.client if plan else name.mac,
                "kernel": start.kernel if start else "",
                "target": plan.target if plan else "",
                "portals": ", ".join(plan.portals) if plan else "",
                "image": image,
            }
            detail, remedy = screens.words(name.failure, facts)
            # "Its own message is above" is for whoever stands before the PC.
            cause = detail.removesuffix(" Its own message is above.").removesuffix(" iPXE's own message is above.")
            self.failed(boot_id, screens.FAILURES[name.failure], cause, remedy, peer=peer, mac=name.mac)

    def script_served(
        self,
        mac: str,
        boot_id: BootId,
        script: Script,
        peer: str,
        started: datetime,
        ended: datetime,
        *,
        over: Transport = "tftp",
    ) -> None:
        """A script has reached the PC."""
        boot = self._boot(boot_id)
        again = boot.served == (script.kind, script.cause)
        boot.served = (script.kind, script.cause)
        boot.times = boot.times + 1 if again else 1
        if again:
            self._health.count("scripts_served_again")
        else:
            self._tell(
                BootScriptServed(
                    mac=mac,
                    client=self._client(mac),
                    boot_id=boot_id,
                    started=started,
                    ended=ended,
                    kind=script.kind,
                    cause=script.cause,
                    menu=script.menu,
                    peer=peer,
                )
            )
            attributes = _from(peer, over) | {"bootlink.client.mac": mac, "bootlink.script": script.kind}
            if script.cause is not None:
                attributes["bootlink.screen"] = script.cause
            self._telemetry.boot_span(boot_id, "tftp.script", started, ended, attributes)
        if script.cause is not None and (not screens.SCREENS[script.cause].transient or boot.times >= TRANSIENT_SHOWN):
            self.failed(boot_id, "script", script.detail, script.remedy, peer=peer, mac=mac, started=started)

    def hello(self, hello: Hello, peer: str, now: datetime) -> str | None:
        """A guest says that it is up. Why that is not believed, fit for whoever reads the agent's words; else None."""
        plan = self._plans.get(hello.mac)
        if plan is None:
            return f"no client {hello.mac} is known here"
        boot = self._boots.get(hello.boot_id)
        if (boot is not None and boot.mac not in (None, hello.mac)) or self._mac_of(peer) not in (None, hello.mac):
            return f"{peer} is not the client {hello.mac}: say hello over the card that the PC booted from"
        if boot is not None and boot.greeted:
            self._health.count("hellos_again")
            return None
        if not self._hellos.spend(time.monotonic()):
            return "too many hellos just now: try again in a minute"
        self._boot(hello.boot_id).greeted = True
        began = hello.began(now)
        self._tell(
            BootHello(
                mac=hello.mac,
                client=plan.client,
                boot_id=hello.boot_id,
                started=began,
                ended=now,
                system=hello.system,
                peer=peer,
            )
        )
        attributes = _from(peer, "http") | {"bootlink.client.mac": hello.mac, "os.description": hello.system}
        self._telemetry.boot_span(hello.boot_id, "guest.hello", began, now, attributes)
        self._log.info("hello", client=plan.client, boot_id=str(hello.boot_id), system=hello.system, peer=peer)
        return None

    def not_delivered(
        self, boot_id: BootId, stage: StageName, file: str, outcome: Outcome, *, peer: str, elapsed: timedelta
    ) -> None:
        """A loader or script did not reach the PC."""
        self.failed(
            boot_id,
            stage,
            f"{file}: {outcome.detail}",
            "Look at the PC's screen and the cable. If it happens often, a switch or a firewall drops packets",
            peer=peer,
            mac=self._boot(boot_id).mac,
            started=datetime.now(UTC) - elapsed,
        )

    def _tell(self, event: Told) -> None:
        if self._plans.get(event.mac) is None and not self._strangers.spend(time.monotonic()):
            self._health.count("events_withheld")
            self._log.warning(
                "too many unknown PCs: not all are told and enrolled",
                mac=event.mac,
                remedy="look for made-up MAC addresses on this network; add your PCs by hand: bootlink client add MAC",
            )
            return
        self._publish(event)

    def _client(self, mac: str) -> str | None:
        plan = self._plans.get(mac)
        return plan.client if plan else None

    def _boot(self, boot_id: BootId) -> _Boot:
        boot = self._boots.setdefault(boot_id, _Boot())
        self._boots.move_to_end(boot_id)
        while len(self._boots) > BOOTS_MAX:
            self._boots.popitem(last=False)
        return boot

    def _with_mac(self, boot_id: BootId, peer: str, tell: Callable[[str], None]) -> None:
        boot = self._boot(boot_id)
        boot.mac = boot.mac or self._mac_of(peer)
        if boot.mac is not None:
            tell(boot.mac)
        elif len(boot.waiting) < WAITING_MAX:
            boot.waiting += (tell,)


def _from(peer: str, over: Transport) -> dict[str, str | int]:
    """What the span of anything that was asked for says of that."""
    transport = "udp" if over == "tftp" else "tcp"
    return {"network.protocol.name": over, "network.transport": transport, "network.peer.address": peer}
