"""Commands over NATS: request and reply on `bootlink.command.<service>.<node>.<verb>`.

How it works. Whoever asks says until when it wants the answer; the node refuses what comes later than that, for NATS
clients keep what they could not send and deliver it when the server is back, minutes later (PROTOCOLS, section 4.1).
So clocks must agree to within CALL_SECONDS. What is refused and what goes wrong is answered, too, with a cause and a
remedy, and is raised at the asker as the CommandError it was here.

A node carries out COMMANDS_AT_ONCE commands at a time; the others wait, and go stale if that takes too long. An answer
that comes after the deadline goes to nobody; so no answer does not mean that nothing was done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from pydantic import ValidationError

from bootlink_events import BootId, subject_token
from bootlink_events.commands import COMMAND_PREFIX, Answer, Command, CommandCall, CommandFault, CommandReply
from bootlink_runtime.bus import Bus
from bootlink_runtime.discovery import survey
from bootlink_runtime.errors import BusUnavailable, CommandError
from bootlink_runtime.logs import Logger
from bootlink_runtime.standing import on_each_client

A = TypeVar("A", bound=Answer)
Handler = Callable[[Any], Awaitable[Answer]]
Handlers = Mapping[type[Command[Any]], Handler]

CALL_SECONDS: Final = 5.0  # until an asker gives up
COMMANDS_AT_ONCE: Final = 16  # per node; long work is begun by a command and runs on beside it
WAITING_LIMIT: Final = 1_000  # commands that wait for their turn; NATS drops what goes beyond


async def call(bus: Bus, service: str, node: str, command: Command[A], *, seconds: float = CALL_SECONDS) -> A:
    """Have one node of a service carry out a command, and return its answer. CommandError if it did not, or may not
    have; BusUnavailable if NATS is away, so that nothing was asked."""
    if not bus.connected:
        raise BusUnavailable(f"not connected to {bus.url}")
    asked = CommandCall(
        id=str(BootId.mint()),
        source=bus.source,
        deadline=datetime.now(UTC) + timedelta(seconds=seconds),
        command=command.model_dump(mode="json"),
    )
    try:
        message = await bus.client.request(
            _subject(service, node, command.verb), asked.model_dump_json().encode(), timeout=seconds
        )
        reply = CommandReply.model_validate_json(message.data)
        if reply.fault is not None:
            raise CommandError(reply.fault.detail, reply.fault.remedy, cause=reply.fault.cause)
        return cast(A, command.answer.model_validate(reply.answer))
    except NoRespondersError as error:
        raise CommandError(
            f"{service} on {node} is not there, or does not know how to {command.verb}",
            f"look whether it runs, and in this version: bootlink status, or start {service} on {node}",
            cause="unanswered",
        ) from error
    except ValidationError as error:
        raise CommandError(
            f"the answer of {service} on {node} to {command.verb} cannot be read: {error}",
            "run the same version of Bootlink everywhere",
            cause="unanswered",
        ) from error
    except (NatsError, OSError, TimeoutError) as error:
        raise CommandError(
            f"{service} on {node} did not answer {command.verb} within {seconds:g} s",
            "look whether it runs, and try again: bootlink status",
            cause="unanswered",
        ) from error


async def call_all(
    bus: Bus, service: str, command: Command[A], *, seconds: float = CALL_SECONDS
) -> dict[str, A | CommandError]:
    """Have all nodes of a service carry out a command; their answers by node, or why there is none.

    Empty where no node runs. BusUnavailable if NATS is away.
    """
    if not bus.connected:
        raise BusUnavailable(f"not connected to {bus.url}")

    async def one(node: str) -> A | CommandError:
        try:
            return await call(bus, service, node, command, seconds=seconds)
        except CommandError as error:
            return error

    try:
        nodes = [report["node"] for report in await survey(bus.client) if report["service"] == service]
    except (NatsError, OSError) as error:
        raise BusUnavailable(str(error)) from error
    return dict(zip(nodes, await asyncio.gather(*map(one, nodes)), strict=True))


async def serve(bus: Bus, service: str, node: str, handlers: Handlers, log: Logger) -> None:
    """Carry out commands for as long as this task runs. A handler that cannot, raises CommandError."""
    commands = {command.verb: (command, handler) for command, handler in handlers.items()}
    turns = asyncio.Semaphore(COMMANDS_AT_ONCE)
    running: set[asyncio.Task[None]] = set()

    async def carry_out(message: Msg) -> None:
        try:
            reply = await _reply(message, commands, node, log)
            await message.respond(reply.model_dump_json(exclude_none=True).encode())
        except (NatsError, OSError) as error:  # the asker hears nothing, and asks again
            log.debug("command not answered", subject=message.subject, error=str(error))
        finally:
            turns.release()

    async def received(message: Msg) -> None:
        await turns.acquire()
        task = asyncio.create_task(carry_out(message), name=message.subject)
        running.add(task)
        task.add_done_callback(running.discard)

    async def subscribe(client: Client) -> None:
        await client.subscribe(_subject(service, node, "*"), cb=received, pending_msgs_limit=WAITING_LIMIT)

    try:
        await on_each_client(bus, subscribe, log, what="commands")
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _reply(
    message: Msg, commands: Mapping[str, tuple[type[Command[Any]], Handler]], node: str, log: Logger
) -> CommandReply:
    verb = message.subject.rpartition(".")[2]
    call_id = ""
    try:
        asked = _read(CommandCall, message.data)
        call_id = asked.id
        late = (datetime.now(UTC) - asked.deadline).total_seconds()
        if late > 0:
            raise CommandError(
                f"the command {verb} came {late:.1f} s after its deadline, by the clock of {node}",
                "ask again; if it stays, set the clocks of the servers right",
                cause="stale",
            )
        if verb not in commands:
            raise CommandError(
                f"{node} does not know the command {verb}", "run the same version everywhere", cause="unreadable"
            )
        model, handler = commands[verb]
        command = _read(model, asked.command)
        log.debug("command", verb=verb, source=asked.source, id=asked.id)
        answer = await handler(command)
        return CommandReply(id=call_id, node=node, answer=answer.model_dump(mode="json"))
    except CommandError as error:
        log.info("command refused", verb=verb, id=call_id, cause=error.cause, detail=error.detail)
        return CommandReply(id=call_id, node=node, fault=error.fault)
    except Exception as error:  # a bug of ours, which must not end the service
        log.error("command failed", verb=verb, id=call_id, error=repr(error), exc_info=error)
        fault = CommandFault(
            cause="broken",
            detail=f"{verb} failed on {node}: {error!r}",
            remedy=f"read the log of {node}, and report it",
        )
        return CommandReply(id=call_id, node=node, fault=fault)


M = TypeVar("M", CommandCall, Command[Any])


def _read(model: type[M], data: bytes | dict[str, object]) -> M:
    """CommandError if `data` is none of these."""
    try:
        return model.model_validate_json(data) if isinstance(data, bytes) else model.model_validate(data)
    except ValidationError as error:
        raise CommandError(
            f"this is no {model.__name__}: {error}", "run the same version of Bootlink everywhere", cause="unreadable"
        ) from error


def _subject(service: str, node: str, verb: str) -> str:
    return f"{COMMAND_PREFIX}.{service}.{subject_token(node)}.{verb}"
