"""Every runtime refuses the same calls of `advance`; the native kernel's own test has the table."""

from __future__ import annotations

import os

import numpy as np
import pytest

from lstm_core.formats.keras import read_keras
from lstm_core.runtime.cpu import CpuRuntime
from tests.unit.test_native_misuse import BAD, X

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras on NumPy 2


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory):
    """One LSTM with a head on both kernels that Python calls without looking, 8 slots each."""
    from lstm_core.runtime.tensorflow import TensorFlowRuntime

    path = tmp_path_factory.mktemp("arguments") / "m.keras"
    lstm = keras.layers.LSTM(5, return_sequences=True)
    model = keras.Sequential([keras.Input((None, 3)), lstm, keras.layers.Dense(2)])
    model.save(path)
    network = read_keras(path)
    return {
        "numpy": CpuRuntime(network, 8, instruction_sets=[]),
        "tensorflow": TensorFlowRuntime(model, 8, like=network),
    }


@pytest.mark.parametrize("kind", ["numpy", "tensorflow"])
@pytest.mark.parametrize("given", BAD.values(), ids=BAD.keys())
def test_wrong_arguments_are_exceptions(runtimes, kind, given):
    """Each is refused before anything is read or written, and the runtime goes on."""
    error, from_slots, to_slots, inputs, lengths, mask = given
    run = runtimes[kind]
    run.write(1, np.full(10, 0.5), [True])

    with pytest.raises(error):
        run.advance(from_slots, to_slots, inputs, lengths, mask)

    np.testing.assert_array_equal(run.read(1)[0], 0.5)
    np.testing.assert_array_equal(run.read(0)[0], 0)
    assert run.advance([1, 1], [2, 3], X, None).is_state_finite.all()


@pytest.mark.parametrize("kind", ["numpy", "tensorflow"])
def test_slots_of_any_integers_are_taken(runtimes, kind):
    """Tuples, ranges, arrays of any order of bytes: what the native kernel takes too."""
    run = runtimes[kind]
    expected = run.advance([0, 0], [1, 2], X, None)
    for slots in ((1, 2), range(1, 3), np.array([1, 2], ">i2"), [np.int64(1), np.uint64(2)]):
        actual = run.advance([0, 0], slots, X.astype(">f4"), None)
        np.testing.assert_array_equal(expected.rows, actual.rows)
        np.testing.assert_array_equal(run.read(2)[0], actual.rows[1])

    first = run.advance([0], [True], X[:1], [np.uint8(4)])
    np.testing.assert_allclose(expected.rows[:1], first.rows, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(run.read(1)[0], first.rows[0])
