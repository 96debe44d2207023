"""Prometheus metrics: the engines' counters read at each scrape, and the requests' durations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from service.engine import Engine
from service.histograms import Histogram, merged
from service.stores.watched import WatchedStore
from service.stores.write_behind import WriteBehindStore

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_COUNTERS: dict[str, tuple[str, Callable[[Engine], float]]] = {
    "lstm_steps": ("Time steps computed.", lambda e: e.stats.num_steps),
    "lstm_ticks": ("Ticks of the engine.", lambda e: e.stats.num_ticks),
    "lstm_batches": ("Kernel calls.", lambda e: e.stats.num_batches),
    "lstm_batch_rows": ("Sessions in kernel calls.", lambda e: e.stats.num_batch_rows),
    "lstm_kernel_seconds": ("Time spent in the kernels.", lambda e: e.kernel_s),
    "lstm_replayed": ("Answers given to a request again.", lambda e: e.stats.num_replayed),
    "lstm_conflicts": ("Requests at another position.", lambda e: e.stats.num_conflicts),
    "lstm_rejected": ("Requests refused by a full queue.", lambda e: e.stats.num_rejected),
    "lstm_cancelled": ("Requests whose caller had gone.", lambda e: e.stats.num_cancelled),
    "lstm_deadline_misses": (
        "Requests not begun, nor applied, within their own timeout.",
        lambda e: e.stats.num_expired,
    ),
    "lstm_graph_traces": ("Graphs made by TensorFlow.", lambda e: e.num_traces),
    "lstm_internal_errors": ("Faults of ours.", lambda e: e.stats.num_internal_errors),
}

_GAUGES: dict[str, tuple[str, Callable[[Engine], float]]] = {
    "lstm_pending_requests": ("Requests waiting or running.", lambda e: e.num_pending),
    "lstm_live_sessions": ("Sessions whose state is at hand.", lambda e: e.num_live),
    "lstm_arena_rows": ("Rows for states at hand.", lambda e: e.arena.num_rows),
    "lstm_arena_rows_used": (
        "Rows that hold a state: sessions at hand, and steps on their way.",
        lambda e: e.arena.num_rows_used,
    ),
}

_HISTOGRAMS: dict[str, tuple[str, Callable[[Engine], Histogram]]] = {
    "lstm_batch_size": ("Sessions in a kernel call.", lambda e: e.stats.batch_sizes),
    "lstm_kernel_call_seconds": (
        "Time of a kernel call, its wait for the kernel thread included.",
        lambda e: e.kernel_call_s,
    ),
    "lstm_queue_wait_seconds": (
        "Wait of the first request that begins in a tick, the longest: once a tick.",
        lambda e: e.stats.waits_s,
    ),
}
"""All are summed over the versions of a model; counters and histograms over those too that were
dropped, so that they never fall."""


class Telemetry:
    """The metrics of one process."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        store: WatchedStore,
        write_behind: WriteBehindStore | None = None,
    ) -> None:
        """Register what there is to tell.

        Args:
            engines: By the model's name.
            store: Where sessions are kept.
            write_behind: What goes ahead of it, in the mode `async`.
        """
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_EngineCollector(engines))
        self._registry.register(_StoreCollector(store, write_behind))
        self._trips = Histogram(_SECONDS)
        self._requests: dict[tuple[str, int], Histogram] = {}
        self._calls: dict[tuple[str, str], Histogram] = {}
        self._refusals: dict[int, int] = {}
        self._registry.register(
            _RequestCollector(self._requests, self._refusals, self._calls, self._trips)
        )

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Note an answered HTTP request.

        Args:
            route: Its template, not its path: there are few of them.
            status: Of the answer.
            seconds: What it took.
        """
        histogram = self._requests.get((route, status))
        if histogram is None:
            histogram = self._requests[route, status] = Histogram(_SECONDS)
        histogram.observe(seconds)

    def note_refusal(self, status: int) -> None:
        """Note a connection that was ended because what came over it is no whole request.

        Args:
            status: Of the answer.
        """
        self._refusals[status] = self._refusals.get(status, 0) + 1

    def observe_call(self, method: str, code: str, seconds: float) -> None:
        """Note an answered call of gRPC, or an answer in a stream.

        Args:
            method: Its name.
            code: The name of its status code.
            seconds: What it took.
        """
        histogram = self._calls.get((method, code))
        if histogram is None:
            histogram = self._calls[method, code] = Histogram(_SECONDS)
        histogram.observe(seconds)

    def observe_trip(self, seconds: float) -> None:
        """Note a trip to the store.

        Args:
            seconds: What it took.
        """
        self._trips.observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """Return the metrics as text, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _RequestCollector(Collector):
    """What prometheus_client's own histograms would tell; counting in those costs a step 2 us."""

    def __init__(
        self,
        requests: Mapping[tuple[str, int], Histogram],
        refusals: Mapping[int, int],
        calls: Mapping[tuple[str, str], Histogram],
        trips: Histogram,
    ) -> None:
        self._requests = requests
        self._refusals = refusals
        self._calls = calls
        self._trips = trips

    def collect(self) -> Iterable[Metric]:
        requests = HistogramMetricFamily(
            "lstm_http_request_seconds",
            "Time from a request's last byte to its answer.",
            labels=["route", "status"],
        )
        for (route, status), histogram in self._requests.items():
            requests.add_metric(
                [route, str(status)], histogram.cumulative(), sum_value=histogram.total
            )
        yield requests
        refusals = CounterMetricFamily(
            "lstm_http_refused_connections",
            "Connections ended because what came is no whole request: no HTTP, too slow, too long.",
            labels=["status"],
        )
        for status, number in self._refusals.items():
            refusals.add_metric([str(status)], number)
        yield refusals
        calls = HistogramMetricFamily(
            "lstm_grpc_request_seconds",
            "Time from a call of gRPC, or a message of its stream, to the answer.",
            labels=["method", "code"],
        )
        for (method, code), histogram in self._calls.items():
            calls.add_metric([method, code], histogram.cumulative(), sum_value=histogram.total)
        yield calls
        yield HistogramMetricFamily(
            "lstm_store_trip_seconds",
            "Time of a trip to the session store.",
            buckets=self._trips.cumulative(),
            sum_value=self._trips.total,
        )


