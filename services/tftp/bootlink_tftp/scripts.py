"""A client's iPXE script, from its boot plan. Pure: the plan and a few facts in, the script out.

The script of a client that can boot:

1. sets the initiator name, which carries the boot id into the login, the iBFT and the operating system; and the
   boot's CHAP secrets, where the plan asks for them (they go the same way);
2. tries the portals in the plan's order: where a portal is on the client's own link, the gateway is set to the
   portal's address first (FIELD section 2: with a gateway in the iBFT, Windows routes the disk's traffic through it
   even on the same link), else it is left as DHCP gave it;
3. attaches the disk (`sanhook`) and boots it (`sanboot`) as two steps, because "the disk did not answer" and "the
   disk does not start" have different remedies;
4. where the plan has a menu, shows it first; what is chosen becomes the third part of the target's name (see
   `bootlink_events.names`). In the menu Escape shows it again, with its time anew; an iPXE that was built without menus
   takes the default;
5. on failure shows a screen that says which, and asks for the script again under a name that tells the server too.

What starts without a disk, by itself or as an entry of the menu, has lines of its own (see `starting`). Every other
client gets a screen (see `screens`). All commands and options are in Debian's iPXE of 2019.

keep-san is set only where the link asks for it, for installing a system onto the disk from another medium: then a disk
that does not boot stays attached, and the firmware goes on to its next device. Everywhere else a failed boot asks for
the script again, and must find the drive number free.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

from bootlink_events import (
    BootId,
    BootPlan,
    ClusterKey,
    DiskPlan,
    Menu,
    Start,
    from_disk,
    initiator_iqn,
    mac_token,
)
from bootlink_tftp import screens, starting
from bootlink_tftp.ipxe import Efi, Expanded, Text, Token, UnsafeValue, fill

_PORTAL: Final = re.compile(r"([A-Za-z0-9.-]{1,253}):([0-9]{1,5})")
PORTALS_MAX: Final = 4  # tried in turn; iPXE takes up to a minute to give one up

# Settings outlive a script, and the plan may have changed since the last one: iPXE offers CHAP where it has a user
# name, and insists on the target's proof where it has a reverse one.
_CHAP: Final = {
    "off": ("clear username ||",),
    "one-way": ("set username {user}", "set password {secret}", "clear reverse-username ||"),
    "mutual": (
        "set username {user}",
        "set password {secret}",
        "set reverse-username {target_user}",
        "set reverse-password {target_secret}",
    ),
}
# So does this one: a disk to install on that was chosen at the menu, and did not answer, would leave it to the next.
_CLEAN: Final = ("clear keep-san ||",)
_ATTACH: Final = (
    "sanhook {uri} && goto attached ||",
    "clear netX/gateway ||",
)
# The settings that hold what was chosen at the menu.
_ENTRY: Final = "menu-entry"
_TARGET: Final = "menu-target"
_IMAGE: Final = "menu-image"
_MENU: Final = (
    ":menu",
    "menu Bootlink: {client} || goto entry_{default}",
)
_ITEM: Final = ("item {name} {title}",)
_CHOOSE: Final = ("choose {timeout} --default {default} menu-entry || goto menu", "goto entry_${menu-entry}")
_CHOSEN: Final = (
    ":entry_{name}",
    "set menu-entry {name}",
    "set menu-target {target}",
    "set menu-image {image}",
)
_CHOSEN_FILE: Final = ("set menu-file {file}",)
_CHOSEN_NO_FILE: Final = ("clear menu-file ||",)
_CHOSEN_KEEP: Final = ("set keep-san 1",)
_CHOSEN_START: Final = (":entry_{name}", "set menu-entry {name}")
_BOOTS: Final = ("echo Bootlink: {client} boots {image} version {version}, policy {policy}",)
_ATTACHED: Final = (":attached",)
_SANBOOT: Final = ("sanboot ||",)
_SANBOOT_FILE: Final = ("sanboot --filename {file} ||",)
# The disk stays attached for what the firmware boots next: the installer of a system.
_KEEP: Final = ("set keep-san 1",)
_LEAVE: Final = (
    "echo Bootlink: nothing starts from this disk. It stays attached, and the firmware boots its next device.",
    starting.LEAVE,
)
_SANBOOT_CHOSEN: Final = (
    "isset ${menu-file} && sanboot --filename ${menu-file} ||",
    "isset ${menu-file} || sanboot ||",
    "iseq ${keep-san} 1 && exit 1 ||",
)
_DETACH: Final = (
    # A drive that `sanhook` attached outlives a failed boot, and the next attempt would find its number taken
    # ("Error 0x03232019", seen with Debian's build).
    "sanunhook ||",
)


@dataclass(frozen=True, slots=True)
class Script:
    """A script to serve. It may hold secrets, so its text is in no `repr`.

    `cause` (with what is wrong and what to do) is None where the client boots its disk.
    """

    text: str = field(repr=False)
    kind: Literal["sanboot", "local", "shell", "kernel", "screen"]
    cause: str | None = None
    detail: str = ""
    remedy: str = ""
    menu: bool = False  # it asks first which image to boot


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for a script, and where the PC reaches this server: `base` is a URL without its last slash."""

    mac: str
    boot_id: BootId
    base: str

    def url(self, failure: str | None = None, *, chosen: bool = False) -> Token:
        """The URL of this client's script in this boot; with what was chosen at the menu, where something was."""
        name = f"{self.base}/boot/{self.boot_id}/{mac_token(self.mac)}" + (f".{failure}" if failure else "")
        return Expanded(f"{name}.", _ENTRY, ".ipxe") if chosen else Token(f"{name}.ipxe")


