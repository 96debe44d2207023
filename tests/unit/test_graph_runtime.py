"""Graphs of layers on both CPU kernels: the equations in float64, and the laws of `advance`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lstm_core.errors import InputRangeError, MissingFirstInputError, SpecError
from lstm_core.kernels import native
from lstm_core.merge import Merge
from lstm_core.network import Network
from lstm_core.pointwise import Dense
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.runtime.forecast import HELD
from lstm_core.wiring import Wiring
from tests.unit.graph_networks import (
    INPUT_SIZE,
    STEPS,
    UNITS,
    Building,
    expected,
    graph,
    inputs_of,
)

TOLERANCE: dict[str, Any] = {"rtol": 5e-6, "atol": 5e-6}
EXAMPLES = settings(deadline=None, max_examples=15)

needs_native = pytest.mark.skipif(
    native.OBSTACLE is not None, reason=f"the native kernel: {native.OBSTACLE}"
)
each_kernel = pytest.mark.parametrize("kernel", [None, ()], ids=["native", "numpy"])

RESIDUAL = [("lstm", 0, 0), ("add", 0, 1), ("dense", 0, 0), ("lstm", 1, 0), ("final", 3, 0)]


@each_kernel
@EXAMPLES
@given(
    steps=STEPS,
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    has_mask=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@example(steps=RESIDUAL, lengths=[3, 1, 5], has_mask=True, seed=1)
def test_any_graph_equals_the_equations(kernel, steps, lengths, has_mask, seed):
    """Ragged rows with masks, step after step and at once: the numbers of float64."""
    network = graph(steps, seed)
    batch, time = len(lengths), max(lengths)
    inputs = inputs_of(batch, time, seed)
    mask = np.random.default_rng(seed).random((batch, time)) > 0.3 if has_mask else None
    runtime = CpuRuntime(network, 2 * batch, instruction_sets=kernel)
    live = np.ones((batch, time), np.bool_) if mask is None else mask
    exact = expected(network, inputs, live)

    advanced = runtime.advance([0] * batch, range(1, batch + 1), inputs, lengths, mask)
    predicted = runtime.predict(inputs, mask)

    for row, length in enumerate(lengths):
        np.testing.assert_allclose(advanced.outputs[row, :length], exact[row, :length], **TOLERANCE)
        np.testing.assert_array_equal(advanced.outputs[row, length:], 0)
    whole = exact if network.returns_sequences else exact[:, -1]
    np.testing.assert_allclose(predicted, whole, **TOLERANCE)


@needs_native
@EXAMPLES
@given(
    steps=STEPS,
    time=st.integers(1, 6),
    cut=st.integers(1, 5),
    has_mask=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@example(steps=RESIDUAL, time=6, cut=2, has_mask=True, seed=1)
def test_bits_do_not_depend_on_pieces_and_neighbours(steps, time, cut, has_mask, seed):
    """Pieces of a sequence, and a row alone, give the bits of the whole one in a batch."""
    network, batch = graph(steps, seed), 3
    inputs = inputs_of(batch, time, seed)
    mask = np.random.default_rng(seed).random((batch, time)) > 0.3 if has_mask else None
    runtime = CpuRuntime(network, 9)
    assert {"native"} == {d.kernel for d in runtime.dispatches.values()}

    whole = runtime.advance([0] * batch, [1, 2, 3], inputs, None, mask)

    for row in range(batch):
        slot, pieces = 0, []
        for begin in range(0, time, cut):
            part = slice(begin, begin + cut)
            target = 4 + (begin // cut) % 2
            live = None if mask is None else mask[row : row + 1, part]
            piece = runtime.advance([slot], [target], inputs[row : row + 1, part], None, live)
            pieces.append(piece.outputs[0])
            slot = target
        np.testing.assert_array_equal(np.concatenate(pieces), whole.outputs[row])
        for place in (slot, 1 + row):
            np.testing.assert_array_equal(runtime.read(place)[0], whole.rows[row])
            np.testing.assert_array_equal(runtime.read(place)[1], whole.has_output[row])
    if network.returns_sequences:
        np.testing.assert_array_equal(runtime.predict(inputs, mask), whole.outputs)


@each_kernel
def test_states_lie_in_a_row_in_the_layers_order(kernel):
    """Whatever runs at once: a state goes out and in by `read` and `write`."""
    # Two stacks side by side, whose second layers come last: neither is one part of a row.
    steps = [("lstm", 0, 0), ("lstm", 1, 0), ("lstm", 1, 0), ("lstm", 1, 0), ("add", 0, 1)]
    network = graph(steps, 2)
    runtime = CpuRuntime(network, 4, instruction_sets=kernel)
    inputs = inputs_of(1, 5, 0)
    runtime.advance([0], [1], inputs[:, :3], None)
    row, flags = runtime.read(1)
    assert row.shape == (2 * UNITS * network.num_recurrent,)

    runtime.write(2, row, flags)
    moved = runtime.advance([2], [3], inputs[:, 3:], None)

    whole = expected(network, inputs, np.ones((1, 5), np.bool_))
    np.testing.assert_allclose(moved.outputs, whole[:, 3:], **TOLERANCE)
    first = network.recurrent[0]
    alone = Network("alone", INPUT_SIZE, network.layers[:3], wiring=Wiring(
        inputs=network.wiring.inputs, takes=network.wiring.takes[:3], outputs=(("h", 4),)
    ))  # fmt: skip
    h = CpuRuntime(alone, 1, instruction_sets=kernel).predict(inputs[:, :3])[0, -1]
    assert network.state_layout[0].layer == first.name
    np.testing.assert_allclose(row[:UNITS], h, **TOLERANCE)
    if kernel is None:
        with pytest.raises(ValueError, match="a row has"):
            runtime.write(2, row[1:], flags)


def feeding(*, is_skipped: bool) -> Network:
    """Return a residual network with as many outputs as inputs, which may go past its LSTMs."""
    building = Building(3)
    first = building.lstm(0)
    second = building.lstm(first)
    added = building.put(Merge(name="add", operation="add"), first, second)
    head = Dense(name="head", kernel=building.draw(UNITS, 3), bias=None)
    out = building.put(head, added)
    if is_skipped:
        out = building.put(Merge(name="skip", operation="add"), out, 0)
    # `Building` has a second input, which is not used here.
    takes = tuple(tuple(v - (v > 1) for v in taken) for taken in building.takes)
    wiring = Wiring(inputs=(("x", 3),), takes=takes, outputs=(("y", out - 1),))
    return Network("feeding", 3, tuple(building.layers), wiring=wiring)


@each_kernel
def test_a_forecast_goes_on_from_the_state(kernel):
    """From the last output where the states tell it; else it needs the first input."""
    inputs = np.random.default_rng(0).uniform(-1, 1, (1, 4, 3)).astype(np.float32)
    feedback = np.arange(3)
    for is_skipped in (False, True):
        runtime = CpuRuntime(feeding(is_skipped=is_skipped), 4, instruction_sets=kernel)
        last = runtime.advance([0], [1], inputs, None).outputs[0, -1]
        singly, slot = [], 1
        for _ in range(3):
            target = 3 - slot
            last = runtime.advance([slot], [target], last[None, None], None).outputs[0, 0]
            singly.append(last)
            slot = target
        runtime.advance([0], [3], inputs, None)
        row, flags = runtime.read(3)
        start = runtime.advance([0], [4], inputs, None).outputs[0, -1]
        first = start if is_skipped else None

        told = list(runtime.forecast(row, flags, first, feedback, 3))

        np.testing.assert_array_equal(np.stack(told), np.stack(singly))
        np.testing.assert_array_equal(row, runtime.read(slot)[0])
        wanted = feedback if is_skipped else np.array([0, 1, HELD])
        with pytest.raises(MissingFirstInputError):
            next(runtime.forecast(*runtime.read(3), None, wanted, 3))
        with pytest.raises(MissingFirstInputError):
            next(runtime.forecast(*runtime.read(0), None, feedback, 3))


@each_kernel
def test_words_among_several_inputs_are_looked_at(kernel):
    """What is no word is refused under the input's name, and nothing is done."""
    runtime = CpuRuntime(graph(RESIDUAL, 0), 2, instruction_sets=kernel)
    inputs = inputs_of(2, 3, 0)
    for bad in (6, -1, 0.5, np.nan):
        inputs[1, 1, -1] = bad
        for call in (
            lambda: runtime.advance([0, 0], [1, 2], inputs, None),
            lambda: runtime.predict(inputs),
        ):
            with pytest.raises(InputRangeError, match="from 0 to 5 for the input words"):
                call()
    assert not runtime.read(1)[0].any()


