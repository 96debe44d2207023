"""Which jobs share a kernel call."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from service.batching import plan


@dataclass(eq=False)
class Steps:
    """A job with time steps to take."""

    num_left: int
    mask: object | None = None


def test_single_steps_go_together_and_first():
    """Steps share one batch, and no long job comes before them."""
    long, one, two = Steps(500), Steps(1), Steps(1)

    batches = plan([long, one, two], chunk_steps=16)

    assert [[one, two], [long]] == [batch.jobs for batch in batches]
    assert [[1, 1], [16]] == [batch.lengths for batch in batches]


def test_masked_jobs_go_apart():
    """A row without a mask does not pay for one with."""
    plain, masked = Steps(4), Steps(4, mask=[True])

    assert [[plain], [masked]] == [batch.jobs for batch in plan([plain, masked], 16)]


@given(
    st.lists(st.builds(Steps, st.integers(1, 1000), st.sampled_from([None, [True]])), max_size=60),
    st.integers(1, 64),
)
def test_every_job_is_planned_once_and_padding_is_bounded(jobs, chunk_steps):
    """Each job runs once, within the chunk, and at least half of each batch is work."""
    batches = plan(jobs, chunk_steps)

    assert sorted(map(id, jobs)) == sorted(id(job) for batch in batches for job in batch.jobs)
    for batch in batches:
        for job, length in zip(batch.jobs, batch.lengths, strict=True):
            assert min(job.num_left, chunk_steps) == length
        assert max(batch.lengths) <= 2 * min(batch.lengths)
