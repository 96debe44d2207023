"""Which layers the native kernel runs around its LSTMs, and what it leaves to NumPy."""

from dataclasses import replace

import numpy as np
import pytest

from lstm_core.network import Bidirectional, Network, Recurrent
from lstm_core.pointwise import Activation, Affine, Dense, Embedding, Masking
from lstm_core.runtime.cpu import CpuRuntime
from tests.unit.native_networks import (
    INSTRUCTION_SETS,
    assert_same_bits,
    each_set,
    network,
    plain,
    reference,
    runtime,
)


@each_set
def test_layers_around_the_stack_run_too(instruction_set):
    """Embeddings, masks, scaling and heads before and behind the LSTMs, in one network."""
    random = np.random.default_rng(3)
    table = random.standard_normal((6, 32)).astype(np.float32)
    lstm, head = plain().layers
    scale = Affine(name="scale", center=table[0], scale=table[1], offset=table[2])
    layers = (
        Embedding(name="e", table=table, mask_zero=True),
        scale,
        lstm,
        Dense(name="d", kernel=head.kernel, bias=head.bias),
        Activation(name="a", function="softmax"),
        Activation(name="b", function="log_softmax"),
        Dense(name="e", kernel=head.kernel[:5].copy(), bias=None, activation="gelu"),
    )
    words = np.array([[[3.0], [0.0], [5.0]], [[0.0], [1.0], [2.0]]], np.float32)
    run = runtime(Network("n", 1, layers), 5, instruction_set)

    advanced = run.advance([0, 0], [1, 2], words, [3, 2])

    live = words[..., 0] != 0
    x = scale(table[words[..., 0].astype(int)])
    x, states = reference(Network("n", 32, (lstm,)), x, live)
    for layer in layers[3:]:
        x = layer(x)
    np.testing.assert_allclose(advanced.outputs[0], x[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(advanced.outputs[1, :2], x[1, :2], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(advanced.outputs[1, 2], 0)
    np.testing.assert_allclose(advanced.rows[0], states[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(run.predict(words), x, rtol=1e-6, atol=1e-6)


@each_set
def test_bidirectional_layers_predict(instruction_set):
    """Both directions run in C where the whole sequence is at hand."""
    forward = plain().layers[0]
    backward = Recurrent(name="b", spec=forward.spec, weights=forward.weights, go_backwards=True)
    both = Network("n", 32, (Bidirectional(name="both", forward=forward, backward=backward),))
    inputs = np.random.default_rng(0).uniform(-1, 1, (3, 7, 32)).astype(np.float32)

    outputs = runtime(both, 0, instruction_set).predict(inputs)

    ahead, _ = reference(Network("n", 32, (forward,)), inputs)
    back, _ = reference(Network("n", 32, (forward,)), inputs[:, ::-1])
    expected = np.concatenate([ahead, back[:, ::-1]], axis=-1)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)


def test_a_mask_replaced_in_c_is_not_made_in_numpy():
    """What the kernel cannot do is not tried, and the reason names the layers."""
    lstm = plain((32, 32), head=None).layers[0]
    masks = [Masking(name=f"m{index}", mask_value=0.0) for index in range(2)]
    odd = Activation(name="odd", function="log_softmax")

    dispatches = CpuRuntime(Network("n", 32, (masks[0], odd, masks[1], lstm)), 1).dispatches
    lone = CpuRuntime(Network("n", 32, (masks[0], odd, lstm)), 1).dispatches

    assert "numpy" == dispatches[lstm].kernel
    assert "m1 replaces the mask of m0, which runs on NumPy" in dispatches[lstm].reason
    assert "native" == lone[lstm].kernel


@pytest.mark.parametrize("mask_zero", [False, True])
@each_set
def test_numbers_are_embedded(instruction_set, mask_zero):
    """Whole numbers choose vectors; others, and of none, are refused before anything is done."""
    lstm = plain((32, 48), head=None).layers[0]
    random = np.random.default_rng(3)
    table = random.standard_normal((6, 32)).astype(np.float32)
    embedding = Embedding(name="e", table=table, mask_zero=mask_zero)
    net = Network("n", 1, (embedding, lstm))
    words = random.integers(0, 6, (4, 7, 1)).astype(np.float32)
    mask = random.random((4, 7)) > 0.3
    run = runtime(net, 9, instruction_set)

    advanced = run.advance([0] * 4, [1, 2, 3, 4], words, None, mask)

    outputs, rows = reference(net, words, mask)
    np.testing.assert_allclose(advanced.outputs, outputs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(advanced.rows, rows, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(run.predict(words, mask), outputs, rtol=1e-6, atol=1e-6)
    for bad in (6, -1, -0.5, np.nan, np.inf, -np.inf, 2.0**31):
        words[2, 5] = bad
        with pytest.raises(IndexError, match=r"inputs\[2, 5\]"):
            run.advance([1] * 4, [5, 6, 7, 8], words, None)
        # Beyond a row's length anything may stand.
        run.advance([1] * 4, [5, 6, 7, 8], words, [7, 7, 5, 7])
    assert_same_bits(advanced.rows[1], run.read(2)[0])


@pytest.mark.parametrize(
    "parameters",
    [
        ("log_softmax", {}),
        ("relu", {"threshold": 0.5}),
        ("celu", {"alpha": 0.5}),
        ("gelu", {"approximate": True}),
    ],
)
def test_functions_that_are_not_in_c_run_on_numpy(parameters):
    """Between recurrent layers they take the network along, and behind them they do not."""
    function, options = parameters
    first, second = plain((32, 32, 48), head=None).layers
    odd = Activation(name="odd", function=function, parameters=options)
    inputs = np.random.default_rng(0).uniform(-1, 1, (3, 4, 32)).astype(np.float32)

    between = CpuRuntime(Network("n", 32, (first, odd, second)), 1)
    behind = runtime(Network("n", 32, (first, odd)), 4, INSTRUCTION_SETS[0])

    assert "Activation odd stands between recurrent layers" in between.dispatches[first].reason
    outputs = behind.advance([0] * 3, [1, 2, 3], inputs, None).outputs
    expected, _ = reference(Network("n", 32, (first, odd)), inputs)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("parameters", [{}, {"max_value": 6.0}, {"negative_slope": 0.0}])
@pytest.mark.parametrize("instruction_set", [*INSTRUCTION_SETS, None])
def test_minus_infinity_is_cut_off_to_zero(instruction_set, parameters):
    """What overflows in a Dense is no NaN behind a ReLU, whatever its options."""
    lstm = plain((32, 48), head=None).layers[0]
    kernel = np.full((48, 2), -3e38, np.float32)
    layers = (
        lstm,
        Dense(name="d", kernel=kernel, bias=None),
        Activation(name="a", function="relu", parameters=parameters),
    )
    sets = [] if instruction_set is None else [instruction_set]
    run = CpuRuntime(Network("n", 32, layers), 2, instruction_sets=sets)
    run.write(1, np.full(96, 0.9), [True])

    advanced = run.advance([1], [2], np.ones((1, 1, 32), np.float32), [1])

    assert advanced.rows[0, :48].sum() > 2
    np.testing.assert_array_equal(advanced.outputs, 0)


@each_set
def test_both_directions_may_be_of_any_kind(instruction_set):
    """Each with its own sizes and activations."""
    forward = plain((32, 48), head=None).layers[0]
    options = {"activation": "softsign", "projection_size": 7, "use_peepholes": True}
    family = network(
        sizes=[32, 20],
        use_bias=True,
        head=None,
        zero_output_for_mask=False,
        seed=4,
        options=options,
    ).layers[0]
    backward = replace(family, go_backwards=True)
    both = Bidirectional(name="both", forward=forward, backward=backward)
    inputs = np.random.default_rng(0).uniform(-1, 1, (3, 7, 32)).astype(np.float32)

    outputs = runtime(Network("n", 32, (both,)), 0, instruction_set).predict(inputs)

    ahead, _ = reference(Network("n", 32, (forward,)), inputs)
    back, _ = reference(Network("n", 32, (family,)), inputs[:, ::-1])
    expected = np.concatenate([ahead, back[:, ::-1]], axis=-1)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)
