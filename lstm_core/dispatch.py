"""Which kernel runs, decided from the spec, the call and the hardware, with the reason in words.

Pure: names the kernels without importing them, and looks at no hardware itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from lstm_core.spec import LSTMSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """A decision.

    Attributes:
        kernel: A module of `lstm_core.kernels`: `numpy` or `tensorflow`.
        device: Where it runs, `cpu` or `gpu`.
        reason: Why this one, and what stood in the way of a faster one.
    """

    kernel: str
    device: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCall:
    """What a Keras layer's options add to its spec, as far as they decide the kernel.

    Attributes:
        recurrent_dropout: Its rate, 0 to 1.
        unroll: Whether the time loop is unrolled into the graph.
    """

    recurrent_dropout: float = 0.0
    unroll: bool = False


def dispatch_runtime(spec: LSTMSpec) -> Dispatch:
    """Choose the kernel of a network that is served without TensorFlow."""
    return Dispatch(
        kernel="numpy",
        device="cpu",
        reason=f"{spec.units} units run on BLAS products in NumPy, the only CPU kernel so far",
    )


def dispatch_layer(spec: LSTMSpec, call: LayerCall, num_gpus: int) -> Dispatch:
    """Choose the kernel of a Keras layer's call.

    Args:
        spec: The layer's configuration.
        call: The layer's other options.
        num_gpus: GPUs that TensorFlow sees.
    """
    obstacles = cudnn_obstacles(spec, call)
    if num_gpus == 0:
        obstacles.append("TensorFlow sees no GPU")
    if not obstacles:
        obstacles.append("this version has no cuDNN kernel")
    return Dispatch(
        kernel="tensorflow",
        device="gpu" if num_gpus else "cpu",
        reason=f"TensorFlow operations take every case; not cuDNN: {', '.join(obstacles)}",
    )


def cudnn_obstacles(spec: LSTMSpec, call: LayerCall) -> list[str]:
    """Name each condition of cuDNN's LSTM that the configuration breaks.

    The sixth condition, a mask that is strictly right-padded, is data: it is decided at run time.

    References:
        The documentation of `tf.keras.layers.LSTM`, TensorFlow 2.
    """
    return [
        obstacle
        for is_broken, obstacle in (
            (spec.activation != "tanh", f"activation is {spec.activation}, not tanh"),
            (
                spec.recurrent_activation != "sigmoid",
                f"recurrent_activation is {spec.recurrent_activation}, not sigmoid",
            ),
            (call.recurrent_dropout != 0, f"recurrent_dropout is {call.recurrent_dropout}, not 0"),
            (call.unroll, "unroll is on"),
            (not spec.use_bias, "use_bias is off"),
        )
        if is_broken
    ]
