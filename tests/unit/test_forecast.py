"""Forecasts of the runtime: what hand-fed outputs give, by `equations` in float64."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_core import equations
from lstm_core.errors import NotStreamableError
from lstm_core.network import Network, Recurrent
from lstm_core.pointwise import Activation, Dense, Masking
from lstm_core.runtime.base import ZERO_SLOT
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.runtime.forecast import HELD
from lstm_core.spec import LSTMSpec
from lstm_core.weights import initialize
from tests.unit.native_networks import assert_same_bits, each_set, plain, runtime

TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


def lstm(name, *, input_size, units, seed, **options):
    """Return an LSTM with random weights."""
    spec = LSTMSpec(input_size=input_size, units=units)
    return Recurrent(name=name, spec=spec, weights=initialize(spec, seed), **options)


def network(num_outputs=3, *, first=(), last=(), seed=0, **options):
    """Return two LSTMs with a head, 3 inputs."""
    random = np.random.default_rng(seed)
    head = Dense(
        name="head",
        kernel=random.standard_normal((5, num_outputs)).astype(np.float32),
        bias=random.standard_normal(num_outputs).astype(np.float32),
    )
    layers = (
        *first,
        lstm("one", input_size=3, units=4, seed=seed),
        lstm("two", input_size=4, units=5, seed=seed + 1, **options),
        head,
        *last,
    )
    return Network("net", 3, layers)


def by_hand(net, past, first_input, feedback, num_steps):
    """Return the outputs of the steps behind `past` in float64, each fed by the one before."""
    one, two, head = net.layers
    states = [np.zeros((1, size)) for size in (4, 4, 5, 5)]

    def step(x):
        states[0], states[1] = equations.step(one.spec, one.weights, x, h=states[0], c=states[1])
        y = states[0]
        states[2], states[3] = equations.step(two.spec, two.weights, y, h=states[2], c=states[3])
        return states[2] @ head.kernel.astype(np.float64) + head.bias

    outputs = np.zeros((1, head.kernel.shape[1]))
    for values in past:
        outputs = step(values[None].astype(np.float64))
    x = np.zeros((1, 3))
    found = []
    for index in range(num_steps):
        if index == 0 and first_input is not None:
            x = first_input[None].astype(np.float64)
        else:
            x = np.array(
                [[x[0, i] if f == HELD else outputs[0, f] for i, f in enumerate(feedback)]]
            )
        outputs = step(x)
        found.append(outputs[0])
    return np.array(found)


def state_after(runtime, past):
    """Return copies of the row and the flags of a session that has taken `past`."""
    slot = runtime.allocate()
    runtime.advance([ZERO_SLOT], [slot], past[None], [len(past)])
    return runtime.read(slot)


@settings(deadline=None, max_examples=60)
@given(
    num_outputs=st.integers(1, 4),
    num_past=st.integers(0, 4),
    num_steps=st.integers(1, 6),
    has_first=st.booleans(),
    feedback=st.lists(st.integers(HELD, 3), min_size=3, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_forecast_equals_outputs_fed_by_hand(
    num_outputs, num_past, num_steps, has_first, feedback, seed
):
    """With any mapping, from any state, with a first input or the last output's."""
    net = network(num_outputs, seed=seed)
    random = np.random.default_rng(seed)
    past = random.uniform(-1, 1, (num_past, 3)).astype(np.float32)
    first = random.uniform(-1, 1, 3).astype(np.float32) if has_first else None
    mapping = np.array([min(index, num_outputs - 1) for index in feedback])
    runtime = CpuRuntime(net, 4)
    if num_past:
        row, has_output = state_after(runtime, past)
    else:
        row, has_output = runtime.read(ZERO_SLOT)
    if first is None and (not num_past or HELD in mapping):
        with pytest.raises(ValueError, match="first input is missing"):
            runtime.forecast(row, has_output, first, mapping, num_steps)
        return

    outputs = list(runtime.forecast(row, has_output, first, mapping, num_steps))

    assert {np.dtype(np.float32)} == {one.dtype for one in outputs}
    np.testing.assert_allclose(outputs, by_hand(net, past, first, mapping, num_steps), **TOLERANCE)


