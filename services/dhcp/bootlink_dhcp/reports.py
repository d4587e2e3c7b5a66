"""What the dhcp service says of itself in `bootlink status`: what is wrong, and what to do.

Each report is what a health check wants: whether all is well, and a line about it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from bootlink_dhcp.asked_loaders import Unfulfilled
from bootlink_dhcp.bootfiles import NO_HTTP
from bootlink_dhcp.leases import KEPT_SHARE, LeaseTable
from bootlink_dhcp.probing import Answering

TOLD: Final = 3  # reservations, and loaders that rules ask for, that are named; the log names them all
HTTP_TOLD_SECONDS: Final = 86_400.0  # a PC that is set to HTTP boot is told of until it has been off for a night
REPLACE: Final = "put the right file there, or take it away"
_WIDEN: Final = "widen the pool (BOOTLINK_DHCP_POOL) or shorten the lease (BOOTLINK_DHCP_LEASE_SECONDS)"
_RESERVE: Final = "reserve another one, or none: bootlink client set NAME --address ADDRESS, or --no-address"


def lease_report(leases: Iterable[LeaseTable], now: float, reserved: Collection[IPv4Address] = ()) -> tuple[bool, str]:
    """Whether PCs that come anew are given addresses. `now`: in seconds of the clock that leases are kept in.
    `reserved`: the addresses that are one client's alone, and no room for others though nobody has them."""
    lines, room = [], True
    for table in leases:
        pool, counts = table.subnet.pool, table.counts(now)
        line = f"{pool}: " + ", ".join(f"{n} {state}" for state, n in counts.items())
        left, kept = counts["free"] + counts["idle"], len(pool) // KEPT_SHARE
        if left - len(reserved) <= kept:  # else it is not worth a look at each of them
            waiting = sum(1 for address in reserved if address in pool and table.lapsed(address, now))
            left -= waiting
            line += f", {waiting} of them reserved" if waiting else ""
        if not left:
            line = f"no address of {line}: {_WIDEN}"
        elif left <= kept:
            line = f"what is left is kept for PCs that are known already, {line}: {_WIDEN}"
        room = room and left > kept
        lines.append(line)
    return room, "; ".join(lines)


def loader_report(
    problems: Sequence[str], asked: Sequence[Unfulfilled], loaders: Iterable[str], folders: Iterable[Path]
) -> tuple[bool, str]:
    """Whether there are loaders, none that was refused, and all that rules ask for. `asked`: what is wrong there."""
    names = ", ".join(loaders)
    if not names and not problems:
        where = " or ".join(str(folder) for folder in folders)
        return False, f"there is none: install Debian's package ipxe, or put undionly.kpxe and snponly.efi into {where}"
    wrong = [f"{'; '.join(problems)}: {REPLACE}"] if problems else []
    for remedy in dict.fromkeys(one.remedy for one in asked):
        texts = [one.text for one in asked if one.remedy == remedy]
        wrong.append(f"{_some(texts)}; its PCs are sent the next that fits: {remedy}")
    return (False, "; ".join(wrong)) if wrong else (True, names)


def reservation_report(wrong: Mapping[str, str]) -> tuple[bool, str]:
    """Whether every reservation is honoured. `wrong`: client to what is wrong with the address reserved for it."""
    if not wrong:
        return True, "all are honoured"
    return False, f"{_some([f'{client}: {problem}' for client, problem in wrong.items()])}: {_RESERVE}"


def http_report(port: int, in_vain: tuple[str, float] | None, now: float) -> tuple[bool, str]:
    """Whether every PC that wants to boot over HTTP can. `in_vain`: who last could not, and when."""
    if in_vain is None or now - in_vain[1] > HTTP_TOLD_SECONDS:
        return True, f"on port {port}" if port else "off, and no PC has asked for it"
    return False, f"{in_vain[0]} is set to HTTP boot, and that is off: {NO_HTTP}"


def taken_report(hosts: Sequence[Answering]) -> tuple[bool, str]:
    """Whether nobody answers for addresses of the pools that were given to nobody. `hosts`: who does."""
    if not hosts:
        return True, "nobody has an address of the pools whom we gave none"
    wrong = []
    greedy = [host for host in hosts if host.everything]
    if greedy:
        told = _some([f"{host.mac} answers ARP for whatever is asked" for host in greedy])
        wrong.append(f"{told}, so new PCs get no address: {taken_remedy(everything=True)}")
    few = [host for host in hosts if not host.everything]
    if few:
        wrong.append(f"{_some([_taken(host) for host in few])}: {taken_remedy(everything=False)}")
    return False, "; ".join(wrong)


def taken_remedy(*, everything: bool) -> str:
    """What to do about a host that answers for addresses of a pool."""
    if everything:
        return "switch off proxy ARP there, or do not ask: BOOTLINK_DHCP_PROBE_ADDRESSES=false"
    return "have it ask by DHCP, or choose a pool without its address (BOOTLINK_DHCP_POOL)"


def _taken(host: Answering) -> str:
    more = f" and {host.addresses - 1} more" if host.addresses > 1 else ""
    return f"{host.address}{more} is in use by {host.mac or 'somebody'} whom we gave none"


def _some(problems: Sequence[str]) -> str:
    more = [f"and {len(problems) - TOLD} more"] if len(problems) > TOLD else []
    return "; ".join([*problems[:TOLD], *more])
