"""Wake-on-LAN: dhcp sends the magic packet, as it sits on the PCs' own network. Every dhcp service is asked: which of
them is on a client's network is nobody's to know while the client is off."""

from __future__ import annotations

from dataclasses import dataclass

from bootlink_events.commands import WakeClient
from bootlink_registry.problems import Problem
from bootlink_runtime import Bus, BusUnavailable, CommandError, rpc


@dataclass(frozen=True, slots=True)
class Sent:
    """The packet left this node over these cards."""

    node: str
    interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotSent:
    """This node could not send it."""

    node: str
    detail: str
    remedy: str


async def wake(bus: Bus, mac: str) -> tuple[list[Sent], list[NotSent]]:
    """Have a client woken. Raises Problem if no packet left at all."""
    try:
        answers = await rpc.call_all(bus, "dhcp", WakeClient(mac=mac))
    except BusUnavailable as error:
        raise Problem(
            503, f"NATS is away, so that no dhcp service can be asked: {error}", "repeat it when NATS is back"
        ) from error
    sent = [Sent(n, a.interfaces) for n, a in sorted(answers.items()) if not isinstance(a, CommandError)]
    failed = [NotSent(n, a.detail, a.remedy) for n, a in sorted(answers.items()) if isinstance(a, CommandError)]
    if sent:
        return sent, failed
    if failed:
        raise Problem(503, "; ".join(f"{one.node}: {one.detail}" for one in failed), failed[0].remedy)
    raise Problem(
        503,
        "no dhcp service runs, and it is dhcp that sends the magic packet",
        "start it on a machine in the PCs' network: bootlink up --interface IF; `bootlink status` shows what runs",
    )
