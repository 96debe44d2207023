"""Both CPU kernels and the arena, against `equations` in float64 and against their own laws."""

from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_core import equations
from lstm_core.errors import NotStreamableError, SpecError
from lstm_core.network import Bidirectional, Network, Recurrent
from lstm_core.pointwise import Activation, Dense, Embedding, Masking
from lstm_core.runtime.base import ZERO_SLOT
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import ACTIVATIONS, LSTMSpec
from lstm_core.weights import initialize

TOLERANCE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
# These do not saturate, so a long sequence may grow and float32 lose digits.
BOUNDED = sorted(ACTIVATIONS - {"exponential", "softplus"})

EXTENSIONS = st.fixed_dictionaries(
    {},
    optional={
        "use_peepholes": st.just(True),
        "projection_size": st.integers(1, 12),
        "cell_clip": st.floats(0.05, 1),
        "projection_clip": st.floats(0.05, 1),
        "forget_bias": st.sampled_from([0.0, 1.0, -0.5]),
    },
)
"""What only `rnn_cell.LSTMCell` has. A projection clip without a projection does nothing."""


each_kernel = pytest.mark.parametrize("kernel", [None, ()], ids=["native", "numpy"])


def runtime_on(kernel):
    """Return what makes a runtime, native where it can be, or on NumPy."""
    return partial(CpuRuntime, instruction_sets=kernel)


def lstm(name="lstm", *, seed=0, input_size=3, units=4, **options):
    """Return an LSTM with random weights, biases included."""
    spec_options = {
        key: options.pop(key)
        for key in [field.name for field in fields(LSTMSpec)]
        if key in options
    }
    spec = LSTMSpec(input_size=input_size, units=units, **spec_options)
    weights = initialize(spec, seed)
    random = np.random.default_rng(seed)
    if weights.bias is not None:
        bias = weights.bias + random.uniform(-0.5, 0.5, weights.bias.shape).astype(np.float32)
        weights = replace(weights, bias=bias)
    return Recurrent(name=name, spec=spec, weights=weights, **options)


def stacked():
    """Return two LSTMs with a head, 3 inputs and 2 outputs."""
    random = np.random.default_rng(5)
    head = Dense(
        name="head",
        kernel=random.standard_normal((5, 2)).astype(np.float32),
        bias=random.standard_normal(2).astype(np.float32),
    )
    return Network("stacked", 3, (lstm(), lstm("second", seed=1, input_size=4, units=5), head))


def expected(network, inputs, mask=None):
    """Return what a stack of LSTMs and linear heads gives, in float64."""
    x = inputs
    for layer in network.layers:
        if isinstance(layer, Recurrent):
            x = equations.sequence(
                layer.spec,
                layer.weights,
                x,
                mask=mask,
                go_backwards=layer.go_backwards,
                zero_output_for_mask=layer.zero_output_for_mask,
            ).outputs
        else:
            x = x @ layer.kernel.astype(np.float64) + layer.bias
    return x


@each_kernel
@settings(deadline=None, max_examples=60)
@given(
    activation=st.sampled_from(BOUNDED),
    recurrent_activation=st.sampled_from(["sigmoid", "hard_sigmoid", "hard_sigmoid_v1", "linear"]),
    use_bias=st.booleans(),
    batch=st.integers(1, 5),
    time=st.integers(1, 6),
    units=st.integers(1, 9),
    has_mask=st.booleans(),
    go_backwards=st.booleans(),
    extensions=EXTENSIONS,
    seed=st.integers(0, 2**32 - 1),
)
def test_predict_equals_the_equations(
    kernel,
    activation,
    recurrent_activation,
    use_bias,
    batch,
    time,
    units,
    has_mask,
    go_backwards,
    extensions,
    seed,
):
    """Every activation, bias or none, masks, direction and `rnn_cell`'s options agree."""
    layer = lstm(
        seed=seed,
        units=units,
        activation=activation,
        recurrent_activation=recurrent_activation,
        use_bias=use_bias,
        go_backwards=go_backwards,
        **extensions,
    )
    random = np.random.default_rng(seed)
    inputs = random.uniform(-1, 1, (batch, time, 3)).astype(np.float32)
    mask = random.random((batch, time)) > 0.4 if has_mask else None
    network = Network("n", 3, (layer,))

    outputs = runtime_on(kernel)(network, 0).predict(inputs, mask)

    # Gates without a bound multiply what was rounded, at each step.
    tolerance = TOLERANCE | ({"rtol": 1e-5} if recurrent_activation == "linear" else {})
    np.testing.assert_allclose(outputs, expected(network, inputs, mask), **tolerance)


