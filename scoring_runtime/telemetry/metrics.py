"""Counters of the front. Plain integers on the hot path; turned into Prometheus text only when somebody asks."""

import bisect
import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

if TYPE_CHECKING:
    from ..errors import RequestError

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

DURATION_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


SCORER_ENDS = ("exited", "killed", "timed_out", "memory", "stopped", "channel_closed", "start_failed")


class Histogram:
    """Counts by upper bound, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: list[float]) -> None:
        """Count many values. The requests of a frame mostly fall between the same bounds: then they are counted at once."""
        bounds, counts = self.bounds, self.counts
        lowest = bisect.bisect_left(bounds, min(values))
        if lowest == bisect.bisect_left(bounds, max(values)):
            counts[lowest] += len(values)
        else:
            for value in values:
                counts[bisect.bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """The Prometheus form: cumulative counts."""
        running = 0
        buckets = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            buckets.append((bound, running))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self.total)


class Metrics:
    """The counters of one front. Written by the event loop alone."""

    def __init__(self) -> None:
        self.score_status = [0] * 1000  # by status
        self.errors: Counter[str] = Counter()
        self.duration_s = Histogram(DURATION_BOUNDS_S)
        self.batch_size = Histogram(BATCH_BOUNDS)
        self.cancelled = 0
        self.runs_stopped = 0
        self.refused: Counter[str] = Counter()  # at the door of the waiting line, by limit
        self.expired: Counter[str] = Counter()  # after they had joined it, by limit
        self.scorer_ends: Counter[str] = Counter(dict.fromkeys(SCORER_ENDS, 0))  # by reason

    def failed(self, error: "RequestError") -> None:
        """An error of the server's own goes out."""
        self.errors[type(error).__name__] += 1

    def dispatched(self, count: int) -> None:
        """A frame of `count` requests goes to a scorer."""
        self.batch_size.observe(count)

    def copy(self) -> "Metrics":
        """The counters as they stand, for another thread."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, object]) -> "Metrics":
        other = Metrics()
        for name in (
            *("score_status", "errors", "duration_s", "batch_size", "cancelled", "runs_stopped"),
            *("refused", "expired", "scorer_ends"),
        ):
            setattr(other, name, copy.deepcopy(getattr(self, name), memo))
        return other


class _Collector:
    """One scrape."""

    def __init__(self, metrics: Metrics, gauges: Mapping[str, tuple[str, float | Mapping[str, float]]]) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        answered = CounterMetricFamily("scoring_requests", "Requests answered by a scorer.", labels=["status"])
        for status, count in enumerate(metrics.score_status):
            if count:
                answered.add_metric([str(status)], count)
        yield answered
        failed = CounterMetricFamily(
            "scoring_errors", "Requests answered by the front with an error.", labels=["error"]
        )
        for error, count in sorted(metrics.errors.items()):
            failed.add_metric([error], count)
        yield failed
        for name, counts, text in (
            ("scoring_refused", metrics.refused, "Requests that could not join the waiting line, by the limit met."),
            ("scoring_expired", metrics.expired, "Requests whose time was over before their answers came, by limit."),
        ):
            family = CounterMetricFamily(name, text, labels=["limit"])
            for limit, count in sorted(counts.items()):
                family.add_metric([limit], count)
            yield family
        yield CounterMetricFamily("scoring_cancelled", "Requests whose client went away.", value=metrics.cancelled)
        yield CounterMetricFamily(
            "scoring_runs_stopped",
            "Frames that a scorer was told to give up, because nobody waited for them.",
            value=metrics.runs_stopped,
        )
        ended = CounterMetricFamily(
            "scoring_scorer_ends", "Scorers that ended and had to be replaced.", labels=["reason"]
        )
        for reason, count in metrics.scorer_ends.items():
            ended.add_metric([reason], count)
        yield ended
        yield metrics.duration_s.family(
            "scoring_request_duration_seconds", "From the last byte in to the first byte out."
        )
        yield metrics.batch_size.family("scoring_batch_size", "Requests that went to a scorer together.")
        for name, (text, value) in self._gauges.items():
            if not isinstance(value, Mapping):
                yield GaugeMetricFamily(name, text, value=value)
                continue
            by_provider = GaugeMetricFamily(name, text, labels=["provider"])
            for provider, number in value.items():
                by_provider.add_metric([provider], number)
            yield by_provider


def render(metrics: Metrics, gauges: Mapping[str, tuple[str, float | Mapping[str, float]]]) -> bytes:
    """Prometheus text. gauges: name to help text and value, or values by provider."""
    registry = CollectorRegistry()
    registry.register(_Collector(metrics, gauges))
    return generate_latest(registry)