def test_a_forecast_leaves_the_arena_alone_and_its_row_where_it_came_to():
    """The row that is given is the state after the steps that were asked for."""
    net = network()
    runtime = CpuRuntime(net, 4)
    past = np.random.default_rng(0).uniform(-1, 1, (3, 3)).astype(np.float32)
    slot = runtime.allocate()
    runtime.advance([ZERO_SLOT], [slot], past[None], [3])
    before = [part.tobytes() for part in runtime.read(slot)]
    row, has_output = runtime.read(slot)

    steps = runtime.forecast(row, has_output, None, np.arange(3), 5)
    outputs = [next(steps) for _ in range(2)]

    assert before == [part.tobytes() for part in runtime.read(slot)]
    first, second = by_hand(net, past[:2], past[2], [0, 1, 2], 2)
    np.testing.assert_allclose(outputs[0], second, **TOLERANCE)
    then = runtime.allocate()
    inputs = np.array([first, second], np.float32)
    expected = runtime.advance([slot], [then], inputs[None], [2]).rows[0]
    np.testing.assert_allclose(row, expected, **TOLERANCE)


def test_forecasts_may_take_turns():
    """What one does between two steps of another changes nothing."""
    net = network()
    runtime = CpuRuntime(net, 4)
    random = np.random.default_rng(0)
    pasts = random.uniform(-1, 1, (2, 3, 3)).astype(np.float32)
    alone = []
    for past in pasts:
        row, has_output = state_after(runtime, past)
        alone.append(list(runtime.forecast(row, has_output, None, np.arange(3), 4)))
    states = [state_after(runtime, past) for past in pasts]
    running = [runtime.forecast(row, flags, None, np.arange(3), 4) for row, flags in states]
    turns = list(zip(*running, strict=True))
    np.testing.assert_array_equal(alone, np.array(turns).swapaxes(0, 1))


def test_an_activation_behind_the_head_is_part_of_the_last_output():
    """It is computed again from the last recurrent layer's h."""
    relu = network(last=(Activation(name="relu", function="relu"),))
    past = np.random.default_rng(0).uniform(-1, 1, (3, 3)).astype(np.float32)
    runtime = CpuRuntime(relu, 4)
    slot = runtime.allocate()
    last = runtime.advance([ZERO_SLOT], [slot], past[None], [3]).outputs[0, -1]
    row, has_output = runtime.read(slot)
    fed = list(runtime.forecast(row, has_output, None, np.arange(3), 1))
    row, has_output = runtime.read(slot)
    given = list(runtime.forecast(row, has_output, last, np.arange(3), 1))
    np.testing.assert_allclose(fed, given, **TOLERANCE)
    assert (last >= 0).all()
    assert (last == 0).any()


@each_set
def test_a_forecast_has_the_bits_of_steps(instruction_set):
    """On the native kernel, from the output on that the state had last."""
    net = plain((5, 40), head="tanh")
    run = runtime(net, 4, instruction_set)
    past = np.random.default_rng(0).uniform(-1, 1, (1, 3, 5)).astype(np.float32)
    outputs = run.advance([ZERO_SLOT], [1], past, None).outputs[:, -1:]
    row, has_output = run.read(1)

    forecast = run.forecast(row, has_output, None, np.arange(5), 3)

    for t, actual in enumerate(forecast):
        outputs = run.advance([1 + t], [2 + t], outputs, None).outputs
        assert_same_bits(outputs[0, 0], actual)


def test_a_fed_back_step_may_be_masked():
    """As the same inputs would be in a sequence: the state stays, the output comes again."""
    kernel = np.zeros((5, 3), np.float32)
    head = Dense(name="head", kernel=kernel, bias=np.full(3, 7, np.float32))
    net = Network(
        "net",
        3,
        (Masking(name="m", mask_value=7.0), lstm("one", input_size=3, units=5, seed=0), head),
    )
    runtime = CpuRuntime(net, 4)
    past = np.ones((1, 3), np.float32)
    row, has_output = state_after(runtime, past)
    before = row.copy()
    outputs = list(runtime.forecast(row, has_output, None, np.arange(3), 3))
    np.testing.assert_array_equal(np.full((3, 3), 7, np.float32), outputs)
    np.testing.assert_array_equal(before, row)


@pytest.mark.parametrize("first_input", [None, np.zeros(3, np.float32)])
def test_a_network_that_cannot_be_stepped_has_no_forecast(first_input):
    """It says so before anything is computed, and before a first input is missed."""
    net = network(go_backwards=True)
    runtime = CpuRuntime(net, 1)
    row, has_output = np.zeros(18, np.float32), np.zeros(2, np.bool_)
    with pytest.raises(NotStreamableError):
        runtime.forecast(row, has_output, first_input, np.arange(3), 1)
