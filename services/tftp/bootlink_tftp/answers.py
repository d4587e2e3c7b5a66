"""What a PC gets for a name: a loader, its script, or a reason why not.

This is the one place where names, folders, plans and the chronicle meet. It knows nothing of TFTP, so another
protocol (HTTP) can ask it for the same files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from bootlink_events import BootId, ClusterKey
from bootlink_runtime import Logger
from bootlink_tftp import names, scripts
from bootlink_tftp.chronicle import Chronicle, Plans
from bootlink_tftp.folders import FileMissing, FileRefused, Folders, OpenFile
from bootlink_tftp.lan import OnLink
from bootlink_tftp.scripts import Asker, Script

_READABLE: Final = "See that it is a plain file which the tftp service may read, no link, in a folder that it may read"


class NotFound(Exception):
    """There is no such file; the text is fit for the PC's screen."""


class Forbidden(Exception):
    """The name is never served; the text is fit for the PC's screen."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A file to send. `script` and `mac` are set for a client's script; `boot_id` where the name carried one.

    A file that is too large for memory is `opened`, and has no payload; whoever asked for it closes it.
    """

    file: str
    payload: bytes = field(repr=False)
    boot_id: BootId | None = None
    mac: str | None = None
    script: Script | None = None
    opened: OpenFile | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.payload) if self.opened is None else self.opened.size

    @property
    def name(self) -> str:
        """A file name, whose ending says what it is."""
        return self.file if self.script is None else "script.ipxe"


class Answers:
    """Finds what is asked for."""

    def __init__(
        self,
        *,
        folders: Folders,
        plans: Plans,
        plans_read: Callable[[], bool],
        chronicle: Chronicle,
        on_link: OnLink,
        base: Callable[[str], str],
        log: Logger,
        key: ClusterKey | None = None,
    ) -> None:
        """`plans_read` tells whether `plans` is complete; `base` makes the URL that scripts name this server by,
        without a last slash, from the address that a PC has asked; CHAP secrets come from `key`."""
        self._folders = folders
        self._plans = plans
        self._plans_read = plans_read
        self._chronicle = chronicle
        self._on_link = on_link
        self._base = base
        self._log = log
        self._key = key

    async def find(self, raw: bytes, *, peer: str, local: str, large: bool = False) -> Answer:
        """The answer to the name `raw`, asked by the address `peer` at our address `local`. `large`: the protocol can
        send a file piece by piece.

        Raises NotFound or Forbidden.
        """
        try:
            name = names.read(raw)
        except names.NameRefused as error:
            self._log.warning("name refused", name=ascii(raw)[2:-1], peer=peer, why=str(error))
            raise Forbidden(str(error)) from error
        match name:
            case names.ScriptName():
                return self._script(name, peer, local)
            case names.AutoexecName(boot_id):
                text = scripts.autoexec(self._base(local), boot_id)
                return Answer("autoexec.ipxe", text.encode("ascii"))
            case names.LoaderName():
                return await self._loader(name, peer, large=large)

    def _script(self, name: names.ScriptName, peer: str, local: str) -> Answer:
        boot_id = name.boot_id or self._chronicle.begin(name.mac, peer, datetime.now(UTC))
        self._chronicle.script_asked(name, boot_id, peer)
        plan = self._plans.get(name.mac)
        script = scripts.render(
            Asker(name.mac, boot_id, self._base(local)),
            plan,
            on_link=frozenset(host for host in scripts.portal_hosts(plan) if self._on_link.together(peer, host)),
            plans_read=self._plans_read(),
            key=self._key,
        )
        return Answer("script", script.text.encode("ascii"), boot_id, name.mac, script)

    async def _loader(self, name: names.LoaderName, peer: str, *, large: bool) -> Answer:
        read = self._folders.fetch if large else self._folders.read
        try:
            found = await asyncio.to_thread(read, name.path)
        except FileRefused as error:
            self._log.warning("file refused", file=name.text, peer=peer, why=str(error))
            self._tell(name, peer, f"the loader {name.text} is not served: {error}", _READABLE)
            raise Forbidden(str(error)) from error
        except FileMissing as error:
            self._log.info("file missing", file=name.text, peer=peer)
            remedy = f"put it into {self._folders.roots[0]}, or, if it is one of Debian's: apt install ipxe"
            if not name.optional:
                self._tell(name, peer, f"the loader {name.text} is missing on the boot server", remedy)
            raise NotFound(f"no file {name.text} here") from error
        if isinstance(found, OpenFile):
            return Answer(name.text, b"", name.boot_id, opened=found)
        if not found:
            self._tell(name, peer, f"the loader {name.text} is empty", f"put a whole one into {self._folders.roots[0]}")
            raise Forbidden(f"{name.text} is empty")
        return Answer(name.text, found, name.boot_id)

    def _tell(self, name: names.LoaderName, peer: str, cause: str, remedy: str) -> None:
        # A name without a boot id is somebody looking around, or a boot that is none of ours.
        if name.boot_id is not None:
            self._chronicle.failed(name.boot_id, "loader", cause, remedy, peer=peer)
