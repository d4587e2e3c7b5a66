"""What the cache holds and has served, layer by layer: the page `cache` of this node, and metrics of the same figures.

A layer's figures count from when it was opened here, which is its first client's login; they begin anew where it was
closed in between (64 layers stay open without a client). A *read* is of one block: a client's read of 4 KiB is one, of
1 MiB 32. The hit ratio is hits / (hits + misses). A miss may still be quick: the kernel may have had the block in its
page cache, or another client's read had it on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from bootlink_blockstore.attach import Attachments
from bootlink_blockstore.cache import Cache, Shelf
from bootlink_blockstore.library import Library
from bootlink_runtime import Meter, Metric
from bootlink_runtime.metering import Numbers

LAYERS_TOLD: Final = 256  # layers whose figures are metrics: 64 stay open without a client, the others have some


def _layer(name: str, kind: Literal["counter", "gauge"], unit: str, tells: str) -> Metric:
    return Metric(f"bootlink.cache.{name}", kind, unit, tells, ("bootlink.layer", "file.name"), LAYERS_TOLD)


_METRICS: Final[tuple[tuple[Metric, Callable[[Shelf], int]], ...]] = (
    (_layer("hits", "counter", "{block}", "blocks that were wanted and in the cache"), lambda shelf: shelf.hits),
    (_layer("misses", "counter", "{block}", "blocks that were wanted and not in it"), lambda shelf: shelf.misses),
    (_layer("read", "counter", "By", "bytes read from the layer's file"), lambda shelf: shelf.bytes_read),
    (_layer("read_ahead", "counter", "{block}", "blocks read before anybody wanted them"), lambda shelf: shelf.ahead),
    (
        _layer("read_ahead.wasted", "counter", "{block}", "of these, dropped before anybody did"),
        lambda shelf: shelf.wasted,
    ),
    (_layer("evicted", "counter", "{block}", "blocks that gave way to others"), lambda shelf: shelf.evicted),
    (_layer("held", "gauge", "By", "bytes of the budget that the layer's blocks take"), lambda shelf: shelf.bytes_held),
)
_BUDGET: Final = Metric("bootlink.cache.budget", "gauge", "By", "bytes that the cache may hold")
_USED: Final = Metric("bootlink.cache.used", "gauge", "By", "bytes that it holds")
METRICS: Final = (*(metric for metric, _ in _METRICS), _BUDGET, _USED)


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
    """Have the figures told as metrics. Of a layer: its id and its file's name."""

    def of_layers(figure: Callable[[Shelf], int]) -> Numbers:
        return lambda: [
            (figure(layer.shelf), {"bootlink.layer": layer.id, "file.name": layer.open.info.path.name})
            for layer in library.layers
        ]

    for metric, figure in _METRICS:
        meter.observe(metric, of_layers(figure))
    meter.observe(_BUDGET, lambda: [(cache.budget, {})])
    meter.observe(_USED, lambda: [(cache.used, {})])
