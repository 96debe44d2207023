"""`read_keras` beside Keras itself: real files, the same numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstm_core.errors import FormatError
from lstm_core.formats.keras import read_keras
from lstm_core.network import Network
from lstm_core.runtime.cpu import CpuRuntime

keras = pytest.importorskip("keras")
layers = keras.layers

FEATURES = 3
TIME = 5

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{beginning}")
    for beginning in (
        "__array__ implementation",  # Keras on NumPy 2
        "You passed `rms_scaling=True`",
        "Layer .* was passed an input with a mask",  # nested ones pass it on
    )
]


@pytest.fixture(autouse=True)
def _fresh_names():
    """Start Keras's counters of layer names anew."""
    keras.utils.clear_session(free_memory=False)


def randomise(model: Any, seed: int = 0) -> None:
    """Give every floating variable values that none starts with."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" not in variable.dtype:
            continue
        drawn = random.normal(0, 0.5, variable.shape)
        variable.assign(np.abs(drawn) + 0.5 if "variance" in variable.name else drawn)
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()


def save(model: Any, directory: Path) -> Path:
    """Write a model with random weights."""
    randomise(model)
    path = directory / "model.keras"
    model.save(path)
    return path


def masked_inputs(batch: int = 4) -> np.ndarray[Any, Any]:
    """Draw inputs with zero steps at the start, at the end, between, and a row of nothing else."""
    inputs = np.random.default_rng(1).normal(size=(batch, TIME, FEATURES)).astype(np.float32)
    inputs[0, [0, 1, 3]] = 0
    inputs[1, 4:] = 0
    inputs[2] = 0
    return inputs


def step_by_step(runtime: CpuRuntime, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the outputs of one `advance` a time step, `(batch, time, output_size)`."""
    batch = len(inputs)
    slots = [[0] * batch] + [[runtime.allocate() for _ in range(batch)] for _ in range(2)]
    outputs = []
    for t in range(inputs.shape[1]):
        source = slots[0] if t == 0 else slots[1 + t % 2]
        target = slots[2 - t % 2]
        advanced = runtime.advance(source, target, inputs[:, t : t + 1], [1] * batch)
        outputs.append(advanced.outputs[:, 0])
    return np.stack(outputs, axis=1)


def layers_of(tensors: Any) -> list[str]:
    """Return the names of the layers that symbolic tensors come from."""
    return [tensor._keras_history.operation.name for tensor in tensors]  # noqa: SLF001


def check_parity(
    model: Any,
    directory: Path,
    inputs: np.ndarray[Any, Any] | None = None,
    *,
    rtol: float = 1e-6,
    is_compiled: bool = False,
) -> Network:
    """Compare a saved model's predictions with Keras's, and single steps with the sequence.

    Args:
        model: The model, which gets random weights.
        directory: Where to save it.
        inputs: Floats with a features axis, or integers without one.
        rtol: Relative and absolute tolerance against Keras.
        is_compiled: Whether Keras runs the graph that its `predict` compiles, or, faster by far for
            one batch, layer after layer.
    """
    inputs = masked_inputs() if inputs is None else inputs
    network = read_keras(save(model, directory))
    runtime = CpuRuntime(network, 2 * len(inputs))
    ours = inputs[..., None].astype(np.float32) if inputs.ndim == 2 else inputs
    if is_compiled:
        expected = model.predict(inputs, batch_size=len(inputs), verbose=0)
    else:
        expected = np.asarray(model(inputs, training=False))

    predicted = runtime.predict(ours)

    np.testing.assert_allclose(predicted, expected, rtol=rtol, atol=rtol)
    assert predicted.shape == expected.shape
    assert layers_of(model.inputs) == [network.inputs[0].name]
    assert layers_of(model.outputs) == [network.outputs[0].name]
    if not network.streaming_obstacles:
        steps = step_by_step(runtime, ours)
        last = steps if network.returns_sequences else steps[:, -1]
        np.testing.assert_allclose(last, predicted, rtol=1e-6, atol=1e-6)
    return network


def sequential(*chain: Any, batch: int | None = None, time: int | None = None) -> Any:
    """Build a Sequential model over real features."""
    return keras.Sequential([keras.Input((time, FEATURES), batch_size=batch), *chain])


