"""Commands: what one service asks another to do, and the answers.

Facts are events and requests are commands. A command is asked of one node and answered by it (`bootlink_runtime.rpc`);
no stream keeps one, so that none is carried out long after it was meant: each names a deadline. Every command may be
repeated, for whoever had no answer cannot know whether it was carried out: a repeat finds the work done, and says so.

COMMANDS is the table of all of them. The models are additive, as events are.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Final, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from bootlink_events.bootid import BootId
from bootlink_events.names import Mac
from bootlink_events.plans import LayerFormat, LayerPlan, Policy

COMMAND_PREFIX: Final = "bootlink.command"  # outside `bootlink.v1.>`, which a stream stores
LASTING_LIMIT: Final = 5_000  # clients in one answer, of some 90 bytes each; NATS carries 1 MiB
STACK_LIMIT: Final = 256  # layers below a write-back; a chain is merged long before

Lun = Annotated[int, Field(ge=0, le=255)]
WritebackState = Literal["in_use", "idle", "discarded", "kept", "failed", "outlived"]


class _Message(BaseModel):
    """Frozen, and lenient about fields it does not know: nodes may be of different versions."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Answer(_Message):
    """What a command brought about."""


A_co = TypeVar("A_co", bound=Answer, covariant=True)


class Command(_Message, Generic[A_co]):
    """Something to do. A_co is the model of its answer."""

    service: ClassVar[str]
    verb: ClassVar[str]
    answer: ClassVar[type[Answer]]


class WritebackItem(_Message):
    """One write-back that a block store holds: what one boot of a client wrote to one of its disks."""

    mac: Mac
    client: str
    boot_id: BootId
    lun: Lun
    image: str
    version: int
    content: str = Field(description="identity of the image's contents that it lies upon")
    policy: Policy
    state: WritebackState = Field(
        description="in_use: a session holds it; idle: of the current boot, nobody logged in; discarded: of a boot "
        "that is over, until it is reclaimed; kept: survives boots; failed: its disk failed; outlived: the machine was "
        "restarted since, so that writes of it may be lost"
    )
    bytes: int = Field(ge=0, description="that it takes on disk")
    since: datetime = Field(description="when it was begun")
    reason: str = Field(default="", description="why it failed, or what became of it")
    returning: bool = Field(default=False, description="it comes back at the client's next boot")
    written: int = Field(default=0, description="when its files changed last, in nanoseconds of Unix time; 0: not told")


class WritebackList(Answer):
    """What a block store holds of one client; the newest boot first."""

    items: tuple[WritebackItem, ...]


class ListWritebacks(Command[WritebackList]):
    """What do you hold of this client?"""

    service = "blockstore"
    verb = "list_writebacks"
    answer = WritebackList

    mac: Mac


class Lasting(_Message):
    """A client of which a block store holds something that outlives its boots."""

    mac: Mac
    boot_id: BootId = Field(description="the newest boot that wrote such a thing")


class LastingClients(Answer):
    """Some of the clients of which a block store holds something that lasts, by MAC address."""

    clients: tuple[Lasting, ...]
    next: Mac | None = Field(default=None, description="ask for those after this one; null: that was all")


class ListLasting(Command[LastingClients]):
    """Of which clients do you hold something that outlives their boots: kept, super or own write-backs?"""

    service = "blockstore"
    verb = "list_lasting"
    answer = LastingClients

    after: str = Field(default="", description="only those with a greater MAC address")
    limit: int = Field(default=LASTING_LIMIT, ge=1, le=LASTING_LIMIT)


class ExportedLayer(_Message):
    """A finished layer file."""

    path: str
    format: LayerFormat = Field(
        description="vhd-differencing over `parent`; vhd-dynamic where it is a whole disk that needs no layer below"
    )
    virtual_size: int
    file_size: int
    mtime_ns: int
    disk_usage: int
    sha256: str
    boot_id: BootId = Field(description="the boot that wrote it")
    pages: int = Field(description="pages of 4 KiB that the write-back held")
    whole: str = Field(default="", description="why it became a whole disk; empty where it is a differencing one")
    written: int | None = Field(
        default=None,
        description="the write-back's `written` when the layer was made, which holds all of it; null: of a client that "
        "was at work, or found again after a restart, so that there may be more",
    )


class ExportState(Answer):
    """How far an export is."""

    state: Literal["running", "done", "failed"]
    done: int = Field(default=0, ge=0, description="bytes written so far")
    total: int = Field(default=0, ge=0, description="bytes to write; 0: not known yet")
    result: ExportedLayer | None = Field(default=None, description="where it is done")
    detail: str = Field(default="", description="where it failed: what is wrong")
    remedy: str = Field(default="", description="where it failed: what to do")


