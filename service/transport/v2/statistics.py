"""What was asked of a model by the Open Inference Protocol, counted. Knows no transport."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field

from service.histograms import Tally


@dataclass(slots=True)
class Statistics:
    """What came of the requests to one model, by any transport. Numbers only grow.

    Attributes:
        num_succeeded: Requests that were answered.
        num_inferences: Rows of their batches; a request of a sequence is one.
        queue_s: How long they waited for their turns, in seconds, all together.
        compute_s: How long they took from there, kernel and commit.
        failed_s: Requests that failed, with how long they took.
        predictions_s: The batches without a sequence that were answered, by their rows.
        last_at: When the last one was answered, in seconds since 1970; 0: never.
    """

    num_succeeded: int = 0
    num_inferences: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0
    failed_s: Tally = field(default_factory=Tally)
    predictions_s: defaultdict[int, Tally] = field(default_factory=lambda: defaultdict(Tally))
    last_at: float = 0.0

    def note_steps(self, queue_s: float, compute_s: float) -> None:
        """Count a request of a sequence that was answered."""
        self.num_succeeded += 1
        self.num_inferences += 1
        self.queue_s += queue_s
        self.compute_s += compute_s
        self.last_at = time.time()

    def note_prediction(self, num_rows: int, seconds: float) -> None:
        """Count a batch without a sequence that was answered after so long."""
        self.num_succeeded += 1
        self.num_inferences += num_rows
        self.compute_s += seconds
        self.predictions_s[num_rows].add(seconds)
        self.last_at = time.time()

    def note_failure(self, seconds: float) -> None:
        """Count a request that failed after so long."""
        self.failed_s.add(seconds)