LSTMS = {
    "sequences": lambda: [layers.LSTM(4, return_sequences=True)],
    "last": lambda: [layers.LSTM(4)],
    "no bias": lambda: [layers.LSTM(4, use_bias=False)],
    "activations": lambda: [
        layers.LSTM(4, activation="softsign", recurrent_activation="hard_sigmoid")
    ],
    "activation None": lambda: [
        layers.LSTM(2, activation=None, return_sequences=True),
        layers.LSTM(2, recurrent_activation=None),
    ],
    "activation function": lambda: [layers.LSTM(4, activation=keras.activations.elu)],
    "training options": lambda: [
        layers.LSTM(
            4,
            dropout=0.3,
            recurrent_dropout=0.2,
            kernel_regularizer="l2",
            bias_constraint="max_norm",
            activity_regularizer="l1",
            return_sequences=True,
        )
    ],
    "zero output": lambda: [layers.LSTM(4, return_sequences=True, zero_output_for_mask=True)],
    "zero last output": lambda: [layers.LSTM(4, zero_output_for_mask=True)],
    "backwards": lambda: [layers.LSTM(4, go_backwards=True)],
    "backwards sequences": lambda: [
        layers.LSTM(4, go_backwards=True, return_sequences=True, zero_output_for_mask=True)
    ],
    "backwards then on": lambda: [
        layers.LSTM(4, go_backwards=True, return_sequences=True),
        layers.LSTM(3, return_sequences=True),
    ],
    "stacked": lambda: [
        layers.LSTM(4, return_sequences=True),
        layers.LSTM(3, return_sequences=True),
        layers.LSTM(5),
    ],
    "RNN of a cell": lambda: [layers.RNN(layers.LSTMCell(4), return_sequences=True)],
    "RNN of cells": lambda: [
        layers.RNN([layers.LSTMCell(4), layers.LSTMCell(3)], return_sequences=True)
    ],
    "StackedRNNCells": lambda: [
        layers.RNN(
            layers.StackedRNNCells([layers.LSTMCell(2), layers.LSTMCell(3, use_bias=False)]),
            zero_output_for_mask=True,
        )
    ],
}


@pytest.mark.parametrize("is_masked", [False, True], ids=["live", "masked"])
@pytest.mark.parametrize("name", LSTMS)
def test_lstm_arguments(name, is_masked, tmp_path):
    """Every argument of an LSTM that matters at inference gives Keras's numbers."""
    masking = [layers.Masking()] if is_masked else []
    check_parity(sequential(*masking, *LSTMS[name]()), tmp_path)


def test_stateful_unrolled_lstm_is_read_from_zeros(tmp_path):
    """A stateful, unrolled model of fixed shape is read as any other."""
    lstm = layers.LSTM(4, stateful=True, unroll=True, return_sequences=True)
    model = sequential(layers.Masking(), lstm, batch=4, time=TIME)
    check_parity(model, tmp_path, is_compiled=True)


@pytest.mark.parametrize(
    "activation",
    [
        "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu", "linear",
        "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softmax",
        "softplus", "softsign", "tanh",
    ],
)  # fmt: skip
def test_every_activation(activation, tmp_path):
    """Every activation known here is Keras's function of that name, as argument and as layer."""
    chain = [
        layers.Dense(5, activation=activation),
        layers.LSTM(2, return_sequences=True),
        layers.Activation(activation),
    ]
    check_parity(sequential(*chain), tmp_path)


BIDIRECTIONALS = {
    "concat": lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
    "sum": lambda: layers.Bidirectional(layers.LSTM(4), merge_mode="sum"),
    "mul": lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="mul"),
    "ave": lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="ave"),
    "backward_layer": lambda: layers.Bidirectional(
        layers.LSTM(4, return_sequences=True),
        backward_layer=layers.LSTM(
            4, return_sequences=True, go_backwards=True, activation="relu", use_bias=False
        ),
    ),
    "reversed": lambda: layers.Bidirectional(
        layers.LSTM(4, return_sequences=True, go_backwards=True),
        backward_layer=layers.LSTM(4, return_sequences=True),
    ),
    "zero_output": lambda: layers.Bidirectional(layers.LSTM(4, zero_output_for_mask=True)),
    "RNN": lambda: layers.Bidirectional(layers.RNN(layers.LSTMCell(4), return_sequences=True)),
}