class ExportWriteback(Command[ExportState]):
    """Make a layer file of what a client wrote, or tell how far that is.

    The first call begins it, further calls of the same job tell how far it is. After a restart of the block store a
    call finds the file that is done, or begins again. Refused while a session holds the write-back, unless
    `allow_flushed` is set: then it is what the disk held at one moment at which all of it was flushed.
    """

    service = "blockstore"
    verb = "export_writeback"
    answer = ExportState

    job: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="names the draft, too")
    mac: Mac
    lun: Lun = 0
    boot_id: BootId | None = Field(default=None, description="which boot's; None: the newest that is there")
    content: str | None = Field(default=None, description="what it must lie upon; None: whatever it does")
    target: str = Field(description="path of the layer file; the draft lies beside it, as <target>.tmp-<job>")
    parent: tuple[LayerPlan, ...] = Field(
        min_length=1, max_length=STACK_LIMIT, description="the layers that it lies upon, top first"
    )
    whole: bool = Field(default=False, description="make a whole disk, not a differencing one")
    allow_flushed: bool = False


class CancelExport(Command[Answer]):
    """Stop an export and remove its draft. One that is done, or not known, is left as it is."""

    service = "blockstore"
    verb = "cancel_export"
    answer = Answer

    job: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")


class WritebackDropped(Answer):
    """What is gone, and what was left as it holds more; nothing, where nothing was there."""

    items: tuple[WritebackItem, ...]
    left: tuple[WritebackItem, ...] = ()


class DropWriteback(Command[WritebackDropped]):
    """Throw away what a client wrote to a disk: after a commit, an abandon, a rebase.

    Without `boot_id`: every kept and super write-back of this disk. Refused while a session holds it. Where a layer was
    made of it, `exported_boot` and `exported_written` say what of it the layer holds. A client may have been started
    after that, and before its plan reached the block store: what holds more than the layer is left, and named.
    """

    service = "blockstore"
    verb = "drop_writeback"
    answer = WritebackDropped

    mac: Mac
    lun: Lun = 0
    boot_id: BootId | None = None
    content: str | None = Field(default=None, description="only what lies upon this; None: whatever it lies upon")
    exported_boot: BootId | None = Field(default=None, description="the `boot_id` of the layer that was made of it")
    exported_written: int | None = Field(default=None, description="the `written` of that layer")


class WritebackReturning(Answer):
    """What comes back at the client's next boot, one item for each disk."""

    items: tuple[WritebackItem, ...]


class ContentLayers(_Message):
    """What a content is read from now."""

    content: str
    layers: tuple[LayerPlan, ...] = Field(min_length=1, max_length=STACK_LIMIT, description="top first")


class RestoreWriteback(Command[WritebackReturning]):
    """Give a client's next boot a discarded write-back back, on the image that it was written on."""

    service = "blockstore"
    verb = "restore_writeback"
    answer = WritebackReturning

    mac: Mac
    boot_id: BootId | None = Field(default=None, description="which boot's; None: the last that was discarded")
    stacks: tuple[ContentLayers, ...] = Field(
        default=(), description="where contents lie since a merge; those not named are where they were written on"
    )


class ClientDisconnected(Answer):
    """How many sessions were ended."""

    sessions: int


class DisconnectClient(Command[ClientDisconnected]):
    """End a client's sessions. It may log in again."""

    service = "blockstore"
    verb = "disconnect_client"
    answer = ClientDisconnected

    mac: Mac


class ClientWoken(Answer):
    """Where the magic packet was sent."""

    interfaces: tuple[str, ...]


class WakeClient(Command[ClientWoken]):
    """Send a client the magic packet of Wake-on-LAN."""

    service = "dhcp"
    verb = "wake_client"
    answer = ClientWoken

    mac: Mac


COMMANDS: Final[tuple[type[Command[Answer]], ...]] = (
    ListWritebacks,
    ListLasting,
    ExportWriteback,
    CancelExport,
    DropWriteback,
    RestoreWriteback,
    DisconnectClient,
    WakeClient,
)


class CommandCall(_Message):
    """A command as it travels."""

    id: str
    source: str = Field(description="the service and node that asks, such as /registry/server-1")
    deadline: AwareDatetime = Field(description="by the asker's clock; carried out until then, and never after it")
    command: dict[str, object]


CommandCause = Literal["refused", "stale", "unreadable", "broken", "unanswered"]


class CommandFault(_Message):
    """Why a command was not carried out."""

    cause: CommandCause = Field(
        description="refused: it cannot be done now; stale: it came after its deadline; unreadable: it is no such "
        "command; broken: a fault of ours; unanswered: no answer came, so it may have been carried out all the same"
    )
    detail: str = Field(description="what is wrong")
    remedy: str = Field(description="what to do")


class CommandReply(_Message):
    """An answer as it travels: either `answer` or `fault`."""

    id: str
    node: str
    answer: dict[str, object] | None = None
    fault: CommandFault | None = None
