"""Errors that end a service, or keep it from starting."""

from __future__ import annotations


class StartupError(Exception):
    """A service cannot start. Carries one line for the administrator: what is wrong, and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy


class BusUnavailable(Exception):
    """NATS did not take a message or answer in time. It may have been stored all the same."""