@pytest.mark.parametrize("is_masked", [False, True], ids=["live", "masked"])
@pytest.mark.parametrize("name", BIDIRECTIONALS)
def test_bidirectional(name, is_masked, tmp_path):
    """Both directions, every merge mode, with and without a mask that goes on behind it."""
    masking = [layers.Masking()] if is_masked else []
    bidirectional = BIDIRECTIONALS[name]()
    tail = [layers.LSTM(3)] if bidirectional.return_sequences else [layers.Dense(2)]
    network = check_parity(sequential(*masking, bidirectional, *tail), tmp_path)
    assert network.streaming_obstacles == [
        "bidirectional runs in both directions, so it needs the whole sequence at once"
    ]


POINTWISE = {
    "Dense": lambda: layers.Dense(4, activation="tanh"),
    "Dense without bias": lambda: layers.Dense(4, use_bias=False),
    "TimeDistributed": lambda: layers.TimeDistributed(layers.Dense(4, activation="relu")),
    "TimeDistributed normalisation": lambda: layers.TimeDistributed(layers.BatchNormalization()),
    "TimeDistributed LayerNormalization": lambda: layers.TimeDistributed(
        layers.LayerNormalization(axis=1)
    ),
    "TimeDistributed PReLU": lambda: layers.TimeDistributed(layers.PReLU()),
    "TimeDistributed Dropout": lambda: layers.TimeDistributed(layers.Dropout(0.5)),
    "Dropout": lambda: layers.Dropout(0.5),
    "SpatialDropout1D": lambda: layers.SpatialDropout1D(0.5),
    "GaussianNoise": lambda: layers.GaussianNoise(0.5),
    "GaussianDropout": lambda: layers.GaussianDropout(0.5),
    "AlphaDropout": lambda: layers.AlphaDropout(0.5),
    "ActivityRegularization": lambda: layers.ActivityRegularization(0.1),
    "Identity": layers.Identity,
    "ReLU": layers.ReLU,
    "ReLU with parameters": lambda: layers.ReLU(
        max_value=0.9, negative_slope=0.25, threshold=0.125
    ),
    "LeakyReLU": lambda: layers.LeakyReLU(negative_slope=0.125),
    "ELU": lambda: layers.ELU(alpha=0.5),
    "PReLU": lambda: layers.PReLU(shared_axes=[1]),
    "PReLU shared": lambda: layers.PReLU(shared_axes=[1, 2]),
    "BatchNormalization": lambda: layers.BatchNormalization(epsilon=0.01),
    "BatchNormalization axis 2": lambda: layers.BatchNormalization(axis=2, scale=False),
    "BatchNormalization frozen": lambda: layers.BatchNormalization(trainable=False, center=False),
    "BatchNormalization renorm": lambda: layers.BatchNormalization(renorm=True),
    "LayerNormalization": lambda: layers.LayerNormalization(epsilon=0.01),
    "LayerNormalization without": lambda: layers.LayerNormalization(scale=False, center=False),
    "LayerNormalization beta": lambda: layers.LayerNormalization(scale=False, axis=[2]),
    "LayerNormalization rms": lambda: layers.LayerNormalization(rms_scaling=True),
    "Normalization adapted": layers.Normalization,
    "Normalization inverted": lambda: layers.Normalization(invert=True),
    "Normalization of all": lambda: layers.Normalization(axis=None),
    "Normalization given": lambda: layers.Normalization(mean=[1, 2, 3], variance=[0, 1, 4]),
    "Normalization one number": lambda: layers.Normalization(mean=1.5, variance=4.0, invert=True),
    "Rescaling": lambda: layers.Rescaling(0.5, offset=1),
    "Rescaling vectors": lambda: layers.Rescaling(
        np.array([1.0, 2.0, 3.0]), offset=np.array([0.5, 0.0, 1.0])
    ),
    "Masking again": lambda: layers.Masking(0.5),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_layers(name, tmp_path):
    """Each stateless layer computes what Keras's does, and lets the mask through as it does."""
    inputs = masked_inputs()
    inputs[3, 2] = 0.5
    lstm = layers.LSTM(3, return_sequences=True)
    check_parity(sequential(layers.Masking(), POINTWISE[name](), lstm), tmp_path, inputs)


def test_layers_behind_the_last_step(tmp_path):
    """Behind the last LSTM an axis of 1 is the features', and PReLU has a slope for each."""
    head = [
        layers.LayerNormalization(axis=1),
        layers.BatchNormalization(axis=1),
        layers.Normalization(axis=1),
        layers.PReLU(),
        layers.Dense(4),
        layers.Softmax(axis=1),
    ]
    check_parity(sequential(layers.Masking(), layers.LSTM(4), *head), tmp_path)


@pytest.mark.parametrize("mask_zero", [False, True])
@pytest.mark.parametrize("is_functional", [False, True])
def test_embedding(mask_zero, is_functional, tmp_path):
    """Integers go through the table; zeros are masked if the layer says so."""
    ids = np.random.default_rng(0).integers(0, 4, (4, TIME))
    ids[2] = 0
    chain = [
        layers.Dropout(0.1),
        layers.Embedding(4, 5, mask_zero=mask_zero),
        layers.LSTM(3, return_sequences=True),
        layers.LSTM(2, return_sequences=True),
    ]
    if is_functional:
        inputs = outputs = keras.Input((None,), dtype="int32")
        for layer in chain[1:]:
            outputs = layer(outputs)
        model = keras.Model(inputs, outputs)
    else:
        model = keras.Sequential([keras.Input((None,)), *chain])
    network = check_parity(model, tmp_path, ids, is_compiled=True)
    assert (network.input_size, network.vocabulary) == (1, 4)


def test_functional_chain_with_masks_and_states(tmp_path):
    """A functional chain is read, though Keras writes mask operations and states into its graph."""
    inputs = keras.Input((None, FEATURES))
    x = layers.Masking()(inputs)
    x = layers.Dense(4)(x)
    x, _, _ = layers.LSTM(4, return_sequences=True, return_state=True)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Masking(0.25)(x)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.LSTM(2)(x)
    check_parity(keras.Model(inputs, layers.Dense(2)(x)), tmp_path, is_compiled=True)


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_functional_inputs_and_outputs_in_containers(structure, tmp_path):
    """One input and one output may come in a list or a dict."""
    inputs = keras.Input((None, FEATURES), name="a")
    outputs = layers.LSTM(3)(inputs)
    model = (
        keras.Model([inputs], [outputs])
        if structure == "list"
        else keras.Model({"a": inputs}, {"b": outputs})
    )
    randomise(model)
    path = tmp_path / "model.keras"
    model.save(path)
    x = masked_inputs()
    expected = model({"a": x} if structure == "dict" else [x])
    expected = (
        expected["b"]
        if structure == "dict"
        else expected[0]
        if isinstance(expected, list)
        else expected
    )
    np.testing.assert_allclose(
        CpuRuntime(read_keras(path), 1).predict(x), np.asarray(expected), rtol=1e-6, atol=1e-6
    )


def test_nested_models(tmp_path):
    """Nested models are unfolded, each with its own weights, and a mask passes through them."""
    inner_inputs = keras.Input((None, 4))
    inner = keras.Model(inner_inputs, layers.LSTM(4, return_sequences=True)(inner_inputs))
    model = sequential(
        layers.Masking(),
        keras.Sequential([layers.Dense(4), layers.LSTM(4, return_sequences=True), layers.Dense(4)]),
        inner,
        keras.Sequential([layers.LSTM(4, return_sequences=True)]),
        layers.Dense(2),
    )
    network = check_parity(model, tmp_path, is_compiled=True)
    assert [part.layer for part in network.state_layout[::2]] == [
        "sequential/lstm_1",
        "functional/lstm",
        "sequential_1/lstm_2",
    ]


def test_functional_model_around_nested_models(tmp_path):
    """A functional chain of nested models keeps the mask too."""
    inner_inputs = keras.Input((None, FEATURES))
    inner = keras.Model(inner_inputs, layers.LSTM(4, return_sequences=True)(inner_inputs))
    inputs = keras.Input((None, FEATURES))
    outputs = layers.LSTM(3)(inner(layers.Masking()(inputs)))
    check_parity(keras.Model(inputs, outputs), tmp_path, is_compiled=True)


def test_same_classes_get_their_own_weights(tmp_path):
    """Layers of one class in any number, with other names and between others, keep their order."""
    chain = [layers.Dense(3, name=f"z{9 - i}") for i in range(3)]
    chain += [layers.LSTM(3, return_sequences=True, name=f"b{i % 2}{i}") for i in range(12)]
    check_parity(sequential(*chain, layers.Dense(3, name="dense")), tmp_path, rtol=3e-6)


@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [("mixed_float16", 3e-3), ("mixed_bfloat16", 3e-2), ("bfloat16", 3e-2), ("float64", 1e-6)],
)
def test_other_precisions_compute_in_float32(policy, tolerance, tmp_path):
    """A model of another precision is read, and agrees within that precision."""
    # bfloat16 has no orthogonal initialisation (QR).
    lstm = layers.LSTM(4, return_sequences=True, dtype=policy, recurrent_initializer="uniform")
    model = sequential(lstm, layers.Dense(2, dtype=policy))
    check_parity(model, tmp_path, rtol=tolerance)


