"""Wrong arguments of the native kernel are Python exceptions; and what threads see of a call."""

import importlib
import sys
import threading
from typing import Any, cast

import numpy as np
import pytest

from lstm_core.errors import WeightsError
from lstm_core.kernels import native
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import LSTMSpec
from lstm_core.weights import initialize
from tests.unit.native_networks import INSTRUCTION_SETS, network

SET = INSTRUCTION_SETS[0] if INSTRUCTION_SETS else "portable"
NET = network(sizes=[3, 5], use_bias=True, head="linear", zero_output_for_mask=False, seed=0)
X = np.ones((2, 4, 3), np.float32)


def packed_lstm(input_size=3, units=5):
    """Return a packed LSTM."""
    spec = LSTMSpec(input_size=input_size, units=units)
    return native.lstm_layer(spec, initialize(spec, 0), SET)


def arena(slots=9, state_size=10, flags=1):
    """Return the arrays of an arena."""
    return np.zeros((slots, state_size), np.float32), np.zeros((slots, flags), np.bool_)


class Index:
    """What counts as an index without being an int."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        """Return the number."""
        return self.value


class Emptying:
    """An index that empties the list that it is read from."""

    def __init__(self, slots):
        self.slots = slots

    def __index__(self):
        """Empty the list."""
        self.slots.clear()
        return 1


BAD = {
    "from beyond the end": (IndexError, [0, 9], [1, 2], X, [4, 4], None),
    "from negative": (IndexError, [0, -1], [1, 2], X, [4, 4], None),
    "from huge": (OverflowError, [0, 2**70], [1, 2], X, [4, 4], None),
    "from huge in an array": (IndexError, np.array([0, 2**62]), [1, 2], X, [4, 4], None),
    "from huge enough for floats": (OverflowError, [1, 2**63], [1, 2], X, [4, 4], None),
    "an array of 64 bits unsigned": (TypeError, np.zeros(2, np.uint64), [1, 2], X, [4, 4], None),
    "slots of NumPy's bools": (TypeError, [np.True_] * 2, [1, 2], X, [4, 4], None),
    "to beyond the end": (IndexError, [0, 0], [1, 9], X, [4, 4], None),
    "to the zero slot": (IndexError, [0, 0], [0, 1], X, [4, 4], None),
    "too few slots": (ValueError, [0], [1, 2], X, [4, 4], None),
    "too many slots": (ValueError, [0, 0], [1, 2, 3], X, [4, 4], None),
    "slots of floats": (TypeError, [0.0, 1.0], [1, 2], X, [4, 4], None),
    "an array of floats": (TypeError, np.zeros(2), [1, 2], X, [4, 4], None),
    "slots in two dimensions": (ValueError, np.zeros((2, 1), int), [1, 2], X, [4, 4], None),
    "no slots at all": (TypeError, 7, [1, 2], X, [4, 4], None),
    "a length of 0": (IndexError, [0, 0], [1, 2], X, [4, 0], None),
    "a length beyond time": (IndexError, [0, 0], [1, 2], X, [4, 5], None),
    "inputs in float64": (TypeError, [0, 0], [1, 2], X.astype(np.float64), [4, 4], None),
    "inputs that are a list": (TypeError, [0, 0], [1, 2], X.tolist(), [4, 4], None),
    "inputs without time": (ValueError, [0, 0], [1, 2], X[:, 0], [4, 4], None),
    "inputs of two features": (ValueError, [0, 0], [1, 2], X[..., :2], [4, 4], None),
    "inputs without rows": (ValueError, [], [], X[:0], [], None),
    "inputs of no time": (ValueError, [0, 0], [1, 2], X[:, :0], [0, 0], None),
    "a mask of floats": (TypeError, [0, 0], [1, 2], X, [4, 4], np.ones((2, 4))),
    "a mask of another shape": (ValueError, [0, 0], [1, 2], X, [4, 4], np.ones((2, 3), bool)),
}


@pytest.mark.parametrize("given", BAD.values(), ids=BAD.keys())
def test_wrong_arguments_are_exceptions(given):
    """Each is refused before anything is read or written, and the runtime goes on."""
    error, from_slots, to_slots, inputs, lengths, mask = given
    run = CpuRuntime(NET, 8, instruction_sets=[SET])
    run.write(1, np.full(10, 0.5), [True])

    with pytest.raises(error):
        run.advance(from_slots, to_slots, inputs, lengths, mask)

    np.testing.assert_array_equal(run.read(1)[0], 0.5)
    np.testing.assert_array_equal(run.read(0)[0], 0)
    assert run.advance([1, 1], [2, 3], X, None).is_state_finite.all()


def test_inputs_of_any_strides_and_slots_of_any_integers_are_taken():
    """Views of every kind give what their copies give."""
    run = CpuRuntime(NET, 8, instruction_sets=[SET])
    wide = np.random.default_rng(0).uniform(-1, 1, (6, 8, 9)).astype(np.float32)
    moved = np.frombuffer(b"\0" + wide.tobytes(), np.uint8)[1:].view(np.float32)
    views = [
        wide[::2, ::3, 1:4],
        wide[2::-1, ::-1, :3],
        wide[:3, :, ::3],
        wide.transpose(1, 0, 2)[:3, :3, 5:8],
        np.broadcast_to(wide[0, 0, :3], (3, 4, 3)),
        moved.reshape(wide.shape)[:3, :, :3],
        wide[:3, :, :3].astype(">f4"),
    ]
    integers: list[Any] = [
        [1, 2, 3],
        (1, 2, 3),
        np.array([1, 2, 3], np.int16),
        np.array([1, 2, 3], np.uint8),
        [Index(1), np.int64(2), True + 2],
        range(1, 4),
        np.array([1, 2, 3], ">i4"),
    ]
    for view, slots in zip(views, integers, strict=True):
        expected = run.advance([0, 0, 0], [1, 2, 3], view.copy(), None)
        actual = run.advance([0, 0, 0], slots, view, None)
        np.testing.assert_array_equal(expected.outputs, actual.outputs)
        np.testing.assert_array_equal(run.read(3)[0], actual.rows[2])


def test_a_list_that_shrinks_while_it_is_read_is_no_memory_error():
    """Items run Python code of their own, and nothing is run with what is left of the list."""
    run = CpuRuntime(NET, 8, instruction_sets=[SET])
    slots: list[Any] = [1, 1]
    slots[0] = Emptying(slots)
    with pytest.raises(RuntimeError, match="to_slots changed"):
        run.advance([0, 0], slots, X, None)
    np.testing.assert_array_equal(run.read(0)[0], 0)


BAD_LAYERS = {
    "an unknown instruction set": (
        ValueError,
        lambda: native.lstm_layer(spec_of(3)[0], spec_of(3)[1], "sse9"),
    ),
    "weights of another spec": (
        WeightsError,
        lambda: native.lstm_layer(spec_of(4)[0], spec_of(3)[1], SET),
    ),
    "a bias of another size": (
        ValueError,
        lambda: native.dense_layer(np.ones((2, 3), "f4"), np.ones(2, "f4"), "linear", SET),
    ),
    "a kernel of one dimension": (
        ValueError,
        lambda: native.dense_layer(np.ones(3, "f4"), None, "linear", SET),
    ),
    "a kernel without rows": (
        ValueError,
        lambda: native.dense_layer(np.ones((0, 3), "f4"), None, "linear", SET),
    ),
    "vectors of different sizes": (
        ValueError,
        lambda: native.affine_layer(np.ones(3, "f4"), np.ones(3, "f4"), np.ones(2, "f4"), SET),
    ),
    "a layer without features": (ValueError, lambda: native.activation_layer(0, "relu", SET)),
    "a table without vectors": (
        ValueError,
        lambda: native.embedding_layer(np.ones((0, 3), "f4"), SET, mask_zero=True),
    ),
    "a table without features": (
        ValueError,
        lambda: native.embedding_layer(np.ones((3, 0), "f4"), SET, mask_zero=True),
    ),
    "an embedding that is not the first": (
        ValueError,
        lambda: native.stateless_runner([native.activation_layer(1, "relu", SET), embedding()]),
    ),
    "an activation of no name": (ValueError, lambda: native.activation_layer(3, "sine", SET)),
    "a softmax of gates": (ValueError, lambda: native_lstm(recurrent_activation=19)),
    "an activation below zero": (ValueError, lambda: native_lstm(activation=-1)),
    "an activation that is no number": (TypeError, lambda: native_lstm(activation="tanh")),
    "peepholes of two gates": (ValueError, lambda: native_lstm(peepholes=np.ones((2, 5), "f4"))),
    "peepholes in float64": (TypeError, lambda: native_lstm(peepholes=np.ones((3, 5)))),
    "a recurrent kernel that needs a projection": (
        ValueError,
        lambda: native_lstm(recurrent_kernel=np.ones((4, 20), "f4")),
    ),
    "a projection of other units": (
        ValueError,
        lambda: native_lstm(projection=np.ones((4, 5), "f4")),
    ),
    "a projection of another size": (
        ValueError,
        lambda: native_lstm(projection=np.ones((5, 4), "f4")),
    ),
    "a negative clip": (ValueError, lambda: native_lstm(cell_clip=-1.0)),
    "a negative clip of the gates": (ValueError, lambda: native_lstm(gate_clip=-1.0)),
    "a clip that is no number": (ValueError, lambda: native_lstm(cell_clip=float("nan"))),
    "a negative clip of the projection": (
        ValueError,
        lambda: native_lstm(projection=np.ones((5, 5), "f4"), projection_clip=-0.5),
    ),
    "a kernel that is no array": (TypeError, lambda: native_lstm(kernel=[[1.0]])),
    "an unknown kind of layer": (ValueError, lambda: extension().Layer("gru", (), SET)),
    "too few fields": (TypeError, lambda: extension().Layer("lstm", (1, 2), SET)),
    "no layer": (ValueError, lambda: native.runner([], *arena(), results=tuple)),
    "layers that do not fit": (
        ValueError,
        lambda: native.runner([packed_lstm(), packed_lstm()], *arena(9, 20, 2), results=tuple),
    ),
    "something else than a layer": (TypeError, lambda: native.runner([3], *arena(), results=tuple)),
    "an arena of another width": (
        ValueError,
        lambda: native.runner([packed_lstm()], *arena(9, 11), results=tuple),
    ),
    "an arena without slots": (
        ValueError,
        lambda: native.runner([packed_lstm()], *arena(0), results=tuple),
    ),
    "no thread": (
        ValueError,
        lambda: native.runner([packed_lstm()], arena()[0], arena()[1], 0, results=tuple),
    ),
    "results that are no tuples": (
        TypeError,
        lambda: native.runner([packed_lstm()], *arena(), results=cast("Any", list)),
    ),
    "rows that are not contiguous": (
        TypeError,
        lambda: native.runner([packed_lstm()], arena(9, 20)[0][:, ::2], arena()[1], results=tuple),
    ),
    "flags for other slots": (
        ValueError,
        lambda: native.runner([packed_lstm()], arena()[0], arena(8)[1], results=tuple),
    ),
}


def embedding():
    """Return a packed embedding."""
    return native.embedding_layer(np.ones((2, 3), np.float32), SET, mask_zero=True)


def extension():
    """Return the extension module, whose own checks are the last line."""
    return importlib.import_module("lstm_core.kernels.native._kernel")


def native_lstm(**fields):
    """Return a packed LSTM of 3 inputs and 5 units, with some of its fields replaced."""
    given = {
        "kernel": np.ones((3, 20), np.float32),
        "recurrent_kernel": np.ones((5, 20), np.float32),
        "bias": None,
        "peepholes": None,
        "projection": None,
        "activation": 18,
        "recurrent_activation": 14,
        "gate_clip": 1.0,
        "cell_clip": 1.0,
        "projection_clip": 1.0,
        "zero_output_for_mask": False,
    }
    return extension().Layer("lstm", tuple((given | fields).values()), SET)


def spec_of(input_size):
    """Return a spec and its weights."""
    spec = LSTMSpec(input_size=input_size, units=5)
    return spec, initialize(spec, 0)


def test_the_fields_of_a_layer_are_as_the_others_change_them():
    """Without a change they make a layer."""
    layer = native_lstm(projection=np.ones((5, 5), np.float32))
    assert native.stateless_runner([layer], 10, 1).advance(None, None, X, None, None)


@pytest.mark.parametrize("given", BAD_LAYERS.values(), ids=BAD_LAYERS.keys())
def test_layers_and_arenas_that_do_not_fit_are_exceptions(given):
    """What is built from Python is checked as what is called."""
    error, build = given
    with pytest.raises(error):
        build()


def test_a_long_call_lets_other_threads_run_and_takes_no_second_one():
    """The interpreter is given away meanwhile, and the scratch is not shared."""
    layer = packed_lstm(64, 256)
    rows, flags = arena(2, 512)
    run = native.runner([layer], rows, flags, results=tuple)
    long = np.ones((1, 4000, 64), np.float32)
    called = threading.Event()
    errors = []

    def interfere():
        called.wait()
        try:
            run.advance([0], [1], long[:, :1], None, None)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=interfere)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        called.set()
        run.advance([0], [1], long, None, None)
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert ["a runner takes one call at a time"] == errors


class Calling(np.ndarray):
    """An array that calls something whenever it is copied."""

    call: Any = None

    def __array_finalize__(self, original):
        """Call it."""
        if self.call is not None:
            self.call()


def test_a_runner_is_taken_while_its_inputs_are_copied():
    """To copy them lets others run, who are kept out before the scratch is touched."""
    run = native.runner([packed_lstm()], *arena(9), results=tuple)
    backwards = X[..., ::-1].view(Calling)
    errors = []

    def interfere():
        with pytest.raises(RuntimeError, match="one call at a time") as caught:
            run.advance([0], [1], X[:1], None, None)
        errors.append(caught.value)

    Calling.call = staticmethod(interfere)
    try:
        run.advance([0, 0], [1, 2], backwards, None, None)
    finally:
        Calling.call = None
    assert errors


def test_a_batch_beyond_all_memory_leaves_the_runner_as_it_was():
    """Its scratch cannot be had, and what there was room for still runs."""
    runner = native.stateless_runner([packed_lstm()], 10, 1)
    inputs = np.ones((1, 1, 3), np.float32)
    before = runner.advance(None, None, inputs, None, None)[0]
    for num_rows in (2**44, 2**58):
        endless = np.broadcast_to(inputs, (num_rows, 1, 3))
        with pytest.raises(MemoryError):
            runner.advance(None, None, endless, None, None)

    np.testing.assert_array_equal(before, runner.advance(None, None, inputs, None, None)[0])


@pytest.mark.skipif(not INSTRUCTION_SETS, reason="the native kernel was not built")
def test_a_call_without_memory_leaves_the_runner_as_it_was():
    """What it had room for still runs."""
    allocator = pytest.importorskip("_testcapi")
    layer = native.dense_layer(np.ones((3, 2), np.float32), None, "linear", SET)
    runner = native.stateless_runner([layer])
    small, large = np.ones((1, 1, 3), np.float32), np.ones((100, 1, 3), np.float32)
    from_one, from_many, lengths = [0], [0] * 100, [1] * 100
    runner.advance(from_one, None, small, None, None)

    allocator.set_nomemory(0, 1)
    try:
        runner.advance(from_many, None, large, lengths, None)
        is_refused = False
    except MemoryError:
        is_refused = True
    finally:
        allocator.remove_mem_hooks()

    assert is_refused
    np.testing.assert_array_equal(3, runner.advance(from_one, None, small, None, None)[0])
