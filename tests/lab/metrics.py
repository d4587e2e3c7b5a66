"""What a service's /metrics tells, read as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """One scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = {family.name: family for family in families}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    @classmethod
    def of(cls, answer: tuple[bytes, str]) -> Scrape:
        """From what `Meter.scrape` returns for a client that accepts anything."""
        text, kind = answer
        assert kind.startswith("text/plain"), kind
        return cls(text_string_to_metric_families(text.decode()))

    def value(self, name: str, **labels: str) -> float:
        """The value of the one series that has this name and these labels, and no others."""
        (value,) = [sample.value for sample in self._samples if sample.name == name and sample.labels == labels]
        return value

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of this name that have these labels."""
        return sum(s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items())

    def labels(self, name: str, label: str) -> set[str]:
        """The values of a label."""
        return {sample.labels[label] for sample in self._samples if sample.name == name}

    def series(self, name: str) -> int:
        """How many series have this name."""
        return sum(sample.name == name for sample in self._samples)
