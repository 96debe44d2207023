"""What an engine may take on. Knows nothing of how it is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What an engine may take on.

    Attributes:
        max_batch_rows: Most sessions in one tick.
        max_pending: Most requests waiting or running; more get `QueueFullError`.
        chunk_steps: Most time steps of one request in one tick, but for `chunk_us`; and most steps
            of one session that run in one piece.
        chunk_us: As many more time steps of long requests are taken in one tick as are expected to
            take no longer than this; what comes meanwhile waits as long.
        arena_rows: Sessions whose rows are kept at hand, at least `3 * max_pending`: a request may
            hold its session's row, the one that it has come to, and the one that it goes to.
        inline_us: A batch that is expected to take longer runs on the kernel thread.
        max_wait_us: How long a tick waits for company when work comes; 0 is best nearly always.
    """

    max_batch_rows: int = 1024
    max_pending: int = 4096
    chunk_steps: int = 16
    chunk_us: float = 300.0
    arena_rows: int = 65_536
    inline_us: float = 1_000.0
    max_wait_us: int = 0

    def __post_init__(self) -> None:
        if self.arena_rows < 3 * self.max_pending:
            raise ValueError(
                f"arena_rows is {self.arena_rows}, but must be at least three times max_pending,"
                f" {3 * self.max_pending}"
            )
