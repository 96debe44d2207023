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
        num_inferences: Rows of the batches that were answered; a request of a sequence is one.
        succeeded_s: The requests that were answered, each from when it was read to when its answer
            was there, in seconds.
        failed_s: Likewise those that failed.
        queue_s: Of those answered, how long each waited for its turn.
        compute_s: Of those answered, how long each took from there: kernel and commit.
        predictions_s: The batches without a sequence that were answered, by their rows.
        last_at: When the last one was answered, in seconds since 1970; 0: never.
    """

    num_inferences: int = 0
    succeeded_s: Tally = field(default_factory=Tally)
    failed_s: Tally = field(default_factory=Tally)
    queue_s: Tally = field(default_factory=Tally)
    compute_s: Tally = field(default_factory=Tally)
    predictions_s: defaultdict[int, Tally] = field(default_factory=lambda: defaultdict(Tally))
    last_at: float = 0.0

    def note_steps(self, queue_s: float, compute_s: float) -> None:
        """Count a request of a sequence that was answered."""
        self._note(1, queue_s, compute_s)

    def note_prediction(self, num_rows: int, seconds: float) -> None:
        """Count a batch without a sequence that was answered after so long."""
        self._note(num_rows, 0.0, seconds)
        self.predictions_s[num_rows].add(seconds)

    def note_failure(self, seconds: float) -> None:
        """Count a request that failed after so long."""
        self.failed_s.add(seconds)

    def _note(self, num_rows: int, queue_s: float, compute_s: float) -> None:
        self.num_inferences += num_rows
        self.succeeded_s.add(queue_s + compute_s)
        self.queue_s.add(queue_s)
        self.compute_s.add(compute_s)
        self.last_at = time.time()
