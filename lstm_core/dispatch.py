"""Which kernel runs, decided from the spec, the call and the hardware, with the reason in words.

Pure: names the kernels without importing them, and looks at no hardware itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lstm_core.errors import LSTMCoreError, SpecError
from lstm_core.spec import LSTMSpec

UseCudnn = Literal["auto"] | bool
"""Whether a layer runs on cuDNN: where it can, always (else an error), or never."""

BAD_MASK = "the mask is not right-padded with at least one live step in each row"
"""The sixth condition of cuDNN, when it is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """A decision.

    Attributes:
        kernel: A module of `lstm_core.kernels`: `native` or `numpy` without TensorFlow, else
            `cudnn`, `block` or `tensorflow`.
        device: Where it runs, `cpu` or `gpu`.
        reason: Why this one, and what stood in the way of a faster one.
        fallback: The kernel of calls whose data this one does not take, which is decided at run
            time; None where it takes all.
    """

    kernel: str
    device: str
    reason: str
    fallback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """What of a Keras layer's configuration decides the kernel.

    Attributes:
        activation: A name of `spec.ACTIVATIONS`, or of a function that is none of them.
        recurrent_activation: The same, of the gates.
        use_bias: Whether there is a bias.
        dropout: Its rate, 0 to 1.
        recurrent_dropout: Its rate, 0 to 1.
        implementation: 1 draws a dropout mask for each gate, 2 one for all.
        unroll: Whether the time loop is unrolled into the graph.
        use_cudnn: What the user asked for.
    """

    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    use_bias: bool = True
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    implementation: int = 2
    unroll: bool = False
    use_cudnn: UseCudnn = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Where a call runs.

    Attributes:
        num_gpus: GPUs that TensorFlow sees.
        is_placed_on_cpu: Whether the call stands under `tf.device("CPU")`.
        is_in_xla: Whether XLA compiles the call (`jit_compile`).
    """

    num_gpus: int = 0
    is_placed_on_cpu: bool = False
    is_in_xla: bool = False

    @property
    def device(self) -> str:
        """Where the call runs, `cpu` or `gpu`."""
        return "gpu" if self.num_gpus and not self.is_placed_on_cpu else "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A kernel that could run, and what stands in its way.

    Attributes:
        kernel: Its name.
        obstacles: Empty where nothing does.
    """

    kernel: str
    obstacles: Sequence[str] = ()


class CudnnUnavailableError(LSTMCoreError, ValueError):
    """cuDNN was asked for (`use_cudnn=True`) where it cannot run.

    Made by `of`; its constructor takes a whole message, since Keras raises errors out of a call
    anew that way, without the fields.

    Attributes:
        layer_name: Of the layer that was asked.
        obstacles: Each condition that is broken.
    """

    layer_name: str = ""
    obstacles: Sequence[str] = ()

    @classmethod
    def of(cls, layer_name: str, obstacles: Sequence[str]) -> CudnnUnavailableError:
        """Return the error of a layer."""
        error = cls(
            f"layer {layer_name} has use_cudnn=True, but cuDNN cannot run it: "
            f"{', '.join(obstacles)}. use_cudnn='auto' runs it on another kernel"
        )
        error.layer_name = layer_name
        error.obstacles = list(obstacles)
        return error


def dispatch_runtime(
    spec: LSTMSpec, *, instruction_set: str | None = None, obstacles: Sequence[str] = ()
) -> Dispatch:
    """Choose the kernel of a network that is served without TensorFlow.

    Args:
        spec: Of one of its layers.
        instruction_set: The fastest one that the native kernel can run on here; None: none.
        obstacles: What stands in the way of the native kernel.
    """
    if instruction_set is not None and not obstacles:
        return Dispatch(
            kernel="native",
            device="cpu",
            reason=f"{spec.units} units run in C on {instruction_set}, each row to the same bits "
            "whatever else shares its batch",
        )
    return Dispatch(
        kernel="numpy",
        device="cpu",
        reason="NumPy takes every case; not native: "
        + (", ".join(obstacles) or "it was not asked for"),
    )


