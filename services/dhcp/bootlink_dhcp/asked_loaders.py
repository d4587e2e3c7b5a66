"""Loaders that rules ask for, those of the settings and those of groups, and which of them no PC can be sent.

A PC whose rule names a file that is not there gets the next loader that is, and boots; so nobody would know that the
rule does nothing. It is told once for each rule and file, when it comes about: at the start, when a plan comes, when a
file goes. Plans and files come and go on their own, so what is wrong at this moment is looked up when it is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from bootlink_dhcp.loaders import LoaderShelf
from bootlink_events import BootPlan, LoaderRule

SETTING: Final = "BOOTLINK_DHCP_LOADER_RULES"


class Wish(NamedTuple):
    """One loader of one rule."""

    group: str  # whose rule it is; empty: the settings'
    loader: str
    arch: str  # that the rule is for; empty: every one


class Unfulfilled(NamedTuple):
    """A wish that cannot be fulfilled, and why."""

    wish: Wish
    reason: str  # of the file: "is in none of the loader folders"

    @property
    def text(self) -> str:
        """Who asks in vain for what."""
        who = f"group {self.wish.group}" if self.wish.group else SETTING
        return f"{who} asks for {self.wish.loader}, which {self.reason}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        other = "set another: bootlink group loader set GROUP FILE" if self.wish.group else f"correct {SETTING}"
        return f"put it into a loader folder, or {other}"


class AskedLoaders:
    """Counts the clients of each group's wish, from their plans."""

    def __init__(
        self, shelf: LoaderShelf, tell: Callable[[Unfulfilled], None], rules: Iterable[LoaderRule] = ()
    ) -> None:
        """`rules` are the settings'. `tell` hears of each wish that cannot be fulfilled, when that comes about."""
        self._shelf, self._tell = shelf, tell
        self._of_client: dict[str, frozenset[Wish]] = {}  # of those that have some
        self._asking = Counter(_wishes("", rules))  # the clients of each wish; the settings count as one
        self._told: set[Wish] = set()
        self.looked()

    def changed(self, mac: str, plan: BootPlan | None) -> None:
        """Take a client's plan in; None: it has none any more."""
        wishes = _wishes(plan.group or "", plan.loaders) if plan is not None else frozenset()
        before = self._of_client.pop(mac, frozenset())
        if wishes:
            self._of_client[mac] = wishes
        for wish in wishes - before:
            self._asking[wish] += 1
            if self._asking[wish] == 1:  # once, and not for each client
                self._look_at(wish)
        for wish in before - wishes:
            self._asking[wish] -= 1
            if not self._asking[wish]:
                del self._asking[wish]
                self._told.discard(wish)

    def looked(self) -> None:
        """The loader folders were looked at: tell what cannot be sent any more."""
        for wish in sorted(self._asking):
            self._look_at(wish)

    def wrong(self) -> list[Unfulfilled]:
        """The wishes that cannot be fulfilled now."""
        found = ((wish, self._reason(wish)) for wish in sorted(self._asking))
        return [Unfulfilled(wish, reason) for wish, reason in found if reason]

    def _look_at(self, wish: Wish) -> None:
        reason = self._reason(wish)
        if not reason:
            self._told.discard(wish)
        elif wish not in self._told:
            self._told.add(wish)
            self._tell(Unfulfilled(wish, reason))

    def _reason(self, wish: Wish) -> str:
        return self._shelf.why_not(wish.loader, wish.arch)


def _wishes(group: str, rules: Iterable[LoaderRule]) -> frozenset[Wish]:
    return frozenset(Wish(group, name, rule.arch) for rule in rules for name in rule.loaders)
