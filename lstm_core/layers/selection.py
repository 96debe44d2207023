"""Which kernel a recurrent Keras layer's call runs on: asked, chosen, run, counted.

Owns the way from a layer's configuration to `lstm_core.dispatch`, and the choice that only the
data can make: cuDNN takes right-padded masks only, so inside graphs a `tf.cond` decides. Knows no
equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

from lstm_core.dispatch import (
    BAD_MASK,
    Candidate,
    CudnnUnavailableError,
    Dispatch,
    Hardware,
    LayerOptions,
    UseCudnn,
    dispatch_layer,
)
from lstm_core.errors import SpecError
from lstm_core.kernels import block, cudnn
from lstm_core.kernels import tensorflow as recurrence
from lstm_core.layers.arguments import activation_name, checked_mask, function_name

Tensor: TypeAlias = Any

KERNELS: dict[str, Callable[..., recurrence.Result]] = {
    "block": block.sequence,
    "cudnn": cudnn.sequence,
    "tensorflow": recurrence.sequence,
}
"""By the names that `Dispatch` has for them."""


def find_hardware() -> Hardware:
    """Look at where the present call runs.

    A device scope around a `tf.function` is not seen inside it, as TensorFlow does not tell.
    """
    # TensorFlow has no public way to ask for this, nor for an eager call's device.
    is_in_xla = bool(control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph()))
    num_gpus = len(tf.config.get_visible_devices("GPU"))
    if num_gpus == 0:
        return Hardware(is_in_xla=is_in_xla)
    device = context.context().device_name if tf.executing_eagerly() else tf.zeros(()).device
    return Hardware(
        num_gpus=num_gpus,
        is_placed_on_cpu=tf.DeviceSpec.from_string(device or "").device_type == "CPU",
        is_in_xla=is_in_xla,
    )


class KernelCounts(tf.Module):
    """How many calls each kernel has run, counted in eager code and in graphs alike.

    A `tf.Module`, so that Keras counts it neither among the weights nor into files.
    """

    def __init__(self) -> None:
        super().__init__(name="kernel_counts")
        with tf.init_scope(), tf.device("CPU"):
            self._counts = {
                kernel: tf.Variable(0, dtype=tf.int64, trainable=False, name=kernel)
                for kernel in KERNELS
            }

    def add(self, kernel: str) -> None:
        """Count one run of `kernel`."""
        self._counts[kernel].assign_add(1)

    def as_dict(self) -> dict[str, int]:
        """Return the number of runs by kernel."""
        return {kernel: int(count.numpy()) for kernel, count in self._counts.items()}


class KernelSelection:
    """Mixin of a `keras.Layer` that runs a recurrence."""

    name: str
    activation: Any
    recurrent_activation: Any
    use_bias: bool
    dropout: float
    recurrent_dropout: float
    implementation: int
    unroll: bool
    time_major: bool
    use_cudnn: UseCudnn
    compute_dtype: str
    variable_dtype: str

    _kernel_counts: KernelCounts | None = None

    def explain_dispatch(self, mask: Any = None) -> Dispatch:
        """Return the kernel that a call made here and now would run on, its device, and why.

        Args:
            mask: Of the call, as `call` takes it; None leaves open what only a mask decides.

        Raises:
            CudnnUnavailableError: `use_cudnn` is True and cuDNN cannot run.
        """
        decision = self._dispatch()
        if mask is None or decision.fallback is None:
            return decision
        mask = checked_mask(mask, None, self.name)
        mask = mask if self.time_major else tf.transpose(mask)
        if bool(cudnn.is_right_padded(mask)) and 0 not in mask.shape:
            return decision
        if self.use_cudnn is True and 0 not in mask.shape:
            raise CudnnUnavailableError.of(self.name, [BAD_MASK])
        why = "there is no step to run" if 0 in mask.shape else BAD_MASK
        return Dispatch(
            kernel=decision.fallback,
            device=decision.device,
            reason=f"{decision.fallback} takes every mask; not cudnn: {why}",
        )

    def count_kernels(self) -> None:
        """Begin to count which kernel each call runs, for `kernel_counts`.

        Off at first, since it costs an assignment a call. A graph that was traced before counts
        nothing.
        """
        if self._kernel_counts is None:
            self._kernel_counts = KernelCounts()

    @property
    def kernel_counts(self) -> dict[str, int]:
        """The number of calls by kernel since `count_kernels`, exact in graphs too.

        Raises:
            RuntimeError: `count_kernels` was not called.
        """
        if self._kernel_counts is None:
            raise RuntimeError(f"layer {self.name} counts no kernels: call count_kernels() first")
        return self._kernel_counts.as_dict()

    def _layer_options(self) -> LayerOptions:
        return LayerOptions(
            activation=_any_activation_name(self.activation),
            recurrent_activation=_any_activation_name(self.recurrent_activation),
            use_bias=self.use_bias,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            implementation=self.implementation,
            unroll=self.unroll,
            use_cudnn=self.use_cudnn,
        )

    def _other_kernels(self, hardware: Hardware) -> Sequence[Candidate]:
        """Return the kernels to try between cuDNN and TensorFlow's operations, fastest first.

        Each is named in `KERNELS`, with what stands in its way for this layer on `hardware`.
        """
        options = self._layer_options()
        obstacles = block.obstacles(
            activation=options.activation,
            recurrent_activation=options.recurrent_activation,
            dropout=options.dropout,
            recurrent_dropout=options.recurrent_dropout,
            implementation=options.implementation,
            unroll=options.unroll,
            compute_dtype=self.compute_dtype,
            variable_dtype=self.variable_dtype,
            num_gpus=hardware.num_gpus,
            is_in_xla=hardware.is_in_xla,
        )
        return (Candidate(kernel="block", obstacles=obstacles),)

    def _dispatch(self) -> Dispatch:
        hardware = find_hardware()
        return dispatch_layer(
            self._layer_options(),
            hardware,
            layer_name=self.name,
            others=self._other_kernels(hardware),
        )

    def _run_kernel(
        self,
        weights: recurrence.Weights,
        options: recurrence.Options,
        inputs: Tensor,
        *,
        h: Tensor,
        c: Tensor,
        mask: Tensor | None,
        dropout: recurrence.DropoutMasks,
    ) -> recurrence.Result:
        """Run the kernel that the configuration, the place and the data ask for.

        Args:
            weights: As `kernels.tensorflow.sequence`.
            options: As there.
            inputs: As there, time-major.
            h: As there.
            c: As there.
            mask: As there.
            dropout: As there.

        Raises:
            CudnnUnavailableError: `use_cudnn` is True and cuDNN cannot run. Where only the mask is
                in the way, a graph raises `tf.errors.InvalidArgumentError` when it runs.
        """
        decision = self._dispatch()

        def run(kernel: str, inputs: Tensor = inputs) -> recurrence.Result:
            if self._kernel_counts is not None:
                self._kernel_counts.add(kernel)
            sequence = KERNELS[kernel]
            return sequence(weights, options, inputs, h=h, c=c, mask=mask, dropout=dropout)

        if decision.fallback is None:
            return run(decision.kernel)
        fallback = decision.fallback
        takes = cudnn.takes(inputs, mask)
        is_empty = tf.logical_not(cudnn.takes(inputs, None))
        if tf.executing_eagerly() or isinstance(takes, bool):
            if bool(takes):
                return run(decision.kernel)
            if self.use_cudnn is True and not bool(is_empty):
                raise CudnnUnavailableError.of(self.name, [BAD_MASK])
            return run(fallback)

        def otherwise() -> recurrence.Result:
            if self.use_cudnn is not True:
                return run(fallback)
            message = str(CudnnUnavailableError.of(self.name, [BAD_MASK]))
            with tf.control_dependencies([tf.debugging.Assert(is_empty, [message])]):
                return run(fallback, tf.identity(inputs))

        results = tf.cond(
            takes, lambda: _as_tuple(run(decision.kernel)), lambda: _as_tuple(otherwise())
        )
        *outputs, last_output, last_h, last_c = results
        return recurrence.Result(
            outputs=outputs[0] if outputs else None, last_output=last_output, h=last_h, c=last_c
        )


def _as_tuple(result: recurrence.Result) -> tuple[Tensor, ...]:
    states = (result.last_output, result.h, result.c)
    return states if result.outputs is None else (result.outputs, *states)


def _any_activation_name(function: Callable[..., Any]) -> str:
    """Return the name of an activation, also of one that no spec knows."""
    try:
        return activation_name(function, "activation")
    except SpecError:
        return function_name(function)
