"""Fixtures of the tests that run one service with all that is around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bootlink_dhcp import advertiser, prober, server, service, waker, watch
from lab.netns import Cable, entered

OPENED = (
    (service, "find_card"),
    (server, "open_udp"),
    (server, "open_frames"),
    (prober, "open_arp"),
    (advertiser, "_open"),
    (watch, "open_taps"),
    (waker, "open_broadcast"),
)


@pytest.fixture
def in_namespace(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    """dhcp's network card and its sockets are the server end of the cable; all else, NATS too, is ours."""

    def inside(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with entered(cable.server):
                return function(*arguments)

        return call

    for module, name in OPENED:
        monkeypatch.setattr(module, name, inside(getattr(module, name)))