OWN_LSTMS: dict[str, dict[str, Any]] = {
    "sequences": {"return_sequences": True},
    "backwards": {"go_backwards": True},
    "zero_output_for_mask": {"return_sequences": True, "zero_output_for_mask": True},
    "implementation 1": {"implementation": 1, "use_bias": False},
    "activations": {"activation": None, "recurrent_activation": "hard_sigmoid"},
}


@pytest.mark.parametrize("name", OWN_LSTMS)
def test_own_layer(name, tmp_path):
    """Our own layer's files give its own predictions."""
    own = pytest.importorskip("lstm_core.layers.lstm").LSTM
    check_parity(sequential(layers.Masking(), own(4, **OWN_LSTMS[name])), tmp_path)


def test_own_layer_inside_bidirectional_and_beside_keras(tmp_path):
    """Our layer and Keras's share a name in the file, and our layer works in both directions."""
    own = pytest.importorskip("lstm_core.layers.lstm").LSTM
    chain = [
        layers.Masking(),
        layers.LSTM(3, return_sequences=True),
        own(4, return_sequences=True),
        layers.Bidirectional(own(3, return_sequences=True)),
        layers.LSTM(3),
    ]
    check_parity(sequential(*chain), tmp_path)


def test_own_layer_with_time_before_batch_is_refused(tmp_path):
    """A network has the batch before the time."""
    own = pytest.importorskip("lstm_core.layers.lstm").LSTM
    model = keras.Sequential([keras.Input((4, FEATURES)), own(4, time_major=True)])
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(FormatError, match="time_major=True puts time before the batch"):
        read_keras(path)