def wired(*, inputs=(("x", 3),), takes=((0,), (1,), (1, 2)), outputs=(("y", 3),), merge="add"):
    """Return an LSTM, a layer behind it and a merge, wired in some way."""
    building = Building(0)
    building.dense(building.lstm(0))
    layers = (*building.layers, Merge(name="m", operation=merge))
    wiring = Wiring(inputs=inputs, takes=takes, outputs=outputs)
    return Network("wired", 3, layers, wiring=wiring)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"takes": ((0,), (1,))}, "there are 3, and 2 take values"),
        ({"takes": ((0,), (2,), (1, 2))}, "does not take what an input or a layer before it gives"),
        ({"takes": ((0,), (1,), (1, -1))}, "m: does not take what"),
        ({"takes": ((0,), (1,), ())}, "m: does not take what"),
        ({"takes": ((0,), (1,), (1, 0))}, "dense1: leads to no output"),
        ({"takes": ((0,), (1, 1), (1, 2))}, "dense1: takes 2 values; only a merge takes several"),
        ({"takes": ((0,), (1,), (0, 2))}, "m: cannot add values of 3 and 4 features"),
        ({"takes": ((0,), (1,), (1, 2, 2)), "merge": "subtract"}, "can subtract 2 values, not 3"),
        ({"outputs": (("y", 4),)}, "outputs: no layer gives one of them"),
        ({"outputs": (("y", 3), ("y", 1))}, "outputs: need names, each its own"),
        ({"inputs": (("x", 2),)}, "lstm0: takes 3 features, but gets 2"),
        ({"inputs": (("x", 3), ("z", 1)), "takes": ((0,), (2,), (2, 3)), "outputs": (("y", 4),)},
         "input_size: is 3, but the inputs have 4 features"),
    ],
)  # fmt: skip
def test_what_is_no_graph_is_refused(options, problem):
    """Each with the layer at fault."""
    with pytest.raises(SpecError) as caught:
        wired(**options)
    assert problem in str(caught.value)


