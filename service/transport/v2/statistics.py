"""What was asked of a model by the Open Inference Protocol, counted. Knows no transport."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Durations:
    """How many times something was done, and how long it took in all.

    Attributes:
        count: How many times.
        ns: In nanoseconds, all times together.
    """

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.ns += int(seconds * 1e9)


@dataclass(slots=True)
class Statistics:
    """What came of the requests to one model, by either transport. Numbers only grow.

    Attributes:
        success: Requests that were answered, from when they were read to when their answer was
            there.
        fail: Likewise those that failed.
        queue: Of those answered, the time until their turn.
        compute: Of those answered, the time from their turn to their answer: kernel and commit.
        num_inferences: Rows of the batches that were answered; a request of a sequence is one.
        num_predictions: Batches without a sequence among the requests answered.
        last_inference_ms: When the last one was answered, in milliseconds since 1970; 0: never.
    """

    success: Durations = field(default_factory=Durations)
    fail: Durations = field(default_factory=Durations)
    queue: Durations = field(default_factory=Durations)
    compute: Durations = field(default_factory=Durations)
    num_inferences: int = 0
    num_predictions: int = 0
    last_inference_ms: int = 0