class _EngineCollector(Collector):
    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        for name, (documentation, read) in _COUNTERS.items():
            counters = CounterMetricFamily(name, documentation, labels=["model"])
            for model, engine in self._engines.items():
                counters.add_metric([model], sum(float(read(e)) for e in engine.all_versions))
            yield counters
        for name, (documentation, read) in _GAUGES.items():
            gauges = GaugeMetricFamily(name, documentation, labels=["model"])
            for model, engine in self._engines.items():
                now = (engine, *engine.earlier)
                gauges.add_metric([model], sum(float(read(e)) for e in now))
            yield gauges
        for name, (documentation, find) in _HISTOGRAMS.items():
            family = HistogramMetricFamily(name, documentation, labels=["model"])
            for model, engine in self._engines.items():
                every = merged([find(e) for e in engine.all_versions])
                family.add_metric([model], every.cumulative(), sum_value=every.total)
            yield family
        runtimes = GaugeMetricFamily(
            "lstm_runtime_info",
            "What computes a model, and why.",
            labels=["model", "runtime", "reason"],
        )
        for model, engine in self._engines.items():
            signature = engine.signature
            runtimes.add_metric([model, signature.runtime, signature.runtime_reason], 1.0)
        yield runtimes
        ready = GaugeMetricFamily("lstm_ready", "Whether requests are taken.", labels=["model"])
        for model, engine in self._engines.items():
            ready.add_metric([model], float(engine.is_ready))
        yield ready


class _StoreCollector(Collector):
    def __init__(self, store: WatchedStore, write_behind: WriteBehindStore | None) -> None:
        self._store = store
        self._write_behind = write_behind

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "lstm_store_ready",
            "Whether the session store takes commits.",
            value=float(self._store.error is None),
        )
        yield CounterMetricFamily(
            "lstm_store_errors",
            "Calls to the session store that failed.",
            value=float(self._store.num_errors),
        )
        ahead = self._write_behind
        yield GaugeMetricFamily(
            "lstm_unflushed_steps",
            "Time steps that were answered and not committed yet; none in the mode sync.",
            value=0.0 if ahead is None else float(ahead.num_unflushed_steps),
        )
        yield GaugeMetricFamily(
            "lstm_unflushed_seconds",
            "How long the oldest of them has waited for its commit.",
            value=0.0 if ahead is None else ahead.unflushed_s,
        )
        yield CounterMetricFamily(
            "lstm_lost_updates",
            "Sessions whose answered steps met another writer's.",
            value=0.0 if ahead is None else float(ahead.num_lost),
        )
