"""What Prometheus is told of an engine's work."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from service.errors import DeadlineExceededError
from service.limits import EngineLimits
from service.stores.memory import MemoryStore
from service.stores.watched import WatchedStore
from service.telemetry import Telemetry
from tests.unit.engines import inputs, make_engine, step


def read(telemetry):
    """Return each sample's value by its name and, of a bucket, its bound."""
    text = telemetry.render()[0].decode()
    return {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("model") == "m"
    }


async def test_batches_waits_kernel_calls_and_rows_are_told():
    """Three steps in one tick are one batch, one wait and one kernel call."""
    store = MemoryStore(max_sessions=10)
    engine = make_engine(store=store, limits=EngineLimits(arena_rows=30, max_pending=10))
    telemetry = Telemetry({"m": engine}, WatchedStore(store))
    (x,) = inputs(1)
    for name in ("alice", "bob", "carol"):
        engine.submit(step(x, name), lambda _: None)
    await engine.start()
    await engine.drain()

    told = read(telemetry)

    assert 3 == told["lstm_batch_size_sum", None]
    assert (0, 1) == (told["lstm_batch_size_bucket", "2.0"], told["lstm_batch_size_bucket", "4.0"])
    assert 1 == told["lstm_queue_wait_seconds_count", None]
    assert 1 == told["lstm_kernel_call_seconds_count", None]
    assert told["lstm_kernel_call_seconds_sum", None] == told["lstm_kernel_seconds_total", None] > 0
    assert (30, 3) == (told["lstm_arena_rows", None], told["lstm_arena_rows_used", None])


def test_connections_that_are_ended_for_no_request_are_counted_by_status():
    """Beside the requests, whose routes they do not have."""
    telemetry = Telemetry({}, WatchedStore(MemoryStore(max_sessions=1)))
    for status in (400, 431, 400):
        telemetry.note_refusal(status)
    lines = telemetry.render()[0].decode().splitlines()
    assert 'lstm_http_refused_connections_total{status="400"} 2.0' in lines
    assert 'lstm_http_refused_connections_total{status="431"} 1.0' in lines


async def test_missed_deadlines_are_counted():
    """A request whose turn does not come within its timeout."""
    store = MemoryStore(max_sessions=10)
    engine = make_engine(store=store)
    telemetry = Telemetry({"m": engine}, WatchedStore(store))
    answers: list[Any] = []
    (x,) = inputs(1)
    engine.submit(step(x), answers.append, timeout_s=0.0)
    await engine.drain()

    assert [DeadlineExceededError] == [type(answer) for answer in answers]
    assert 1 == read(telemetry)["lstm_deadline_misses_total", None]
