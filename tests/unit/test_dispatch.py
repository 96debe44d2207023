"""Which kernel is chosen, from configuration and hardware alone, and the reasons that are told."""

from __future__ import annotations

import dataclasses

import pytest

from lstm_core.dispatch import (
    Candidate,
    CudnnUnavailableError,
    Hardware,
    LayerOptions,
    checked_use_cudnn,
    cudnn_obstacles,
    dispatch_layer,
    dispatch_runtime,
    require_cudnn_configuration,
)
from lstm_core.errors import SpecError
from lstm_core.spec import LSTMSpec

GPU = Hardware(num_gpus=1)

CONDITIONS = {
    "activation": ({"activation": "relu"}, "activation is relu, not tanh"),
    "recurrent_activation": (
        {"recurrent_activation": "hard_sigmoid"},
        "recurrent_activation is hard_sigmoid, not sigmoid",
    ),
    "recurrent_dropout": ({"recurrent_dropout": 0.2}, "recurrent_dropout is 0.2, not 0"),
    "unroll": ({"unroll": True}, "unroll is on"),
    "use_bias": ({"use_bias": False}, "use_bias is off"),
    "masks_by_gate": (
        {"dropout": 0.2, "implementation": 1},
        "implementation 1 draws a dropout mask for each gate, and cuDNN takes one",
    ),
}


def test_cudnn_where_every_condition_holds():
    """On a GPU the defaults run on cuDNN, and what it does not take falls back."""
    decision = dispatch_layer(LayerOptions(), GPU)
    assert ("cudnn", "gpu", "tensorflow") == (decision.kernel, decision.device, decision.fallback)
    assert "not right-padded" in decision.reason


@pytest.mark.parametrize(("options", "obstacle"), CONDITIONS.values(), ids=CONDITIONS.keys())
def test_each_condition_alone_forbids_cudnn(options, obstacle):
    """One broken condition is enough, is named, and is an error where cuDNN was asked for."""
    asked = LayerOptions(**options)
    decision = dispatch_layer(asked, GPU)
    assert [obstacle] == cudnn_obstacles(asked)
    assert ("tensorflow", "gpu", None) == (decision.kernel, decision.device, decision.fallback)
    assert f"TensorFlow operations take every case; not cudnn: {obstacle}" == decision.reason
    always = dataclasses.replace(asked, use_cudnn=True)
    for refuse in (
        lambda: require_cudnn_configuration(always, "mine"),
        lambda: dispatch_layer(always, GPU, layer_name="mine"),
    ):
        with pytest.raises(CudnnUnavailableError, match="layer mine has use_cudnn=True") as caught:
            refuse()
        assert [obstacle] == caught.value.obstacles
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("hardware", "device", "obstacle"),
    [
        (Hardware(), "cpu", "TensorFlow sees no GPU"),
        (Hardware(num_gpus=1, is_placed_on_cpu=True), "cpu", "the call is placed on a CPU"),
        (Hardware(num_gpus=2, is_in_xla=True), "gpu", "XLA (jit_compile) does not take"),
    ],
    ids=["no_gpu", "on_cpu", "xla"],
)
def test_hardware_forbids_cudnn(hardware, device, obstacle):
    """Where the call runs counts too: at the call, not when the layer is made."""
    decision = dispatch_layer(LayerOptions(), hardware)
    assert ("tensorflow", device) == (decision.kernel, decision.device)
    assert obstacle in decision.reason
    always = LayerOptions(use_cudnn=True)
    require_cudnn_configuration(always, "mine")
    with pytest.raises(CudnnUnavailableError) as caught:
        dispatch_layer(always, hardware)
    assert obstacle in str(caught.value)


def test_every_obstacle_is_told():
    """The reason names all that stands in the way, not only the first."""
    options = LayerOptions(activation="relu", unroll=True, use_cudnn=False)
    reason = dispatch_layer(options, Hardware()).reason
    assert (
        "TensorFlow operations take every case; not cudnn: use_cudnn is False, activation is relu, "
        "not tanh, unroll is on, TensorFlow sees no GPU"
    ) == reason


def test_never_keeps_away_from_cudnn():
    """With `use_cudnn` False a GPU runs TensorFlow's operations."""
    decision = dispatch_layer(LayerOptions(use_cudnn=False), GPU)
    assert ("tensorflow", "gpu") == (decision.kernel, decision.device)
    assert decision.reason.endswith("not cudnn: use_cudnn is False")


def test_other_kernels_stand_between():
    """The first kernel without an obstacle wins, and the others say why not."""
    free, blocked = Candidate(kernel="block"), Candidate(kernel="block", obstacles=["too wide"])
    assert "block" == dispatch_layer(LayerOptions(), Hardware(), others=[free]).kernel
    assert (
        "TensorFlow operations take every case; not cudnn: TensorFlow sees no GPU; "
        "not block: too wide"
    ) == dispatch_layer(LayerOptions(), Hardware(), others=[blocked]).reason
    assert "block" == dispatch_layer(LayerOptions(), GPU, others=[free]).fallback
    assert "tensorflow" == dispatch_layer(LayerOptions(), GPU, others=[blocked]).fallback


def test_more_obstacles_of_a_layer():
    """A layer can name an obstacle of its own."""
    assert "tensorflow" == dispatch_layer(LayerOptions(), GPU, obstacles=["skip_input"]).kernel


@pytest.mark.parametrize(
    ("given", "kept"),
    [("auto", "auto"), ("always", True), (True, True), ("never", False), (False, False)],
)
def test_use_cudnn_has_five_spellings_of_three(given, kept):
    """Words and Keras 3's values mean the same."""
    assert kept == checked_use_cudnn(given)


@pytest.mark.parametrize("given", ["maybe", None, 1, 0, "True"])
def test_other_values_of_use_cudnn_are_refused(given):
    """The message names the argument, the choices and what came."""
    with pytest.raises(SpecError, match=r"use_cudnn: must be 'auto', 'always' \(True\)") as caught:
        checked_use_cudnn(given)
    assert repr(given) in str(caught.value)


def test_serving_runs_on_the_native_kernel_where_nothing_stands_in_its_way():
    """The reason names the instruction set."""
    decision = dispatch_runtime(LSTMSpec(input_size=2, units=3), instruction_set="avx2")
    assert ("native", "cpu", None) == (decision.kernel, decision.device, decision.fallback)
    assert decision.reason.startswith("3 units run in C on avx2")


def test_without_the_native_kernel_serving_runs_on_numpy():
    """The reason tells what is missing."""
    spec = LSTMSpec(input_size=2, units=3)
    reason = dispatch_runtime(spec, obstacles=["it was not built", "and more"]).reason
    assert "NumPy takes every case; not native: it was not built, and more" == reason
    assert "not native: it was not asked for" in dispatch_runtime(spec).reason
    reason = dispatch_runtime(spec, instruction_set="avx2", obstacles=["a layer"]).reason
    assert "NumPy takes every case; not native: a layer" == reason