@each_kernel
@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    has_mask=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_ragged_rows_equal_each_row_alone(kernel, lengths, has_mask, seed):
    """A batch of rows of any lengths gives each what it gets alone, in outputs and states."""
    network = stacked()
    random = np.random.default_rng(seed)
    inputs = random.uniform(-1, 1, (len(lengths), max(lengths), 3)).astype(np.float32)
    mask = random.random(inputs.shape[:2]) > 0.4 if has_mask else None
    runtime = runtime_on(kernel)(network, 20)
    slots = [runtime.allocate() for _ in lengths]

    together = runtime.advance([ZERO_SLOT] * len(lengths), slots, inputs, lengths, mask)

    for row, length in enumerate(lengths):
        one = None if mask is None else mask[row : row + 1, :length]
        alone = runtime.advance(
            [ZERO_SLOT], [runtime.allocate()], inputs[row : row + 1, :length], [length], one
        )
        np.testing.assert_allclose(together.outputs[row, :length], alone.outputs[0], **TOLERANCE)
        np.testing.assert_allclose(together.rows[row], alone.rows[0], **TOLERANCE)
        np.testing.assert_array_equal(together.has_output[row], alone.has_output[0])
        np.testing.assert_array_equal(together.outputs[row, length:], 0)
        np.testing.assert_array_equal(runtime.read(slots[row])[0], together.rows[row])


@each_kernel
@settings(deadline=None, max_examples=60)
@given(
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    has_mask=st.booleans(),
    zero_output_for_mask=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_sequence_is_the_same_however_it_is_cut(
    kernel, cuts, has_mask, zero_output_for_mask, seed
):
    """Chunks with the state carried equal the whole, masked steps at their edges included."""
    network = Network("n", 3, (lstm(zero_output_for_mask=zero_output_for_mask),))
    random = np.random.default_rng(seed)
    time = sum(cuts)
    inputs = random.uniform(-1, 1, (1, time, 3)).astype(np.float32)
    mask = random.random((1, time)) > 0.6 if has_mask else None
    runtime = runtime_on(kernel)(network, 2)
    pieces, begin, slots = [], 0, (1, 2)
    source = ZERO_SLOT

    for index, length in enumerate(cuts):
        span = slice(begin, begin + length)
        target = slots[index % 2]
        one = None if mask is None else mask[:, span]
        advanced = runtime.advance([source], [target], inputs[:, span], [length], one)
        pieces.append(advanced.outputs)
        begin, source = begin + length, target

    whole = expected(network, inputs, mask)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, **TOLERANCE)


