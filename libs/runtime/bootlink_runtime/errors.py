"""What goes wrong between a service and its surroundings: at its start, on the bus, and when it is asked something."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bootlink_events.commands import CommandCause, CommandFault


class StartupError(Exception):
    """A service cannot start. Carries one line for the administrator: what is wrong, and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy


class BusUnavailable(Exception):
    """NATS did not take a message or answer in time. It may have been stored all the same.

    Where there was no connection at all, it carries what to do about that.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.remedy = remedy


class CompareFailed(Exception):
    """A key of a bucket was not at the revision that a compare-and-set named: somebody else has set it."""


class CommandError(Exception):
    """A command was not carried out: raised by its handler, and again where it was asked."""

    def __init__(self, detail: str, remedy: str, *, cause: CommandCause = "refused") -> None:
        super().__init__(f"{detail}: {remedy}")
        self.detail = detail
        self.remedy = remedy
        self.cause = cause

    @property
    def fault(self) -> CommandFault:
        # Here, as most that raise or catch one of these errors need no model of an event, and those take long to load.
        from bootlink_events.commands import CommandFault

        return CommandFault(cause=self.cause, detail=self.detail, remedy=self.remedy)
