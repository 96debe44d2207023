"""The fused cells' names, configurations and specs, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

import lstm_core
from lstm_core.errors import SpecError
from lstm_core.spec import LSTMSpec
from tests.parity.fused_cases import CELLS, FEATURES, OPTIONS, UNITS, built, normal


@pytest.fixture(autouse=True)
def _own_scope(request):
    """Give each test a variable scope of its own: cells of one name would share or refuse it."""
    with tf.compat.v1.variable_scope(f"scope{abs(hash(request.node.nodeid))}"):
        yield


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lstm_core.LSTMBlockCell, "lstm_cell"),
        (lstm_core.LSTMBlockFusedCell, "lstm_fused_cell"),
        (lstm_core.CudnnCompatibleLSTMCell, "cudnn_compatible_lstm_cell"),
    ],
)
def test_names_are_those_of_checkpoints(make, expected):
    """Scopes and variables are called as contrib calls them."""
    cell = make(UNITS)
    cell.build((None, FEATURES))
    assert expected == cell.scope_name.split("/")[-1]
    assert ["kernel", "bias"] == [variable.name for variable in cell.weights]
    assert [(FEATURES + UNITS, 4 * UNITS), (4 * UNITS,)] == [w.shape for w in cell.weights]


def test_peepholes_have_the_names_of_checkpoints():
    """The three diagonals come after kernel and bias."""
    cell = built(lstm_core.LSTMBlockCell(UNITS, use_peephole=True))
    expected = {"kernel", "bias", "w_i_diag", "w_f_diag", "w_o_diag"}
    assert expected == {variable.name for variable in cell.weights}


@pytest.mark.parametrize("make", [*CELLS.values(), lstm_core.CudnnCompatibleLSTMCell])
def test_config_makes_an_equal_cell(make):
    """`from_config(get_config())` has the same arguments and, with its weights, numbers."""
    options: dict[str, Any] = {} if make is lstm_core.CudnnCompatibleLSTMCell else OPTIONS["all"]
    cell = built(make(UNITS, dtype="float32", **options))
    config = cell.get_config()
    twin = make.from_config(config | {"reuse": tf.compat.v1.AUTO_REUSE, "name": "twin"})
    twin.build((None, FEATURES))
    twin.set_weights(cell.get_weights())
    assert config == twin.get_config() | {"reuse": None, "name": cell.name}
    assert cell.spec == twin.spec
    assert (UNITS, (UNITS, UNITS)) == (twin.output_size, tuple(twin.state_size))


@pytest.mark.parametrize("make", CELLS.values(), ids=CELLS.keys())
def test_a_spec_makes_a_cell(make):
    """A cell of a spec has that spec again, and weights go in and out unchanged."""
    spec = LSTMSpec(
        input_size=FEATURES, units=UNITS, forget_bias=0.5, cell_clip=0.7, use_peepholes=True
    )
    cell = built(make.from_spec(spec))
    weights = cell.get_core_weights()
    cell.set_core_weights(weights)
    assert spec == cell.spec
    np.testing.assert_array_equal(weights.kernel, cell.get_core_weights().kernel)


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lstm_core.LSTMBlockCell, {"activation": "relu"}),
        (lstm_core.LSTMBlockCell, {"recurrent_activation": "hard_sigmoid"}),
        (lstm_core.LSTMBlockFusedCell, {"projection_size": 2}),
        (lstm_core.CudnnCompatibleLSTMCell, {"forget_bias": 1.0}),
        (lstm_core.CudnnCompatibleLSTMCell, {"cell_clip": 1.0}),
    ],
)
def test_a_spec_that_no_operation_knows_is_refused(make, other):
    """What the operations lack is an error that names it."""
    with pytest.raises(SpecError, match=next(iter(other))):
        make.from_spec(LSTMSpec(input_size=FEATURES, units=UNITS, **other))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "mixed_float16"])
def test_other_dtypes_are_refused(dtype):
    """The operations have no kernels for them."""
    with pytest.raises(ValueError, match="computes in float32 or float16"):
        lstm_core.LSTMBlockCell(UNITS, dtype=dtype)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either initial_state or dtype"),
        ({"initial_state": (np.zeros((2, UNITS), np.float32),)}, "must be two tensors"),
        ({"initial_state": (np.zeros((1, UNITS), np.float32),) * 2}, "must have shape"),
        ({"dtype": "float32", "sequence_length": [3, 5]}, "must be 0 to 4"),
        ({"dtype": "float32", "sequence_length": [3, -1]}, "must be 0 to 4"),
        ({"dtype": "float32", "sequence_length": [3]}, "must be integer, of shape"),
        ({"dtype": "float32", "sequence_length": [3.0, 1.0]}, "must be integer, of shape"),
    ],
)
def test_fused_cell_refuses(arguments, message):
    """What does not fit is an error that says so."""
    cell = built(lstm_core.LSTMBlockFusedCell(UNITS))
    with pytest.raises(ValueError, match=message):
        cell(normal(4, 2, FEATURES), **arguments)


@pytest.mark.parametrize("shape", [(2, FEATURES), (4, 2, FEATURES + 1)])
def test_fused_cell_refuses_other_inputs(shape):
    """Neither another rank nor another number of features."""
    cell = built(lstm_core.LSTMBlockFusedCell(UNITS))
    with pytest.raises(ValueError, match="inputs of cell"):
        cell(normal(*shape), dtype="float32")


def test_fused_cell_refuses_ragged_inputs():
    """The message says what to do instead."""
    ragged = tf.ragged.constant([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]] * 2], ragged_rank=1)
    with pytest.raises(ValueError, match=r"\.to_tensor\(\).*sequence_length"):
        lstm_core.LSTMBlockFusedCell(UNITS)(ragged, dtype="float32")


def test_fused_cell_refuses_lengths_that_fit_in_32_bits_only():
    """A length is compared before its upper bits are cut off."""
    cell = built(lstm_core.LSTMBlockFusedCell(UNITS))
    for lengths in (np.array([2**32 + 1, 1]), np.array([2**63 + 1, 1], np.uint64)):
        with pytest.raises(ValueError, match="must be 0 to 4"):
            cell(normal(4, 2, FEATURES), dtype="float32", sequence_length=lengths)


def test_another_number_of_lengths_in_a_graph_that_knows_none():
    """It is an error when the graph runs, not a broadcast, nor a state of fewer rows."""
    cell = built(lstm_core.LSTMBlockFusedCell(UNITS))

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec(None, tf.int32)]
    )
    def run(x: Any, lengths: Any) -> Any:
        return cell(x, dtype="float32", sequence_length=lengths)

    x = normal(4, 3, FEATURES)
    assert (3, UNITS) == run(x, [4, 0, 2])[1].c.shape
    for lengths in ([2], [2, 2], [2, 2, 2, 2], [[2, 2, 2]], 2):
        with pytest.raises(tf.errors.InvalidArgumentError):
            run(x, lengths)


@pytest.mark.parametrize("time", [0, 2])
@pytest.mark.parametrize("has_lengths", [False, True])
def test_states_of_other_rows_in_a_graph_that_knows_none(time, has_lengths):
    """It is an error when the graph runs that names the state, without any step to take too."""
    cell = built(lstm_core.LSTMBlockFusedCell(UNITS))
    state = tf.TensorSpec((None, UNITS))

    @tf.function(input_signature=[tf.TensorSpec((None, None, FEATURES)), state, state])
    def run(x: Any, c: Any, h: Any) -> Any:
        lengths = tf.zeros(tf.shape(x)[1:2], tf.int32) if has_lengths else None
        return cell(x, (c, h), sequence_length=lengths)

    assert (3, UNITS) == run(normal(time, 3, FEATURES), *normal(2, 3, UNITS))[1].c.shape
    for batch, rows in (
        (3, (1, 1)),
        (3, (4, 4)),
        (3, (3, 1)),
        (3, (4, 3)),
        (0, (2, 2)),
        (32, (40, 40)),
    ):
        c, h = (normal(num_rows, UNITS) for num_rows in rows)
        with pytest.raises(tf.errors.InvalidArgumentError, match="initial_state_must_have"):
            run(normal(time, batch, FEATURES), c, h)


@pytest.mark.parametrize("make", CELLS.values(), ids=CELLS.keys())
@pytest.mark.parametrize("cell_clip", ["1", [1.0], float("nan")])
def test_a_clip_that_is_no_number_is_refused(make, cell_clip):
    """The message names the argument; 0 and less mean none, as for the operations."""
    with pytest.raises(ValueError, match="cell_clip must be a number, not"):
        make(UNITS, cell_clip=cell_clip)
    assert [None, None, 1.0] == [make(UNITS, cell_clip=clip).cell_clip for clip in (0, -1.0, 1)]