def render(
    asker: Asker,
    plan: BootPlan | None,
    *,
    on_link: frozenset[str],
    plans_read: bool = True,
    key: ClusterKey | None = None,
) -> Script:
    """The script for this client. `on_link`: the hosts among the plan's portals that are on the client's link;
    `plans_read`: False while the plans that we hold may be incomplete; `key`: where CHAP secrets come from."""
    if plan is None:
        return _screen(asker, None, "unknown_client" if plans_read else "plans_unread")
    if plan.refusal is not None:
        return _screen(asker, plan, plan.refusal.cause, plan.refusal.detail, plan.refusal.remedy)
    if from_disk(plan.start):
        if not plan.disks:
            return _screen(asker, plan, "no_link")
        if not plan.portals:
            return _screen(asker, plan, "no_blockstore")
    if plan.chap != "off" and key is None:
        return _screen(asker, plan, "no_key")
    try:
        if plan.start is not None and not from_disk(plan.start) and plan.menu is None:
            text, mode = _text(_without_disk(asker, plan, plan.start, "start")), plan.start.mode
            return Script(text, "sanboot" if mode == "disk" or mode == "none" else mode)  # neither comes to here
        return _sanboot(asker, plan, on_link, key)
    except UnsafeValue as error:
        return _screen(asker, plan, "bad_plan", str(error))


_AUTOEXEC: Final = (
    ":again",
    # Newer iPXE runs autoexec.ipxe with the address that its firmware got, and would never ask DHCP itself. Where the
    # dhcp service does not hear it, it takes its loader for one that never came up, and tries another.
    "dhcp netX || dhcp ||",
    "chain --autofree --replace {folder}/${netX/mac:hexhyp}.ipxe ||",
    "prompt --timeout 10000 Bootlink: no script from {folder}. Trying again in 10 s. || goto again",
    "goto again",
)


def autoexec(base: str, boot_id: BootId | None) -> str:
    """The script for a PC that has not said who it is: it asks for its own, by the MAC address it boots from."""
    folder = f"{base}/boot/{boot_id}" if boot_id is not None else base
    return _text(fill(_AUTOEXEC, folder=Token(folder)))


def portal_hosts(plan: BootPlan | None) -> list[str]:
    """The hosts of the plan's portals that can stand in a script."""
    return [match[1] for portal in (plan.portals if plan else ()) if (match := _PORTAL.fullmatch(portal))]


def _without_disk(asker: Asker, plan: BootPlan, start: Start, label: str) -> list[str]:
    """The lines of a start that attaches no disk, with their screens. `label` must be the script's only one."""
    chosen = plan.menu is not None
    facts = _facts(asker, plan) | {"kernel": start.kernel}
    found = starting.lines(
        start,
        plan,
        url=asker.url(chosen=chosen),
        url_of=lambda file: starting.file_url(asker.base, asker.boot_id, file),
        fields={
            "mac": asker.mac,
            "client": plan.client,
            "boot_id": str(asker.boot_id),
            "server": asker.base,
        },
        label=label,
    )
    for failure in starting.failures(start):
        found.append(f":{Token(label)}_{failure}")
        detail, remedy = screens.words(failure, facts)
        url, again = asker.url(failure, chosen=chosen), f"{label}_{failure}_again"
        found += screens.lines(failure, detail=detail, remedy=remedy, url=url, facts=facts, label=again)
    return found


def _sanboot(asker: Asker, plan: BootPlan, on_link: frozenset[str], key: ClusterKey | None) -> Script:
    offered = [disk for entry in plan.menu.entries for disk in entry.disks] if plan.menu is not None else []
    # The others are found behind the lowest one by the operating system.
    disk = min(plan.disks or offered, key=lambda disk: disk.lun, default=None)
    lines = fill(("set initiator-iqn {initiator}",), initiator=Token(initiator_iqn(asker.mac, asker.boot_id)))
    secrets = {} if key is None else asdict(key.credentials(asker.mac, asker.boot_id))
    lines += _CLEAN
    lines += fill(_CHAP[plan.chap], **{name: Token(value) for name, value in secrets.items()})
    if plan.menu is not None:
        lines += _menu(asker, plan, plan.menu)
    elif disk is not None:
        lines += _boots(plan, disk)
    if disk is not None:
        lines += _attach(asker, plan, disk, on_link)
    return Script(_text(lines), "sanboot", menu=plan.menu is not None)


