"""What the cache holds and has served, layer by layer: the page `cache` of this node, and metrics of the same figures.

A layer's figures count from when it was opened here, which is its first client's login; they begin anew where it was
closed in between (64 layers stay open without a client). A *read* is of one block: a client's read of 4 KiB is one, of
1 MiB 32. The hit ratio is hits / (hits + misses). A miss may still be quick: the kernel may have had the block in its
page cache, or another client's read had it on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from bootlink_blockstore.attach import Attachments
from bootlink_blockstore.cache import Cache, Shelf
from bootlink_blockstore.library import Library


class Meter(Protocol):
    """What is needed of the service's telemetry."""

    def counter(self, name: str, unit: str, description: str, read: Readings) -> None: ...

    def gauge(self, name: str, unit: str, description: str, read: Readings) -> None: ...


Attributes = dict[str, str | int | float | bool]
Readings = Callable[[], Iterable[tuple[int | float, Attributes]]]

# Name, unit, what it tells, and whether it only grows; from a layer's shelf.
_METRICS: tuple[tuple[str, str, str, bool, Callable[[Shelf], int]], ...] = (
    ("hits", "{block}", "blocks that were wanted and in the cache", True, lambda shelf: shelf.hits),
    ("misses", "{block}", "blocks that were wanted and not in the cache", True, lambda shelf: shelf.misses),
    ("read", "By", "bytes read from the layer's file", True, lambda shelf: shelf.bytes_read),
    ("read_ahead", "{block}", "blocks read before anybody wanted them", True, lambda shelf: shelf.ahead),
    ("read_ahead.wasted", "{block}", "of these, dropped before anybody did", True, lambda shelf: shelf.wasted),
    ("evicted", "{block}", "blocks that gave way to others", True, lambda shelf: shelf.evicted),
    ("held", "By", "bytes of the budget that the layer's blocks take", False, lambda shelf: shelf.bytes_held),
)


def ratio(hits: int, misses: int) -> float | None:
    """Of all blocks wanted, the share that was in the cache; None before the first."""
    return round(hits / (hits + misses), 6) if hits + misses else None


def report(cache: Cache, library: Library, attachments: Attachments, node: str) -> dict[str, Any]:
    """The page. Sizes in bytes."""
    images: dict[str, set[str]] = {}
    for boot in attachments.boots:
        for attached in boot.disks.values():
            name = f"{attached.manifest.image}@{attached.manifest.version}"
            for layer in attached.disk.image.layers:
                images.setdefault(layer.id, set()).add(name)
    layers = [
        {
            "id": layer.id,
            "path": str(layer.open.info.path),
            "images": sorted(images.get(layer.id, ())),
            "clients": layer.users,
            "blocks": len(layer.shelf.blocks) + len(layer.shelf.marks),
            "bytes": layer.shelf.bytes_held,
            "hits": layer.shelf.hits,
            "misses": layer.shelf.misses,
            "hit_ratio": ratio(layer.shelf.hits, layer.shelf.misses),
            "bytes_read": layer.shelf.bytes_read,
            "read_ahead": layer.shelf.ahead,
            "read_ahead_wasted": layer.shelf.wasted,
            "evicted": layer.shelf.evicted,
        }
        for layer in library.layers
    ]
    hits = sum(layer.shelf.hits for layer in library.layers)
    misses = sum(layer.shelf.misses for layer in library.layers)
    return {
        "node": node,
        "budget": cache.budget,
        "used": cache.used,
        "hits": hits,
        "misses": misses,
        "hit_ratio": ratio(hits, misses),
        "layers": layers,
    }


def measure(cache: Cache, library: Library, meter: Meter) -> None:
    """Have the figures exported as metrics. Their one attribute is the layer's id: as many as layers are open."""

    def of_layers(figure: Callable[[Shelf], int]) -> Readings:
        return lambda: [(figure(layer.shelf), {"bootlink.layer": layer.id}) for layer in library.layers]

    for name, unit, description, grows, figure in _METRICS:
        (meter.counter if grows else meter.gauge)(f"bootlink.cache.{name}", unit, description, of_layers(figure))
    meter.gauge("bootlink.cache.budget", "By", "bytes that the cache may hold", lambda: [(cache.budget, {})])
    meter.gauge("bootlink.cache.used", "By", "bytes that it holds", lambda: [(cache.used, {})])
