"""Who may log in at all: names and secrets (DESIGN, sections 3 and 6). Which disk a login gets is `attach`'s.

    a plan that says      lets in
    chap: off             every name that does not name another client; with `require_boot_id` only names of this
                          client that carry a boot id
    chap: one-way         names that carry this client and a boot id, whose initiator proves the secret of that boot
    chap: mutual          the same; and proves itself to an initiator that asks

A discovery session is asked for what its own client's disk is asked for; a name that is no client's sees no target.
A boot goes on under the rule that it began under where its plan has gone since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bootlink_blockstore.chap import Chap as ChapExchange
from bootlink_blockstore.login import Admission
from bootlink_events import BootPlan, Chap, ClusterKey, parse_initiator, parse_target
from bootlink_wire.iscsi_codes import LoginStatus


class Plans(Protocol):
    def get(self, mac: str) -> BootPlan | None: ...


class NotAdmitted(Exception):
    """The login is refused. `cause` and `remedy` are for the administrator."""

    def __init__(self, status: LoginStatus, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}: {remedy}")
        self.status = status
        self.cause = cause
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Access:
    """The rules. `key` is where secrets come from, `require_boot_id` the setting of this name."""

    key: ClusterKey | None = None
    require_boot_id: bool = False

    def exchange(self, admission: Admission, chap: Chap) -> ChapExchange | None:
        """What this initiator must prove before it may enter; None if nothing. NotAdmitted if it can prove nothing."""
        if chap == "off":
            return None
        mac, boot_id = parse_initiator(admission.initiator)
        if mac is None or boot_id is None or (not admission.discovery and mac != parse_target(admission.target)):
            raise NotAdmitted(
                LoginStatus.AUTHENTICATION_FAILURE,
                f"{admission.initiator} carries no boot id of this client, whose link asks for CHAP",
                "restart the PC; a secret is derived per boot, so a name without one has none",
            )
        if self.key is None:
            raise NotAdmitted(
                LoginStatus.TARGET_ERROR,
                f"the link of client {mac} asks for CHAP, and this block store has no cluster key",
                "give tftp and blockstore the same BOOTLINK_CLUSTER_KEY",
            )
        return ChapExchange(self.key.credentials(mac, boot_id), mutual=chap == "mutual")

    def check_name(self, admission: Admission, mac: str) -> None:
        """NotAdmitted if a name like this may not open the disk of `mac`."""
        named, boot_id = parse_initiator(admission.initiator)
        if named not in (None, mac):
            raise NotAdmitted(
                LoginStatus.AUTHORIZATION_FAILURE,
                f"the initiator is client {named}, and asks for the disk of {mac}",
                "let each client log in to its own target",
            )
        if self.require_boot_id and (named is None or boot_id is None):
            raise NotAdmitted(
                LoginStatus.AUTHORIZATION_FAILURE,
                f"{admission.initiator} carries no boot id of client {mac}",
                "boot the PC by its script, or set BOOTLINK_BLOCKSTORE_REQUIRE_BOOT_ID=false",
            )