def refusals(model: Any, directory: Path) -> list[str]:
    """Return the problems that a saved model is refused for."""
    path = directory / "model.keras"
    model.save(path)
    with pytest.raises(FormatError, match=f"written by Keras {keras.__version__}") as caught:
        read_keras(path)
    return caught.value.problems


@keras.saving.register_keras_serializable(package="Test")
def doubled(x: Any) -> Any:
    """Return `2 x`."""
    return 2 * x


@keras.saving.register_keras_serializable(package="Test", name="LSTM")
class ForeignLSTM(keras.layers.LSTM):  # type: ignore[name-defined]
    """A custom layer of a familiar name."""


def test_every_layer_that_cannot_be_read_is_named(tmp_path):
    """One error names each layer and its reason, also where one has the name of a known class."""
    tuned = layers.Dense(8, name="tuned")
    model = sequential(
        layers.LSTM(4, return_sequences=True, activation=doubled),
        ForeignLSTM(4, return_sequences=True, name="foreign"),
        layers.GRU(4, return_sequences=True),
        layers.Lambda(lambda x: x),
        layers.Dense(8, name="small"),
        tuned,
        layers.Conv1D(4, 2),
        layers.TimeDistributed(layers.Reshape((2, 2))),
        layers.Reshape((-1, 4)),
        layers.BatchNormalization(),
        layers.Bidirectional(layers.GRU(2, return_sequences=True)),
        layers.RNN(layers.GRUCell(3), return_sequences=True),
        layers.LSTM(3, activation="softmax", return_sequences=True, name="soft"),
        layers.Dense(2, activation=layers.ReLU()),
        layers.GlobalAveragePooling1D(),
        time=5,
    )
    next(layer for layer in model.layers if layer.name == "small").quantize("int8")
    tuned.enable_lora(2)
    problems = refusals(model, tmp_path)
    expected = [
        ("lstm", "activation Test>doubled is code"),
        ("foreign", "is a Test>LSTM, a custom layer"),
        ("gru", "is a GRU"),
        ("lambda", "Python code, which is never run"),
        ("small", "quantised"),
        ("tuned", "LoRA"),
        ("conv1d", "is a Conv1D"),
        ("time_distributed", "cannot serve a Reshape for each time step"),
        ("reshape_1", "is a Reshape"),
        ("bidirectional", "wraps a GRU"),
        ("rnn", "its cell is a GRUCell"),
        ("soft", "unknown activation 'softmax'"),
        ("dense", "activation ReLU is code or a layer"),
        ("global_average_pooling1d", "is a GlobalAveragePooling1D"),
    ]
    assert [problem.split(":")[0] for problem in problems] == [name for name, _ in expected]
    for problem, (_, reason) in zip(problems, expected, strict=True):
        assert reason in problem