def _attach(asker: Asker, plan: BootPlan, disk: DiskPlan, on_link: frozenset[str]) -> list[str]:
    """Attach the disk (with a menu: the one that was chosen) and boot it, with the screens of both."""
    usable = [match for portal in plan.portals[:PORTALS_MAX] if (match := _PORTAL.fullmatch(portal))]
    if not usable:
        raise UnsafeValue(f"no portal of {', '.join(plan.portals)} is an IPv4 address or name with a port")
    lines = []
    for match in usable:
        host, port = Token(match[1]), Token(match[2])
        if host in on_link:
            lines += fill(("set netX/gateway {host}",), host=host)
        # RFC 4173 section 5: iscsi:<server>:<protocol>:<port>:<LUN>:<target>; the LUN is hexadecimal.
        where = f"iscsi:{host}::{port}:{disk.lun:x}:"
        lines += fill(_ATTACH, uri=Token(where + Token(plan.target)) if plan.menu is None else Expanded(where, _TARGET))
    facts = _facts(asker, plan) | {
        "image": disk.image if plan.menu is None else _told(_IMAGE),
        "target": plan.target if plan.menu is None else _told(_TARGET),
        "portals": ", ".join(match[0] for match in usable),
    }
    for failure, then in (("attach", _start(plan)), ("start", [])):
        detail, remedy = screens.words(failure, facts)
        url = asker.url(failure, chosen=plan.menu is not None)
        screen = screens.lines(failure, detail=detail, remedy=remedy, url=url, facts=facts, label=f"{failure}_again")
        for setting in (_IMAGE, _TARGET):
            screen = [row.replace(_told(setting), f"${{{setting}}}") for row in screen]
        lines += screen
        lines += then
    return lines


def _start(plan: BootPlan) -> list[str]:
    """Boot the disk that is attached."""
    if plan.menu is not None:
        return [*_ATTACHED, *_SANBOOT_CHOSEN, *_DETACH]
    start = plan.start or Start()
    sanboot = fill(_SANBOOT_FILE, file=Efi(start.file)) if start.file else [*_SANBOOT]
    return [*_ATTACHED, *(_KEEP if start.keep_san else ()), *sanboot, *(_LEAVE if start.keep_san else _DETACH)]


def _boots(plan: BootPlan, disk: DiskPlan) -> list[str]:
    return fill(
        _BOOTS,
        client=Text(plan.client),
        image=Text(disk.image),
        version=Text(disk.version),
        policy=Text(disk.policy),
    )


def _menu(asker: Asker, plan: BootPlan, menu: Menu) -> list[str]:
    """The menu, and what each of its entries means. One that is on a disk says which, and goes to `chosen`; the others
    are all there is to do."""
    default = Token(menu.default)
    lines = fill(_MENU, client=Text(plan.client), default=default)
    for entry in menu.entries:
        lines += fill(_ITEM, name=Token(entry.name), title=Text(Text(entry.title).lstrip("- ")))
    timeout = f"--timeout {menu.seconds * 1000}" if menu.seconds else ""
    lines += fill(_CHOOSE, timeout=Text(timeout), default=default)
    for entry in menu.entries:
        name, start = Token(entry.name), entry.start or Start()
        if not from_disk(start):
            lines += fill(_CHOSEN_START, name=name)
            lines += _without_disk(asker, plan, start, f"begin_{name}")  # `start_again` is a screen's
            continue
        disk = min(entry.disks, key=lambda disk: disk.lun)
        target = Token(f"{Token(plan.target)}:{entry.name}")
        lines += fill(_CHOSEN, name=name, target=target, image=Token(disk.image))
        lines += fill(_CHOSEN_FILE, file=Efi(start.file)) if start.file else [*_CHOSEN_NO_FILE]
        lines += [*_boots(plan, disk), *(_CHOSEN_KEEP if start.keep_san else ()), "goto chosen"]
    return [*lines, ":chosen"]


def _told(setting: str) -> str:
    """What stands for a setting in words for people, until they are wrapped into rows."""
    return f"@{setting}@"


def _screen(asker: Asker, plan: BootPlan | None, cause: str, detail: str = "", remedy: str = "") -> Script:
    facts = _facts(asker, plan)
    usual = screens.words(cause, facts)
    detail, remedy = detail or usual[0], remedy or usual[1]
    lines = screens.lines(cause, detail=detail, remedy=remedy, url=asker.url(), facts=facts, label="again")
    return Script(_text(lines), "screen", cause, detail, remedy)


def _facts(asker: Asker, plan: BootPlan | None) -> dict[str, str]:
    return {
        "mac": asker.mac,
        "client": plan.client if plan else "",
        "boot_id": str(asker.boot_id),
        "server": asker.base,
    }


def _text(lines: list[str]) -> str:
    return "\n".join(["#!ipxe", *lines, ""])
