"""The screens: what a PC shows that cannot boot. Data, and how it becomes a script. Pure.

A screen is an iPXE script of its own, not an error: it names the cause, who the PC is and what to do, fits an
80x25 console, waits, and asks for the client's script again, so that the PC boots as soon as the cause is gone. It
never gives up: nobody should have to walk to a PC to switch it off and on.

`chain --replace` ends the script that runs before the next one starts, so the loop needs no more memory after a
week than at its start. When the server does not answer, `chain` fails and the wait begins again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from bootlink_tftp.ipxe import COLUMNS, Text, Token, fill, say

RETRY_SECONDS: Final = 10  # people fix these causes; a room of 500 PCs then asks 50 times a second
SOON_SECONDS: Final = 3  # a plan for a new PC is a second away: do not let its first boot wait
DETAIL_ROWS: Final = 4  # so that the screen stays below 25 rows with everything else on it


@dataclass(frozen=True, slots=True)
class Screen:
    """One cause. `detail` and `remedy` are used where whoever found the cause does not say it better."""

    title: str
    detail: str
    remedy: str
    wait: int = RETRY_SECONDS

    @property
    def transient(self) -> bool:
        """It goes by itself as a rule: no failed boot until it was shown a few times."""
        return self.wait < RETRY_SECONDS


SCREENS: Final[Mapping[str, Screen]] = {
    "unknown_client": Screen(
        "this PC is not known yet",
        "The registry has no client with this MAC address.",
        "It is enrolled by itself in a moment, if the registry runs and its policy allows it. "
        "Else: bootlink client add {mac}",
        SOON_SECONDS,
    ),
    "plans_unread": Screen(
        "the boot server has just started",
        "It has not yet read what its clients boot.",
        "Wait. If this stays, see on the server: bootlink status",
        SOON_SECONDS,
    ),
    "no_link": Screen(
        "no image is linked to this PC",
        "No link of this client, its group or the default names an image.",
        "bootlink link set {client} IMAGE",
    ),
    "image_missing": Screen(
        "the image of this PC is missing",
        "The link names an image that cannot be served.",
        "bootlink link show {client}, then bootlink image list",
    ),
    "no_blockstore": Screen(
        "no block store is ready",
        "The image is linked, but no server offers its disk now.",
        "See on the server: bootlink status",
    ),
    "disk_full": Screen(
        "the disk for what PCs write is nearly full",
        "A system that runs out of it fails in the middle of its work, so no further PC is started.",
        "Free space where the block store keeps its data. See on the server: bootlink status",
    ),
    "home_away": Screen(
        "the server that keeps this PC's disk is away",
        "What this PC has written and keeps lies on one block store, which is silent.",
        "Start it. See on the server: bootlink status",
    ),
    "shared_spindle": Screen(
        "image and write-backs share one rotating disk",
        "The administrator refuses boots where reads and writes would fight over one disk.",
        "Move one of them to another disk. See on the server: bootlink status",
    ),
    "disabled": Screen(
        "this PC is disabled",
        "An administrator has disabled this client.",
        "bootlink client show {client}",
    ),
    "bad_plan": Screen(
        "the boot plan of this PC cannot be used",
        "A name or an address in it cannot stand in an iPXE script.",
        "See the log of the tftp service, then: bootlink client show {client}",
    ),
    "no_key": Screen(
        "this PC's disk needs a secret that cannot be made",
        "Its link asks for CHAP, and the tftp service was given no cluster key.",
        "Give tftp and blockstore the same BOOTLINK_CLUSTER_KEY",
    ),
    # The two below are part of a sanboot script: iPXE's own message, with its ipxe.org link, stands above them.
    "attach": Screen(
        "the disk of this PC did not answer",
        "iPXE could not log in to {target} at {portals}. Its own message is above.",
        "See on the server: bootlink status. Is that TCP port open, and reachable from this network?",
    ),
    "start": Screen(
        "the disk of this PC does not start",
        "The disk {image} was attached, but its boot loader gave up or there is none.",
        "Is it an image for this firmware (BIOS or UEFI)? Then: bootlink image show {image}",
    ),
    # And these of one that boots a kernel.
    "fetch": Screen(
        "a boot file of this PC is missing",
        "The kernel {kernel} or one of its initrds could not be fetched. iPXE's own message is above.",
        "Put it into the boot server's loader folder, or set the link anew: bootlink client show {client}",
    ),
    "launch": Screen(
        "the kernel of this PC does not start",
        "iPXE has fetched {kernel}, but cannot start it. Its own message is above.",
        "Is it a Linux kernel for this firmware (BIOS or UEFI) and its processor?",
    ),
}

# What a script failed at, as its retry tells it in the script's name (see `names`): the stage of the boot.
FAILURES: Final[Mapping[str, Literal["loader", "disk"]]] = {
    "attach": "disk",
    "start": "disk",
    "fetch": "loader",
    "launch": "loader",
}

_RULE: Final = "echo " + "=" * (COLUMNS - 1)  # not of dashes: iPXE's echo would take them for an option

_AGAIN: Final = (
    ":{label}",
    "prompt --timeout {milliseconds} Trying again in {seconds} s. Press a key to try now. || goto {label}_now",
    ":{label}_now",
    # The gateway that a sanboot script set would hide this server where it is not on-link; elsewhere this does nothing.
    "clear netX/gateway ||",
    "chain --autofree --replace {url} || goto {label}",
)


def words(cause: str, facts: Mapping[str, str]) -> tuple[str, str]:
    """What is wrong, and what to do, in the words of `SCREENS`. `facts` holds whatever they name."""
    screen = SCREENS[cause]
    values = {name: Text(value) for name, value in facts.items()}
    return fill((screen.detail,), **values)[0], fill((screen.remedy,), **values)[0]


def lines(cause: str, *, detail: str, remedy: str, url: Token, facts: Mapping[str, str], label: str) -> list[str]:
    """The script lines of a screen, ending in its retry of `url`. Of `facts` it shows mac, client, boot_id and
    server. `label` is the label of its wait, and must be the script's only one of this name."""
    screen = SCREENS[cause]
    shown = (("MAC address", "mac"), ("Client", "client"), ("Boot id", "boot_id"), ("Boot server", "server"))
    return [
        "echo",
        _RULE,
        *say("Bootlink", screen.title, rows=1),
        "echo",
        *say("Cause", detail, rows=DETAIL_ROWS),
        *say("What to do", remedy, rows=DETAIL_ROWS),
        "echo",
        *(row for name, fact in shown for row in say(name, facts[fact] or "none yet", rows=1)),
        _RULE,
        *fill(
            _AGAIN,
            label=Token(label),
            milliseconds=Token(screen.wait * 1000),
            seconds=Token(screen.wait),
            url=url,
        ),
    ]