@each_kernel
@settings(deadline=None)
@given(extensions=EXTENSIONS, has_mask=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_sessions_of_a_projected_lstm_equal_the_equations(kernel, extensions, has_mask, seed):
    """State rows of h and c of different lengths are carried from step to step, two layers deep."""
    first = lstm(units=4, seed=seed, **extensions)
    second = lstm("second", input_size=first.spec.output_size, units=3, seed=seed + 1, **extensions)
    network = Network("n", 3, (first, second))
    random = np.random.default_rng(seed)
    inputs = random.uniform(-1, 1, (2, 4, 3)).astype(np.float32)
    mask = random.random((2, 4)) > 0.4 if has_mask else None
    runtime = runtime_on(kernel)(network, 4)

    masks = (None, None) if mask is None else (mask[:, :1], mask[:, 1:])
    begun = runtime.advance([ZERO_SLOT] * 2, [1, 2], inputs[:, :1], [1, 1], masks[0])
    ended = runtime.advance([1, 2], [3, 4], inputs[:, 1:], [3, 3], masks[1])

    outputs = np.concatenate([begun.outputs, ended.outputs], axis=1)
    np.testing.assert_allclose(outputs, expected(network, inputs, mask), **TOLERANCE)
    inner = equations.sequence(first.spec, first.weights, inputs, mask=mask)
    sizes = [part.size for part in network.state_layout]
    assert [first.spec.output_size, 4, second.spec.output_size, 3] == sizes
    h, c = np.split(ended.rows[:, : sum(sizes[:2])], [sizes[0]], axis=1)
    np.testing.assert_allclose(inner.h, h, **TOLERANCE)
    np.testing.assert_allclose(inner.c, c, **TOLERANCE)


@each_kernel
def test_masked_first_steps_of_a_set_state_give_zeros(kernel):
    """A state that was set has given no output yet, so a masked step has nothing to repeat."""
    runtime = runtime_on(kernel)(Network("n", 3, (lstm(),)), 3)
    row = np.full(8, 0.5, np.float32)
    runtime.write(1, row, [False])
    runtime.write(2, row, [True])
    inputs = np.ones((1, 1, 3), np.float32)
    masked = np.zeros((1, 1), np.bool_)

    without = runtime.advance([1], [3], inputs, [1], masked)
    with_output = runtime.advance([2], [3], inputs, [1], masked)

    np.testing.assert_array_equal(without.outputs, np.zeros((1, 1, 4)))
    np.testing.assert_array_equal(with_output.outputs[0, 0], row[:4])
    np.testing.assert_array_equal(without.rows[0], row)


@each_kernel
def test_advance_leaves_the_slots_that_it_read(kernel):
    """The state before a step stays until the caller gives it up."""
    runtime = runtime_on(kernel)(stacked(), 2)
    row = np.random.default_rng(0).uniform(-1, 1, 18).astype(np.float32)
    runtime.write(1, row, [True, True])

    runtime.advance([1], [2], np.ones((1, 4, 3), np.float32), [4])

    np.testing.assert_array_equal(runtime.read(1)[0], row)
    np.testing.assert_array_equal(runtime.read(ZERO_SLOT)[0], np.zeros(18))


@each_kernel
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_told_apart(kernel, bad):
    """A row whose state goes wrong is reported, and no other."""
    runtime = runtime_on(kernel)(stacked(), 4)
    row = np.zeros(18, np.float32)
    row[4] = bad  # of c: an infinite h would saturate the gates and pass
    runtime.write(1, row, [True, True])

    advanced = runtime.advance([1, ZERO_SLOT], [2, 3], np.ones((2, 1, 3), np.float32), [1, 1])

    np.testing.assert_array_equal(advanced.is_state_finite, [False, True])
    assert advanced.is_output_finite[1]


@each_kernel
def test_an_output_may_overflow_where_the_state_does_not(kernel):
    """Outputs are looked at too: a head can leave float32 by itself."""
    head = Dense(name="head", kernel=np.full((4, 4), 3e38, np.float32), bias=None)
    runtime = runtime_on(kernel)(Network("n", 3, (lstm(), head, head)), 2)

    advanced = runtime.advance([ZERO_SLOT], [1], np.ones((1, 1, 3), np.float32), [1])

    assert advanced.is_state_finite[0]
    assert not advanced.is_output_finite[0]


@each_kernel
def test_saturated_gates_stay_finite(kernel):
    """Inputs of any finite size saturate the gates without NaN."""
    runtime = runtime_on(kernel)(Network("n", 3, (lstm(),)), 2)

    for value in (1e30, -1e30):
        advanced = runtime.advance([ZERO_SLOT], [1], np.full((1, 1, 3), value, np.float32), [1])
        assert np.isfinite(advanced.outputs).all()


@each_kernel
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
def test_bidirectional_layers_merge_and_cannot_stream(kernel, merge_mode):
    """Both directions are merged in time's order; a step says why it cannot be taken."""
    forward, backward = lstm("forward"), lstm("backward", seed=1, go_backwards=True)
    layer = Bidirectional(name="both", forward=forward, backward=backward, merge_mode=merge_mode)
    runtime = runtime_on(kernel)(Network("n", 3, (layer,)), 2)
    inputs = np.random.default_rng(0).uniform(-1, 1, (2, 5, 3)).astype(np.float32)

    outputs = runtime.predict(inputs)

    ahead = expected(Network("f", 3, (forward,)), inputs)
    back = expected(Network("b", 3, (backward,)), inputs)[:, ::-1]
    merged = {
        "concat": np.concatenate([ahead, back], axis=-1),
        "sum": ahead + back,
        "mul": ahead * back,
        "ave": (ahead + back) / 2,
    }[merge_mode]
    np.testing.assert_allclose(outputs, merged, **TOLERANCE)
    with pytest.raises(NotStreamableError, match="both directions"):
        runtime.advance([ZERO_SLOT], [1], inputs[:1], [5])


@each_kernel
def test_the_masks_of_layers_reach_the_recurrent_ones(kernel):
    """An embedding's zeros and a masking layer's value mask the steps behind them."""
    table = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    embedding = Embedding(name="e", table=table, mask_zero=True)
    masking = Masking(name="m", mask_value=-1.0)
    words = np.array([[[3.0], [0.0], [5.0]]], np.float32)
    values = np.where(words == 0, -1, table[words[..., 0].astype(int)])
    live = np.array([[True, False, True]])

    embedded = runtime_on(kernel)(Network("n", 1, (embedding, lstm())), 0).predict(words)
    masked = runtime_on(kernel)(Network("n", 3, (masking, lstm())), 0).predict(values)

    whole = expected(Network("n", 3, (lstm(),)), table[words[..., 0].astype(int)], live)
    np.testing.assert_allclose(embedded, whole, **TOLERANCE)
    np.testing.assert_allclose(masked, whole, **TOLERANCE)


def test_fingerprints_tell_weights_and_configurations_apart_but_not_names():
    """Renaming keeps a fingerprint; a weight, an activation or an option changes it."""

    def fingerprint(*layers):
        return Network("any", 3, layers).fingerprint

    same = fingerprint(lstm("a"), Activation(name="b", function="relu"))

    assert same == fingerprint(lstm("x"), Activation(name="y", function="relu"))
    others = {
        fingerprint(lstm(seed=1), Activation(name="b", function="relu")),
        fingerprint(lstm(activation="relu"), Activation(name="b", function="relu")),
        fingerprint(lstm(zero_output_for_mask=True), Activation(name="b", function="relu")),
        fingerprint(lstm(), Activation(name="b", function="tanh")),
        fingerprint(lstm()),
    }
    assert 5 == len(others - {same})


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ((lstm(input_size=2),), "takes 2 features"),
        ((Activation(name="a", function="relu"),), "no recurrent layer"),
        ((lstm(return_sequences=False), lstm("next", input_size=4)), "needs a time axis"),
        (
            (lstm(), Embedding(name="e", table=np.zeros((2, 2), np.float32), mask_zero=False)),
            "must be the first",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, problem):
    """A chain that makes no sense says what is wrong with it."""
    with pytest.raises(SpecError, match=problem):
        Network("n", 3, layers)


def test_slots_are_taken_one_by_one_or_many_at_a_time():
    """None twice, none of nobody's, and none is left when all are taken."""
    runtime = CpuRuntime(Network("n", 3, (lstm(),)), 6)

    taken = [runtime.allocate(), *runtime.allocate_many(0), *runtime.allocate_many(3)]
    assert 2 == runtime.num_free
    runtime.free(taken.pop())
    with pytest.raises(IndexError, match="4 slots are wanted, and 3 are free"):
        runtime.allocate_many(4)
    taken += runtime.allocate_many(3)

    assert [1, 2, 3, 4, 5, 6] == sorted(taken)
    assert 0 == runtime.num_free
