"""What of a model's graph can be served a time step at a time, found out by trying.

A layer without a state runs on each time step alone in a session. So each one is asked here, on
random numbers, whether it gives the same for a time step alone as within a sequence, and whatever
else shares its batch. Nothing has to be known of a layer for that, and Keras's and a user's are
judged alike. A recurrent layer is asked whether it gives what its cell does step by step. What a
layer does to other numbers only (a branch that is never taken here), or only with time steps
further apart than the trial is long, is not found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lstm_core.errors import SpecError
from lstm_core.runtime.base import LayerReport
from lstm_core.runtime.tensorflow_graph import Arguments, Graph, mask_of, with_mask
from lstm_core.runtime.tensorflow_layers import (
    is_recurrent,
    outputs_both_ways,
    recurrence_obstacle,
    recurrence_tried,
)
from lstm_core.runtime.tensorflow_ports import Port, input_ports, output_ports
from lstm_core.runtime.tensorflow_recurrence import Recurrence
from lstm_core.runtime.tensorflow_trial import is_close, times_of_trial

Tensor: TypeAlias = Any
Operation: TypeAlias = Any
Kind: TypeAlias = Literal["timed", "steady", "state"]
"""A tensor with a time axis behind the batch; one without, or the states of a recurrent layer."""

_BATCH = 2
_FEW = 3
"""Time steps of a recurrent layer's trial."""
_FAULTS = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    tf.errors.OpError,
)
"""What calling a layer with what it does not take may raise."""
_NEEDS_ALL = "so it needs the whole sequence at once"
_SENTENCES = {
    "Conv": "combines neighbouring time steps",
    "Pooling": "pools over time steps",
    "Attention": "looks at other time steps",
    "Flatten": "puts all time steps side by side",
    "Reshape": "rearranges the time axis",
    "Permute": "rearranges the time axis",
    "RepeatVector": "makes time steps of its own",
}
"""By what the layer's class is called, for the usual ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a trial has found.

    Attributes:
        inputs: The model's inputs, in its order.
        outputs: The model's outputs, in its order.
        recurrences: One for each recurrent operation in the graph's order; None where it cannot
            keep a state here.
        obstacles: One sentence for each operation that needs the whole sequence at once.
        layers: Every layer, for people.
        length: The number of time steps that the model was built for; None where it leaves it open.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    recurrences: tuple[Recurrence | None, ...]
    obstacles: list[str]
    layers: list[LayerReport]
    length: int | None


def probe(graph: Graph, num_gpus: int) -> Findings:
    """Try a model.

    Args:
        graph: Of the model.
        num_gpus: GPUs that TensorFlow sees.

    Raises:
        SpecError: It cannot be served at all: the size of an input is open, nothing in it keeps a
            state, or it fails.
    """
    ports, length = input_ports(graph)
    *longer, shortest = [length] if length else times_of_trial(graph, _BATCH)
    for time in longer:
        try:
            return _Trial(graph, num_gpus, ports, length, time).run()
        except SpecError:
            continue  # a layer may know no more than so many positions
    return _Trial(graph, num_gpus, ports, length, shortest).run()


class _Trial:
    def __init__(
        self,
        graph: Graph,
        num_gpus: int,
        inputs: tuple[Port, ...],
        length: int | None,
        time: int,
    ) -> None:
        self._graph = graph
        self._num_gpus = num_gpus
        self._random = np.random.default_rng(0)
        self._kinds: dict[int, Kind] = {}
        self._kept: list[Tensor] = []  # so that no other tensor gets the id of one in `_kinds`
        self._names: dict[str, int] = {}
        self._obstacles: list[str] = []
        self._layers: list[LayerReport] = []
        self._recurrences: list[Recurrence | None] = []
        self._inputs, self._length = inputs, length
        self._time = time

    def run(self) -> Findings:
        tensors = [self._draw_input(port) for port in self._inputs]
        outputs = self._graph.run(tensors, self._call)
        if not self._recurrences:
            problem = "there is no recurrent layer, so there is no state to keep"
            raise SpecError(self._graph.model.name, problem)
        missing = [
            symbolic.name
            for symbolic, tensor in zip(self._graph.outputs, outputs, strict=True)
            if tensor is None or self._kind(tensor) == "state"
        ]
        self._obstacles += [f"the output {name} is a state of a layer" for name in missing]
        has_time = [tensor is not None and self._kind(tensor) == "timed" for tensor in outputs]
        return Findings(
            inputs=self._inputs,
            outputs=output_ports(self._graph, has_time),
            recurrences=tuple(self._recurrences),
            obstacles=list(dict.fromkeys(self._obstacles)),
            layers=self._layers,
            length=self._length,
        )

    def _draw_input(self, port: Port) -> Tensor:
        shape = (_BATCH, *((self._time,) if port.has_time else ()), *port.shape)
        values: npt.NDArray[Any] = self._random.normal(size=shape)
        if tf.as_dtype(port.dtype).is_integer or port.dtype == "bool":
            values = self._random.integers(0, port.part.vocabulary or 2, shape)
        return self._keep(tf.constant(values, port.dtype), "timed" if port.has_time else "steady")

    def _keep(self, tensor: Tensor, kind: Kind) -> Tensor:
        self._kinds[id(tensor)] = kind
        self._kept.append(tensor)
        return tensor

    def _kind(self, tensor: Any) -> Kind | None:
        return self._kinds.get(id(tensor))

    def _call(
        self, operation: Operation, arguments: Arguments | None, symbolic: Sequence[Tensor]
    ) -> Any:
        assert arguments is not None
        if is_recurrent(operation):
            return self._pass_recurrent(operation, arguments, symbolic)
        whole = _called(operation, arguments, self._graph.model.name)
        alone, fault = self._steps_alone(operation, arguments)
        outputs = []
        for index, tensor in enumerate(whole):
            if not tf.is_tensor(tensor):
                outputs.append(tensor)
                continue
            step = alone[index] if alone is not None and index < len(alone) else None
            kind = None if step is None else self._compare(tensor, step)
            if kind is None and fault is None:
                fault = _sentence(operation)
            outputs.append(self._keep(tensor, kind or self._guess(tensor)))
        if fault is not None:
            self._object(operation, fault)
        if isinstance(operation, keras.Layer) and outputs:
            self._report(operation, outputs[0], None)
        return outputs

    def _steps_alone(
        self, operation: Operation, arguments: Arguments
    ) -> tuple[list[Tensor] | None, str | None]:
        """Call an operation with every time step as a row of its own.

        Returns:
            What it gives, or None and a sentence that says why it cannot be called so.
        """
        if any(self._kind(value) == "state" for value in arguments.values):
            return None, "takes the states of a recurrent layer, which only a whole sequence ends"
        try:
            return _called(operation, arguments.map(self._alone), ""), None
        except (*_FAULTS, SpecError):
            return None, _sentence(operation)

    def _alone(self, value: Any) -> Any:
        """Return a tensor with its time steps as rows `(batch * time, 1, ...)`, masks too."""
        kind = self._kind(value)
        if kind == "steady":
            return tf.repeat(value, self._time, axis=0)
        if kind != "timed":
            return value
        mask = mask_of(value)
        rows = tf.reshape(value, (_BATCH * self._time, 1, *value.shape[2:]))
        return with_mask(rows, None if mask is None else tf.reshape(mask, (-1, 1)))

    def _compare(self, whole: Tensor, alone: Tensor) -> Kind | None:
        """Return the kind of an output that time steps alone give as well; None if they do not."""
        rest = tuple(whole.shape[2:])
        if tuple(alone.shape) == (_BATCH * self._time, 1, *rest) and self._is_timed(whole):
            steps = tf.reshape(alone, (_BATCH, self._time, *rest))
            if is_close(steps, whole):
                return "timed"
        if tuple(alone.shape) == (_BATCH * self._time, *whole.shape[1:]):
            steps = tf.reshape(alone, (_BATCH, self._time, *whole.shape[1:]))
            if is_close(steps[:, -1], whole):
                return "steady"
        return None

    def _is_timed(self, tensor: Tensor) -> bool:
        return tensor.shape.rank >= 2 and tensor.shape[1] == self._time

    def _guess(self, tensor: Tensor) -> Kind:
        return "timed" if self._is_timed(tensor) else "steady"

    def _pass_recurrent(
        self, layer: Operation, arguments: Arguments, symbolic: Sequence[Tensor]
    ) -> list[Tensor]:
        """Look at a recurrent layer, and go on with random numbers in the place of its outputs."""
        x = arguments.first
        fault = recurrence_obstacle(layer, x.shape.rank)
        if fault is None and self._kind(x) != "timed":
            fault = "does not run over the time steps of an input"
        if fault is None and any(self._kind(value) is not None for value in arguments.others):
            fault = "takes its first state from the graph, which a session would take once only"
        recurrence = None
        if fault is None:
            size = int(symbolic[0].shape[-1])
            few = x[:, :_FEW]
            recurrence = recurrence_tried(layer, self._name(layer), size, self._num_gpus, few)
            fault = self._difference(layer, recurrence, few)
        if fault is not None:
            self._object(layer, fault)
            recurrence = None
        self._recurrences.append(recurrence)
        outputs, *states = [self._draw_like(tensor) for tensor in symbolic]
        self._keep(outputs, "timed" if layer.return_sequences else "steady")
        self._report(layer, outputs, recurrence)
        with_mask(outputs, arguments.mask if layer.return_sequences else None)
        return [outputs, *(self._keep(state, "state") for state in states)]

    def _difference(self, layer: Operation, recurrence: Recurrence, x: Tensor) -> str | None:
        """Return a sentence if a layer of Keras does more than its cell, step after step."""
        # Ours are known by their names; what Keras has is what users derive theirs from.
        if not isinstance(layer, keras.layers.RNN):
            return None
        theirs, ours = outputs_both_ways(layer, recurrence, x)
        if is_close(ours, theirs):
            return None
        kind = type(layer).__name__
        return f"({kind}) gives something else than its cell from a state of zeros, {_NEEDS_ALL}"

    def _draw_like(self, symbolic: Tensor) -> Tensor:
        shape = [self._time if size is None else size for size in symbolic.shape[1:]]
        return tf.constant(self._random.normal(size=(_BATCH, *shape)), symbolic.dtype)

    def _name(self, layer: Operation) -> str:
        """Return a name for a layer's state, another one for each place that it is called at."""
        number = self._names[layer.name] = self._names.get(layer.name, 0) + 1
        return layer.name if number == 1 else f"{layer.name}#{number}"

    def _object(self, operation: Operation, fault: str) -> None:
        self._obstacles.append(f"{operation.name} {fault}")

    def _report(self, layer: Operation, output: Tensor, recurrence: Recurrence | None) -> None:
        rest = output.shape[2:] if self._kind(output) == "timed" else output.shape[1:]
        self._layers.append(
            LayerReport(
                name=layer.name,
                kind=type(layer).__name__,
                output_size=math.prod(rest),
                dispatch=None if recurrence is None else recurrence.dispatch,
            )
        )


def _called(operation: Operation, arguments: Arguments, model: str) -> list[Any]:
    try:
        return list(keras.tree.flatten(arguments.call(operation)))
    except _FAULTS as error:
        problem = f"cannot be called in {model}: {error}"
        raise SpecError(operation.name, problem) from error


def _sentence(operation: Operation) -> str:
    kind = type(operation).__name__
    for part, sentence in _SENTENCES.items():
        if part in kind:
            return f"{sentence}, {_NEEDS_ALL}"
    return (
        f"({kind}) gives something else for a time step alone than within a sequence, {_NEEDS_ALL}"
    )