def test_branches_are_refused(tmp_path):
    """A model that is no chain is refused, and what else is wrong with it is named too."""
    inputs = keras.Input((None, FEATURES))
    x = layers.LSTM(4, return_sequences=True)(inputs)
    y = layers.GRU(4, return_sequences=True)(x)
    problems = refusals(keras.Model(inputs, layers.Dense(2)(layers.Add()([x, y]))), tmp_path)
    assert sorted(problem.split(":")[0] for problem in problems) == ["add", "gru"]
    assert "add: joins 2 layers; only a chain can be served" in problems


def test_wirings_that_are_no_chain(tmp_path):
    """Several inputs or outputs, states, masks, training, shared layers: each has its reason."""
    inputs = keras.Input((4, FEATURES))
    lstm = layers.LSTM(FEATURES, return_sequences=True, return_state=True, name="lstm")
    sequence, h, c = lstm(inputs)

    def refused(outputs: Any, first: Any = inputs) -> str:
        return " ".join(refusals(keras.Model(first, outputs), tmp_path))

    assert "has 3 outputs (lstm, lstm, lstm)" in refused([sequence, h, c])
    assert "lstm: gives its output number 1 on, a state" in refused(layers.Dense(1)(h))
    decoder = layers.LSTM(FEATURES, name="decoder")
    assert "decoder: is called with initial_state" in refused(
        decoder(sequence, initial_state=[h, c])
    )
    dropout = layers.Dropout(0.5, name="dropout")
    assert "dropout: is called with training=True" in refused(dropout(sequence, training=True))
    other = keras.Input((4,), dtype="bool", name="given")
    masked = layers.LSTM(2, name="masked")(sequence, mask=other)
    assert "has 2 inputs" in refused(masked, [inputs, other])
    own_mask = keras.ops.any(keras.ops.not_equal(inputs, 7.0), axis=-1)
    masked = layers.LSTM(2, name="masked")(sequence, mask=own_mask)
    assert "masked: is called with a mask made outside the chain" in refused(masked)
    twice = layers.LSTM(FEATURES, return_sequences=True, name="twice")
    assert "twice: is called 2 times" in refused(twice(twice(inputs)))
    assert "is the operation Multiply" in refused(sequence * 2)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (lambda: [layers.LSTM(4, return_state=True)], "lstm: gives its states on"),
        (lambda: [layers.Bidirectional(layers.LSTM(4), merge_mode=None)], "merge_mode is None"),
        (
            lambda: [layers.RNN([layers.LSTMCell(4), layers.LSTMCell(3)], go_backwards=True)],
            "several cells backwards",
        ),
        (lambda: [layers.LayerNormalization(axis=1), layers.LSTM(2)], "along axis [1]"),
        (lambda: [layers.Normalization(axis=(1, 2)), layers.LSTM(2)], "along axis [1, 2]"),
        (lambda: [layers.PReLU(), layers.LSTM(2)], "slopes of its own for each time step"),
        (lambda: [layers.Softmax(axis=1), layers.LSTM(2)], "along axis 1"),
        (lambda: [layers.Dense(2)], "there is no recurrent layer"),
    ],
)
def test_arguments_that_cannot_be_served(chain, reason, tmp_path):
    """Arguments that a network cannot express are refused with their reason."""
    assert reason in " ".join(refusals(sequential(*chain(), time=5), tmp_path))