def test_doubling_without_weights_is_bounded():
    """A few merges could have any number of features, and any memory."""
    building = Building(0)
    value = building.lstm(0)
    takes = list(building.takes)
    layers = list(building.layers)
    for number in range(64):
        layers.append(Merge(name=f"m{number}", operation="concatenate"))
        takes.append((value - 1, value - 1))
        value += 1
    wiring = Wiring(inputs=(("x", 3),), takes=tuple(takes), outputs=(("y", value - 1),))
    with pytest.raises(SpecError, match="gives more than 4194304 values a time step"):
        Network("wide", 3, tuple(layers), wiring=wiring)


def test_fingerprints_tell_wirings_apart():
    """The same layers wired in another way are another model; names are not, nor a chain's form."""
    prints = {
        wired().fingerprint,
        wired(takes=((0,), (1,), (2, 1))).fingerprint,
        wired(merge="subtract").fingerprint,
        wired(outputs=(("y", 3), ("z", 2))).fingerprint,
    }
    assert len(prints) == 4
    assert wired().fingerprint == wired(inputs=(("a", 3),), outputs=(("b", 3),)).fingerprint
    chain = wired(takes=((0,), (1,), (2,)))
    assert chain.is_chain
    assert chain.fingerprint == Network("chain", 3, chain.layers).fingerprint
