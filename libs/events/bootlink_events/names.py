"""The names a client goes by on the wire: MAC address, token, target and initiator IQN (RFC 3720, section 3.2.6.3.1).

A client is known by its MAC address. Where a colon is not allowed or not wanted (key-value keys, NATS subjects,
IQNs, file names) its *token* stands: the same bytes with dashes. The boot id rides in the initiator name, so that
a login needs no lookup to know which client and which boot it belongs to. In the same way the target name carries
what was chosen at a boot menu, so that firmware and operating system log in to the same disk.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from bootlink_events.bootid import BootId

NAMING_AUTHORITY: Final = "iqn.2026-11.io.bootlink"
ISCSI_NAME_LIMIT: Final = 223  # octets, RFC 3720, section 3.2.6.1

_MAC_FORMS = re.compile(
    r"[0-9a-f]{12}|[0-9a-f]{2}([:.-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}|([0-9a-f]{4}[:.-]){2}[0-9a-f]{4}|[0-9a-f]{6}[:-][0-9a-f]{6}"
)  # bare; in pairs; in fours, as Cisco writes it; in halves, as HP does
_NORMAL = re.compile(r"(?!00:00:00:00:00:00)[0-9a-f][02468ace](:[0-9a-f]{2}){5}")  # a PC's address as we write it
_TOKEN = re.compile(r"[0-9a-f]{2}(-[0-9a-f]{2}){5}")
_ENTRY = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")  # a name as administrators give them
_GROUP_BITS = 0x01  # the I/G bit of the first octet, IEEE 802


def normalise_mac(text: str) -> str:
    """The MAC address in `text` as "52:54:00:12:34:56". Takes colons, dashes, Cisco dots or none.

    Raises ValueError for anything else, and for group and null addresses, which no client can have.
    """
    if _NORMAL.fullmatch(text):
        return text  # as in every plan, and there are thousands
    form = text.strip().lower()
    if not _MAC_FORMS.fullmatch(form):  # a digit too few here and one too many there is another PC's address
        raise ValueError(f"{text!r} is no MAC address; write it like 52:54:00:12:34:56")
    digits = re.sub(r"[:.-]", "", form)
    if int(digits[:2], 16) & _GROUP_BITS or int(digits, 16) == 0:
        raise ValueError(f"{text!r} is a multicast, broadcast or null address; no PC has it")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


Mac = Annotated[str, AfterValidator(normalise_mac)]
"""A MAC address, normalised to lower case with colons."""


def mac_token(mac: str) -> str:
    """The MAC address with dashes, as it stands in keys, subjects, IQNs and file names."""
    return mac.replace(":", "-")


def target_iqn(mac: str, entry: str = "") -> str:
    """The iSCSI target that is this client's disk; with `entry`, as that entry of its boot menu has it."""
    return f"{NAMING_AUTHORITY}:{mac_token(mac)}" + (f":{entry}" if entry else "")


def initiator_iqn(mac: str, boot_id: BootId) -> str:
    """The initiator name a client logs in with during one boot."""
    return f"{NAMING_AUTHORITY}:{mac_token(mac)}:{boot_id}"


def parse_initiator(iqn: str) -> tuple[str | None, BootId | None]:
    """The MAC address and the boot id in an initiator name; None for each that is not there. Never raises."""
    if len(iqn) > ISCSI_NAME_LIMIT:
        return None, None
    authority, _, rest = iqn.lower().partition(":")
    if authority != NAMING_AUTHORITY:
        return None, None
    token, _, boot = rest.partition(":")
    if not _TOKEN.fullmatch(token):
        return None, None
    try:
        return normalise_mac(token), BootId.parse(boot) if boot else None
    except ValueError:
        return None, None


def parse_target(iqn: str) -> str | None:
    """The MAC address of the client whose disk this target is; None if it is no target of ours. Never raises."""
    return _parse_target(iqn)[0]


def target_entry(iqn: str) -> str:
    """The entry of the boot menu that this target names; "" if it names none. Never raises."""
    return _parse_target(iqn)[1]


def _parse_target(iqn: str) -> tuple[str | None, str]:
    if len(iqn) > ISCSI_NAME_LIMIT:
        return None, ""
    authority, _, rest = iqn.lower().partition(":")
    token, colon, entry = rest.partition(":")
    if authority != NAMING_AUTHORITY or not _TOKEN.fullmatch(token) or bool(_ENTRY.fullmatch(entry)) != bool(colon):
        return None, ""
    try:
        return normalise_mac(token), entry
    except ValueError:
        return None, ""