def checked_use_cudnn(use_cudnn: object) -> UseCudnn:
    """Return `auto`, True or False, as Keras 3 has them.

    Args:
        use_cudnn: One of these, or `always` or `never`.

    Raises:
        SpecError: It is something else.
    """
    if use_cudnn is True or use_cudnn == "always":
        return True
    if use_cudnn is False or use_cudnn == "never":
        return False
    if use_cudnn == "auto":
        return "auto"
    raise SpecError(
        "use_cudnn", f"must be 'auto', 'always' (True) or 'never' (False), not {use_cudnn!r}"
    )


def dispatch_layer(
    options: LayerOptions,
    hardware: Hardware,
    *,
    layer_name: str = "lstm",
    obstacles: Sequence[str] = (),
    others: Sequence[Candidate] = (),
) -> Dispatch:
    """Choose the kernel of a Keras layer's call: the first that nothing stands in the way of.

    Args:
        options: Of the layer.
        hardware: Of the call.
        layer_name: For messages.
        obstacles: What else stands in the way of cuDNN.
        others: Kernels to try after cuDNN and before TensorFlow's operations, which take every
            case.

    Raises:
        CudnnUnavailableError: cuDNN was asked for and cannot run.
    """
    obstacles = [*obstacles, *cudnn_obstacles(options), *hardware_obstacles(hardware)]
    if obstacles and options.use_cudnn is True:
        raise CudnnUnavailableError.of(layer_name, obstacles)
    if options.use_cudnn is False:
        obstacles.insert(0, "use_cudnn is False")
    candidates = [
        Candidate(kernel="cudnn", obstacles=obstacles),
        *others,
        Candidate(kernel="tensorflow"),
    ]
    at = next(i for i, candidate in enumerate(candidates) if not candidate.obstacles)
    kernel = candidates[at].kernel
    if kernel == "cudnn":
        fallback = next(other.kernel for other in candidates[1:] if not other.obstacles)
        return Dispatch(
            kernel=kernel,
            device=hardware.device,
            reason=f"cuDNN's conditions hold; {fallback} takes calls without a step, and, unless "
            "use_cudnn is True, those where " + BAD_MASK,
            fallback=fallback,
        )
    passed = "; ".join(f"not {c.kernel}: {', '.join(c.obstacles)}" for c in candidates[:at])
    what = "TensorFlow operations take every case" if kernel == "tensorflow" else f"{kernel} fits"
    return Dispatch(kernel=kernel, device=hardware.device, reason=f"{what}; {passed}")


def require_cudnn_configuration(options: LayerOptions, layer_name: str) -> None:
    """Refuse a configuration that asks for cuDNN and breaks a condition of it, on any hardware.

    Raises:
        CudnnUnavailableError: It does.
    """
    obstacles = cudnn_obstacles(options)
    if obstacles and options.use_cudnn is True:
        raise CudnnUnavailableError.of(layer_name, obstacles)


def cudnn_obstacles(options: LayerOptions) -> list[str]:
    """Name each condition of cuDNN's LSTM, and of its GRU, that the configuration breaks.

    The sixth condition, a mask that is strictly right-padded, is data: it is decided at run time.

    References:
        The documentation of `tf.keras.layers.LSTM`, TensorFlow 2.
    """
    return [
        obstacle
        for is_broken, obstacle in (
            (options.activation != "tanh", f"activation is {options.activation}, not tanh"),
            (
                options.recurrent_activation != "sigmoid",
                f"recurrent_activation is {options.recurrent_activation}, not sigmoid",
            ),
            (
                options.recurrent_dropout != 0,
                f"recurrent_dropout is {options.recurrent_dropout}, not 0",
            ),
            (options.unroll, "unroll is on"),
            (not options.use_bias, "use_bias is off"),
            (
                # Not documented, because TensorFlow 2 ignores `implementation` there.
                bool(options.dropout)
                and not options.recurrent_dropout
                and options.implementation == 1,
                "implementation 1 draws a dropout mask for each gate, and cuDNN takes one",
            ),
        )
        if is_broken
    ]


def hardware_obstacles(hardware: Hardware) -> list[str]:
    """Name what about the place of a call stands in cuDNN's way."""
    if hardware.num_gpus == 0:
        return ["TensorFlow sees no GPU"]
    return [
        obstacle
        for is_broken, obstacle in (
            (hardware.is_placed_on_cpu, "the call is placed on a CPU"),
            (hardware.is_in_xla, "XLA (jit_compile) does not take cuDNN's operation"),
        )
        if is_broken
    ]