def test_softmax_layer_that_a_mask_reaches_is_refused(tmp_path):
    """Keras applies the mask to the features there: it fails, or is silently wrong where T = F."""
    model = keras.Sequential(
        [keras.Input((FEATURES, FEATURES)), layers.Masking(), layers.Softmax(), layers.LSTM(2)]
    )
    assert "softmax: Keras applies the time steps' mask" in refusals(model, tmp_path)[0]


@pytest.mark.parametrize("shape", [(FEATURES,), (4, 5, FEATURES)])
def test_inputs_of_other_ranks_are_refused(shape, tmp_path):
    """A network takes features or integers over time, nothing else."""
    flat = layers.Reshape((-1, FEATURES))
    model = keras.Sequential([keras.Input(shape), flat, layers.LSTM(2)])
    problems = refusals(model, tmp_path)
    assert [p.split(":")[0] for p in problems] == ["input_layer", "reshape"]


def test_other_files_of_keras_are_told_apart(tmp_path):
    """Legacy HDF5 models, mere weights, SavedModels and unpacked models say what they are."""
    model = sequential(layers.LSTM(2))
    model.save(tmp_path / "model.h5")
    model.save_weights(tmp_path / "model.weights.h5")
    keras.saving.save_model(model, tmp_path / "unpacked", zipped=False)
    for name, what in (
        ("model.h5", "HDF5"),
        ("model.weights.h5", "HDF5"),
        ("unpacked", "a directory"),
    ):
        with pytest.raises(FormatError, match=what):
            read_keras(tmp_path / name)


def test_reading_and_predicting_imports_neither_keras_nor_tensorflow(tmp_path):
    """A service without TensorFlow can read and run a file."""
    path = save(sequential(layers.Masking(), layers.LSTM(4), layers.Dense(2)), tmp_path)
    script = (
        "import sys, numpy as np\n"
        "from lstm_core.formats.keras import read_keras\n"
        "from lstm_core.runtime.cpu import CpuRuntime\n"
        "runtime = CpuRuntime(read_keras(sys.argv[1]), 1)\n"
        "assert runtime.predict(np.ones((1, 5, 3), np.float32)).shape == (1, 2)\n"
        "assert not {'keras', 'tensorflow', 'ml_dtypes'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, cwd=Path.cwd())


# Hypothesis draws what to build; the layers, which draw random seeds, are made inside the test.
BUILDERS = {
    "LSTM": lambda n: layers.LSTM(n, return_sequences=True),
    "LSTM of zeros": lambda n: layers.LSTM(
        n, return_sequences=True, zero_output_for_mask=True, use_bias=False
    ),
    "Bidirectional": lambda n: layers.Bidirectional(layers.LSTM(n, return_sequences=True)),
    "RNN": lambda n: layers.RNN([layers.LSTMCell(n), layers.LSTMCell(3)], return_sequences=True),
    "Dense": lambda n: layers.Dense(n, activation="tanh"),
    "TimeDistributed": lambda n: layers.TimeDistributed(layers.Dense(n)),
    "nested": lambda n: keras.Sequential([layers.Dense(n), layers.LSTM(n, return_sequences=True)]),
    "BatchNormalization": lambda _: layers.BatchNormalization(),
    "LayerNormalization": lambda _: layers.LayerNormalization(epsilon=0.1),
    "Dropout": lambda _: layers.Dropout(0.5),
    "Rescaling": lambda n: layers.Rescaling(1 / n, offset=0.1),
    "Masking": lambda n: layers.Masking(n - 1),
}


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    chain=st.lists(st.tuples(st.sampled_from(list(BUILDERS)), st.integers(1, 5)), max_size=4),
    is_last=st.booleans(),
)
def test_random_chains(chain, is_last, tmp_path):
    """Any chain of known layers gives Keras's numbers, by sequence and step by step."""
    tail = [layers.LSTM(3, return_sequences=not is_last), layers.Dense(2)]
    built = [BUILDERS[name](units) for name, units in chain]
    check_parity(sequential(*built, *tail), tmp_path, rtol=2e-6, is_compiled=True)
