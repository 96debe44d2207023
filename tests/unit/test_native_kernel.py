"""The native kernel: its law of bits, and `equations` in float64, on every instruction set here."""

import os
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lstm_core.kernels import native
from lstm_core.network import Network
from lstm_core.pointwise import Masking
from lstm_core.runtime.base import ZERO_SLOT
from lstm_core.spec import ACTIVATIONS
from tests.unit.native_networks import (
    INSTRUCTION_SETS,
    SHAPES,
    assert_same_bits,
    each_set,
    network,
    plain,
    reference,
    runtime,
)

EXAMPLES = int(os.environ.get("LSTM_NATIVE_EXAMPLES", "100"))


def draw_rows(random, net, batch):
    """Return random states as sessions have them, and flags."""
    rows = random.uniform(-1, 1, (batch, net.state_size)).astype(np.float32)
    return rows, random.random((batch, len(net.recurrent))) > 0.5


def test_the_kernel_is_built():
    """Where the tests run there is a compiler."""
    assert native.OBSTACLE is None
    assert "portable" in INSTRUCTION_SETS


@each_set
@settings(deadline=None, max_examples=EXAMPLES)
@given(
    shape=SHAPES,
    batch=st.integers(1, 9),
    time=st.integers(1, 5),
    has_mask=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_sequences_equal_the_equations(instruction_set, shape, batch, time, has_mask, seed):
    """Outputs, states and whole predictions agree with float64."""
    net = network(**shape)
    random = np.random.default_rng(seed)
    inputs = random.uniform(-1, 1, (batch, time, net.input_size)).astype(np.float32)
    inputs[random.random((batch, time)) > 0.7] = 0
    mask = random.random((batch, time)) > 0.4 if has_mask else None
    run = runtime(net, batch, instruction_set)

    advanced = run.advance([ZERO_SLOT] * batch, list(range(1, batch + 1)), inputs, None, mask)

    outputs, rows = reference(net, inputs, mask)
    greatest = max(np.abs(outputs).max(), np.abs(rows).max())
    # What neither gates nor clips bound grows, and so do its errors.
    assume(greatest < 10)
    is_plain = not {"options", "before", "behind"} & shape.keys()
    bound = 1e-6 if is_plain else 2e-5
    np.testing.assert_allclose(advanced.outputs, outputs, rtol=bound, atol=bound)
    np.testing.assert_allclose(advanced.rows, rows, rtol=bound, atol=bound)
    np.testing.assert_allclose(run.predict(inputs, mask), outputs, rtol=bound, atol=bound)
    assert advanced.is_state_finite.all()
    assert advanced.is_output_finite.all()


@each_set
@settings(deadline=None, max_examples=EXAMPLES)
@given(
    shape=SHAPES,
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=20),
    has_mask=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_row_has_the_same_bits_alone_and_step_by_step(
    instruction_set, shape, lengths, has_mask, seed
):
    """Whatever shares its batch, in which order, from which slots, and however time is cut."""
    net = network(**shape)
    random = np.random.default_rng(seed)
    batch = len(lengths)
    inputs = random.uniform(-1, 1, (batch, max(lengths), net.input_size)).astype(np.float32)
    inputs[random.random(inputs.shape[:2]) > 0.7] = 0
    mask = random.random(inputs.shape[:2]) > 0.4 if has_mask else None
    rows, flags = draw_rows(random, net, batch)
    run = runtime(net, 2 * batch + 2, instruction_set)
    slots = random.permutation(np.arange(3, 2 * batch + 3))
    sources, targets = slots[:batch], slots[batch:]
    for slot, row, flag in zip(sources.tolist(), rows, flags, strict=True):
        run.write(slot, row, flag)

    together = run.advance(sources, targets, inputs, lengths, mask)

    for index, length in enumerate(lengths):
        source = int(sources[index])
        one = slice(index, index + 1)
        alone_mask = None if mask is None else mask[one, :length]
        alone = run.advance([source], [1], inputs[one, :length], [length], alone_mask)
        assert_same_bits(alone.outputs[0], together.outputs[index, :length])
        assert_same_bits(alone.rows[0], together.rows[index])
        assert_same_bits(alone.has_output[0], together.has_output[index])
        np.testing.assert_array_equal(together.outputs[index, length:], 0)
        assert_same_bits(together.rows[index], run.read(int(targets[index]))[0])
        assert_same_bits(together.has_output[index], run.read(int(targets[index]))[1])
        assert_same_bits(rows[index], run.read(source)[0])
        for t in range(length):
            now = slice(t, t + 1)
            step_mask = None if mask is None else mask[one, now]
            step = run.advance([source], [1 + t % 2], inputs[one, now], [1], step_mask)
            assert_same_bits(step.outputs[0, 0], together.outputs[index, t])
            source = 1 + t % 2
        assert_same_bits(run.read(source)[0], together.rows[index])


@settings(deadline=None, max_examples=EXAMPLES)
@given(shape=SHAPES, batch=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_instruction_sets_with_fma_give_the_same_bits(shape, batch, seed):
    """A session may move between machines of different vectors."""
    net = network(**shape)
    inputs = np.random.default_rng(seed).uniform(-3, 3, (batch, 4, net.input_size))
    targets = list(range(1, batch + 1))
    results = [
        runtime(net, batch, name).advance(
            [ZERO_SLOT] * batch, targets, inputs.astype(np.float32), None, None
        )
        for name in INSTRUCTION_SETS
        if name != "portable"
    ]
    # A NaN's sign is not a bit of the law.
    assume(all(np.isfinite(result.rows).all() for result in results))
    for other in results[1:]:
        assert_same_bits(results[0].rows, other.rows)
        assert_same_bits(results[0].outputs, other.outputs)


@each_set
def test_many_rows_and_steps_are_cut_without_a_trace(instruction_set):
    """More steps than one chunk takes, for few rows and for many, equal each row alone."""
    plain_layers = plain((5, 130, 33)).layers
    net = Network("n", 5, (Masking(name="m", mask_value=0.0), *plain_layers))
    random = np.random.default_rng(0)
    for batch, time in ((1, 700), (2, 400), (70, 20)):
        run = runtime(net, batch + 1, instruction_set)
        inputs = random.uniform(-1, 1, (batch, time, 5)).astype(np.float32)
        inputs[random.random((batch, time)) > 0.8] = 0
        together = run.advance([0] * batch, list(range(1, batch + 1)), inputs, None)
        for row in (0, batch // 2, batch - 1):
            source = ZERO_SLOT
            for t in range(time):
                target = 1 + t % 2
                step = run.advance([source], [target], inputs[row : row + 1, t : t + 1], None)
                assert_same_bits(step.outputs[0, 0], together.outputs[row, t])
                source = target


@pytest.mark.parametrize("num_threads", [2, 3, 8])
@each_set
def test_threads_leave_no_trace(instruction_set, num_threads):
    """Large batches of different lengths, masked, from slots in any order."""
    options = {"projection_size": 40, "use_peepholes": True, "activation": "softsign"}
    net = network(
        sizes=[30, 90, 64],
        use_bias=True,
        head="softmax",
        zero_output_for_mask=False,
        seed=1,
        options=options,
        behind=["normalization"],
    )
    random = np.random.default_rng(0)
    batch, time = 131, 7
    inputs = random.uniform(-1, 1, (batch, time, 30)).astype(np.float32)
    lengths = random.integers(1, time, batch, endpoint=True).tolist()
    mask = random.random((batch, time)) > 0.3
    sources = random.integers(0, 4, batch).tolist()
    targets = (random.permutation(batch) + 4).tolist()
    rows, flags = draw_rows(random, net, 4)
    results = []
    for threads in (1, num_threads):
        run = runtime(net, batch + 3, instruction_set, num_threads=threads)
        for slot in (1, 2, 3):
            run.write(slot, rows[slot], flags[slot])
        results.append((run, run.advance(sources, targets, inputs, lengths, mask)))

    (one, expected), (many, actual) = results
    for before, now in zip(expected, actual, strict=True):
        assert_same_bits(before, now)
    for slot in range(batch + 4):
        assert_same_bits(one.read(slot)[0], many.read(slot)[0])
        assert_same_bits(one.read(slot)[1], many.read(slot)[1])
    assert_same_bits(one.predict(inputs, mask), many.predict(inputs, mask))


@each_set
def test_a_last_share_of_few_rows_has_room_of_its_own(instruction_set):
    """It takes more time steps at once than the others, which must not leave its scratch."""
    net = plain((64, 256), head=None)
    inputs = np.random.default_rng(0).uniform(-1, 1, (7, 80, 64)).astype(np.float32)
    one, many = (
        runtime(net, 7, instruction_set, num_threads=num_threads).advance(
            [0] * 7, list(range(1, 8)), inputs, None
        )
        for num_threads in (1, 3)
    )
    assert_same_bits(one.outputs, many.outputs)
    assert_same_bits(one.rows, many.rows)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_large_batch_is_shared_out_over_threads():
    """There are more of them while it runs than with one alone."""
    net = plain((64, 256))
    inputs = np.ones((64, 50, 64), np.float32)

    def more_with(num_threads, num_calls):
        run = runtime(net, 65, INSTRUCTION_SETS[0], num_threads=num_threads)
        call = partial(run.advance, [0] * 64, list(range(1, 65)), inputs, None)
        return more_threads_during(call, num_calls)

    assert more_with(1, 2) == 0
    assert 1 <= more_with(4, 20) <= 3


def more_threads_during(call, num_calls):
    """Return how many threads more than before there are while something is called, once seen."""
    seen: list[int] = []
    is_over = threading.Event()

    def watch():
        while not is_over.wait(0.001):
            seen.append(num_threads())

    watcher = threading.Thread(target=watch)
    watcher.start()
    before = num_threads()
    for _ in range(num_calls):
        call()
        if max(seen, default=0) > before:
            break
    is_over.set()
    watcher.join(10)
    return max(seen, default=before) - before


def num_threads():
    """Return how many threads this process has."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@each_set
def test_what_is_not_finite_is_told_of_its_row_alone(instruction_set, bad):
    """A state or an output that is not finite is reported, with its neighbours as they are."""
    net = plain()
    run = runtime(net, 9, instruction_set)
    random = np.random.default_rng(0)
    inputs = random.uniform(-1, 1, (3, 1, 32)).astype(np.float32)
    clean = run.advance([0, 0, 0], [1, 2, 3], inputs, None)
    row = np.zeros(net.state_size, np.float32)
    row[48 + 5] = bad
    run.write(4, row, [True])

    advanced = run.advance([0, 4, 0], [5, 6, 7], inputs, None)

    assert [True, False, True] == advanced.is_state_finite.tolist()
    assert_same_bits(clean.rows[[0, 2]], advanced.rows[[0, 2]])
    assert_same_bits(clean.outputs[[0, 2]], advanced.outputs[[0, 2]])
    # What one call told is not overwritten by the next.
    run.advance([0, 0, 0], [5, 6, 7], inputs, None)
    assert [True, False, True] == advanced.is_state_finite.tolist()
    assert clean.is_state_finite.all()


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@each_set
def test_every_activation_is_its_own(instruction_set, activation):
    """Of the gates and of the cell, one after the other."""
    for options in ({"activation": activation}, {"recurrent_activation": activation}):
        net = network(
            sizes=[5, 19],
            use_bias=True,
            head=None,
            zero_output_for_mask=False,
            seed=2,
            options=options,
        )
        inputs = np.random.default_rng(0).uniform(-1, 1, (2, 3, 5)).astype(np.float32)

        advanced = runtime(net, 2, instruction_set).advance([0, 0], [1, 2], inputs, None)

        outputs, rows = reference(net, inputs)
        np.testing.assert_allclose(advanced.outputs, outputs, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(advanced.rows, rows, rtol=1e-5, atol=1e-6)
