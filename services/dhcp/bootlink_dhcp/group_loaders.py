"""Loaders that groups' rules ask for, and which of them no PC can be sent.

A PC whose rule names a file that is not there gets the next loader that is, and boots; so nobody would know that the
rule does nothing. Plans and files come and go on their own, so what is wrong is looked up when it is told.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from bootlink_dhcp.loaders import LoaderShelf
from bootlink_dhcp.reports import RULES
from bootlink_events import BootPlan
from bootlink_runtime import Logger


class Wish(NamedTuple):
    """One loader of one group's rules."""

    group: str
    loader: str
    arch: str  # that the rule is for; empty: every one


class GroupLoaders:
    """Counts the clients of each wish, from their plans."""

    def __init__(self, shelf: LoaderShelf, log: Logger) -> None:
        self._shelf, self._log = shelf, log
        self._of_client: dict[str, frozenset[Wish]] = {}  # of those that have some
        self._clients: Counter[Wish] = Counter()

    def changed(self, mac: str, plan: BootPlan | None) -> None:
        """Take a client's plan in; None: it has none any more."""
        wishes = _wishes(plan) if plan is not None else frozenset()
        before = self._of_client.pop(mac, frozenset())
        if wishes:
            self._of_client[mac] = wishes
        for wish in wishes - before:
            self._clients[wish] += 1
            if self._clients[wish] == 1 and (wrong := self._wrong(wish)):  # once, and not for each client
                self._log.warning("loader of a group not sent", reason=wrong, remedy=RULES)
        for wish in before - wishes:
            self._clients[wish] -= 1
            if not self._clients[wish]:
                del self._clients[wish]

    def wrong(self) -> list[str]:
        """What is wrong with each wish that cannot be fulfilled now."""
        return [wrong for wish in sorted(self._clients) if (wrong := self._wrong(wish))]

    def _wrong(self, wish: Wish) -> str:
        reason = self._shelf.why_not(wish.loader, wish.arch)
        return f"group {wish.group} asks for {wish.loader}, which {reason}" if reason else ""


def _wishes(plan: BootPlan) -> frozenset[Wish]:
    return frozenset(Wish(plan.group or "", name, rule.arch) for rule in plan.loaders for name in rule.loaders)
