"""Who may say and hear what over NATS: worked out from the tables of events, commands and buckets.

Each service has a key of its own, and with it this and no more:

- the events that the table names it as a publisher of; the registry alone consumes them with a durable consumer;
- the buckets that it reads or writes (BUCKETS), by their subjects `$KV.<bucket>.<key>` and the requests that JetStream
  takes about their streams;
- the commands that it carries out or asks for, and its answers to whoever asked: one each, within ANSWER_SECONDS;
- inboxes under its own key's name, so that no one hears another's answers.

The command (`bootlink status`, `cache`, `events`) has a key that asks and listens, and changes nothing: what changes
something goes through the API. Integrations live in an account of their own: see INTEGRATION_REQUESTS.

What NATS does not hold back: a request names the subject that its answer goes to, and that may be any of the account.
So a service may put an answer of JetStream's where no sense can be made of it (a plan that is none is passed over, and
written anew by the registry), but no plan or command of its own making. Nor does NATS hold back where a consumer
delivers: so who consumes events takes only those of its own consumer (`bootlink_runtime.consumer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bootlink_events.commands import COMMAND_PREFIX, COMMANDS
from bootlink_events.plans import LEASES_BUCKET, NODES_BUCKET, PLANS_BUCKET
from bootlink_events.subjects import ALL_EVENTS, EVENTS, EVENTS_STREAM

REGISTRY: Final = "registry"
SERVICES: Final = (REGISTRY, "blockstore", "tftp", "dhcp")
COMMAND: Final = "command"
ROLES: Final = (*SERVICES, COMMAND)

ANSWER_SECONDS: Final = 30  # within which a request may be answered; a command's deadline is 5, a batch's 10
DURABLE_CONSUMERS: Final = ("registry", "webhooks")  # of the event stream, by name: ours, and for nobody else to change
DELIVERIES: Final = "_deliver"  # before the names of durable consumers, where they deliver to
_SURVEYORS: Final = (REGISTRY, "dhcp", COMMAND)  # who ask all services at once who runs


@dataclass(frozen=True, slots=True)
class Bucket:
    """A key-value bucket, who reads it, and who writes it. The registry makes all of them."""

    name: str
    readers: tuple[str, ...]
    writers: tuple[str, ...]

    @property
    def stream(self) -> str:
        return f"KV_{self.name}"


BUCKETS: Final = (
    Bucket(PLANS_BUCKET, SERVICES, (REGISTRY,)),
    Bucket(NODES_BUCKET, (REGISTRY,), ("blockstore",)),
    Bucket(LEASES_BUCKET, ("dhcp",), ("dhcp",)),
)


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a user may do; subjects as NATS writes them."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    never_publish: tuple[str, ...] = ()
    answers: bool = False  # it may answer what it is asked, wherever the answer is to go


def permissions(role: str, inbox: str) -> Permissions:
    """Of one of ROLES, whose inboxes are below `inbox`. KeyError if it is none of them."""
    if role not in ROLES:
        raise KeyError(role)
    say: list[str] = []
    hear = [f"{inbox}.>"]
    if role in SERVICES:
        say += [f"{kind.type}.*" for kind in EVENTS if role in kind.publishers]
        hear += [f"bootlink.rpc.*.{role}.*"]
        hear += ["$SRV.*", f"$SRV.*.bootlink-{role}", f"$SRV.*.bootlink-{role}.*"]
        if any(command.service == role for command in COMMANDS):
            hear.append(f"{COMMAND_PREFIX}.{role}.>")
    for bucket in BUCKETS:
        if role in bucket.readers:
            say += [
                *_read_of(bucket.stream),
                f"$JS.API.CONSUMER.CREATE.{bucket.stream}",  # a consumer without a name, as it is nobody else's
                f"$JS.API.CONSUMER.DELETE.{bucket.stream}.*",
            ]
        if role in bucket.writers:
            say += [f"$KV.{bucket.name}.>", f"$JS.API.STREAM.INFO.{bucket.stream}"]
    if role in _SURVEYORS:
        say.append("$SRV.STATS")
    if role == COMMAND:
        say += ["bootlink.rpc.*.*.*", *_read_of(EVENTS_STREAM), *_named_consumers(EVENTS_STREAM)]
        hear.append(ALL_EVENTS)
    if role == REGISTRY:
        say += [f"{COMMAND_PREFIX}.{command.service}.*.{command.verb}" for command in COMMANDS]
        say += _owner_of(EVENTS_STREAM) + [s for bucket in BUCKETS for s in _owner_of(bucket.stream)]
        say += [f"$JS.API.CONSUMER.LIST.{EVENTS_STREAM}", f"$JS.API.CONSUMER.*.{EVENTS_STREAM}.>"]
        say += [f"$JS.API.CONSUMER.DURABLE.CREATE.{EVENTS_STREAM}.*"]
        say += [f"$JS.ACK.{EVENTS_STREAM}.>", *_read_of(EVENTS_STREAM)]
        hear.append(f"{DELIVERIES}.*")
    return Permissions(
        publish=tuple(dict.fromkeys(say)),
        subscribe=tuple(dict.fromkeys(hear)),
        never_publish=OURS if role == COMMAND else (),
        answers=role in SERVICES,
    )


def _read_of(stream: str) -> list[str]:
    return [f"$JS.API.STREAM.INFO.{stream}", f"$JS.API.CONSUMER.INFO.{stream}.*", f"$JS.FC.{stream}.>"]


def _owner_of(stream: str) -> list[str]:
    return [f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE", "INFO")]


def _named_consumers(stream: str) -> list[str]:
    return [f"$JS.API.CONSUMER.CREATE.{stream}.*", f"$JS.API.CONSUMER.CREATE.{stream}.*.>"]


def _of_consumer(name: str) -> tuple[str, ...]:
    """Whatever changes this consumer, or acknowledges for it."""
    return (
        f"$JS.API.CONSUMER.CREATE.{EVENTS_STREAM}.{name}",
        f"$JS.API.CONSUMER.CREATE.{EVENTS_STREAM}.{name}.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{EVENTS_STREAM}.{name}",
        f"$JS.API.CONSUMER.DELETE.{EVENTS_STREAM}.{name}",
        f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}.{name}",
        f"$JS.ACK.{EVENTS_STREAM}.{name}.>",
        f"$JS.FC.{EVENTS_STREAM}.{name}.>",
    )


OURS: Final = tuple(subject for name in DURABLE_CONSUMERS for subject in _of_consumer(name))
"""What nobody but the registry may say: it would take its events away."""

INTEGRATION_REQUESTS: Final = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    *_read_of(EVENTS_STREAM),
    *_named_consumers(EVENTS_STREAM),
    f"$JS.API.CONSUMER.DURABLE.CREATE.{EVENTS_STREAM}.*",
    f"$JS.API.CONSUMER.DELETE.{EVENTS_STREAM}.*",
    f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}.*",
    f"$JS.ACK.{EVENTS_STREAM}.>",
)
"""What integrations may ask of JetStream: the events' stream, by consumers that have a name.

They have an account of their own, into which the events and these requests are imported. So what they publish stays
there, and an answer to a request of theirs can go nowhere else, whatever subject they name for it. Consumers without a
name they may not make: the request for one carries a name in its body, which the server (2.15) takes, so that somebody
else's consumer could be had to deliver elsewhere; one whose name is in the subject is held to it.
"""


def integration(inbox: str) -> Permissions:
    """What the key of an integration may do, whose inboxes are below `inbox`: read events."""
    return Permissions(INTEGRATION_REQUESTS, (f"{inbox}.>", ALL_EVENTS), never_publish=OURS)
