"""What a server measures of itself, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.server.core.admission import Admission
    from unbrick.server.core.guard import LinkGuard
    from unbrick.server.records.contract import Records

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class _Counts(Collector):
    """How many records there are, by their states."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Count them."""
        rollouts = self._records.rollouts
        for name, about, counts in (
            ("rollouts", "Rollouts, by how far they are.", rollouts.count()),
            (
                *("rollout_terminals", "Terminals of rollouts, by what has become of them."),
                rollouts.count_members(),
            ),
            ("terminals", "Terminals, by what they said last.", self._records.count_terminals()),
            ("updates", "Updates, by how far they are.", self._records.count_updates()),
            ("messages", "Text messages, by where they are.", self._records.count_messages()),
        ):
            family = GaugeMetricFamily(f"unbrick_{name}", about, labels=["state"])
            for state, count in counts.items():
                family.add_metric([state], count)
            yield family


class _Refusals(Collector):
    """Which registrations were refused, and who waits for approval."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Count them."""
        refused = CounterMetricFamily(
            *("unbrick_registrations_refused", "Registrations that were refused, by what."),
            labels=["by"],
        )
        for reason, count in self._admission.refused.items():
            refused.add_metric([reason.value], count)
        yield refused
        about = "Terminals that wait for approval, of the newest that are remembered."
        yield GaugeMetricFamily("unbrick_terminals_waiting", about, len(self._admission.waiting()))


class _NotHeard(Collector):
    """Which messages of terminals were not heard."""

    def __init__(self, guard: LinkGuard) -> None:
        self._guard = guard

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Count them."""
        family = CounterMetricFamily(
            *("unbrick_link_refused", "Messages on the link that were not heard, by the reason."),
            labels=["reason"],
        )
        for reason, count in self._guard.refused.items():
            family.add_metric([reason.value], count)
        yield family


class Metrics:
    """What is measured.

    Args:
        records: what is counted.
        admission: what has been refused; None: nothing is.
        guard: what has not been heard; None: all is.
    """

    def __init__(
        self,
        records: Records,
        admission: Admission | None = None,
        guard: LinkGuard | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Counts(records))
        if admission is not None:
            self._registry.register(_Refusals(admission))
        if guard is not None:
            self._registry.register(_NotHeard(guard))
        ProcessCollector(registry=self._registry)
        labels = ("method", "path", "status")
        self._requests = Counter(
            *("unbrick_http_requests", "Requests of the HTTP API.", labels),
            registry=self._registry,
        )
        self._seconds = Histogram(
            *("unbrick_http_request_seconds", "How long they took.", labels[:2]),
            registry=self._registry,
        )

    def note_request(self, method: str, path: str, status: int, seconds: float) -> None:
        """A request was answered; ``path`` is that of the operation, and names nobody."""
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(method, path).observe(seconds)

    def write(self) -> bytes:
        """All of them, in the text format of Prometheus."""
        return generate_latest(self._registry)
