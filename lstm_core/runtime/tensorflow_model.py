"""A Keras model with all its states in one row, as a function of tensors.

Layers without a state see each time step as a row of its own, whatever the number of steps, so a
step and a sequence are the same to them. Owns how a time step's values lie in the model's inputs
and outputs. Keeps no state itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from lstm_core.network import StatePart
from lstm_core.runtime.base import LayerReport, ServedNetwork
from lstm_core.runtime.tensorflow_graph import Arguments, Graph, with_mask
from lstm_core.runtime.tensorflow_layers import is_recurrent
from lstm_core.runtime.tensorflow_ports import Port
from lstm_core.runtime.tensorflow_probe import probe
from lstm_core.runtime.tensorflow_recurrence import Recurrence
from lstm_core.runtime.tensorflow_states import States

Tensor: TypeAlias = Any
Operation: TypeAlias = Any


class StatefulModel:
    """A network as `runtime.base.ServedNetwork` tells it, and what it computes.

    Several inputs lie side by side in a time step's values, in the model's order; so do the
    outputs. An input without a time axis is part of every step, and a sequence takes the one of its
    last step. An output without one is given at every step, as if that were the last.

    Attributes:
        name: The model's name.
        inputs: Its inputs, among a time step's values.
        outputs: Its outputs, likewise.
        input_size: Values of a time step.
        output_size: Outputs of a time step.
        widest: The most values that a layer gives for a time step.
        returns_sequences: Whether some output has a time axis.
        vocabulary: The one input takes integers in [0, vocabulary); None where it does not, or is
            not the only one: then `inputs` tells it of each.
        state_layout: The parts of a state row, in Keras's order.
        state_size: The length of a state row.
        num_recurrent: How many recurrent layers or cells keep a state.
        streaming_obstacles: One sentence for each layer that needs the whole sequence at once.
        fingerprint: SHA-256 of the inference configuration and the weights.
        length: The number of time steps that the whole model takes; None where any.
        layers: Its layers, for people.
    """

    def __init__(
        self, model: keras.Model, num_gpus: int, like: ServedNetwork | None = None
    ) -> None:
        """Find out what of a model can stream.

        Args:
            model: A Sequential that is built, or a functional one. It belongs to this object: what
                its recurrent layers keep between calls is turned off.
            num_gpus: GPUs that TensorFlow sees.
            like: The same model as another runtime has it; where their states have the same form,
                its fingerprint counts, so that sessions may go from one to the other.

        Raises:
            SpecError: It cannot be served.
        """
        self._graph = Graph(model)
        _settle(self._graph, num_gpus)
        findings = probe(self._graph, num_gpus)
        self._recurrences = findings.recurrences
        self._in, self._out = findings.inputs, findings.outputs
        self.name = str(model.name)
        self.inputs = tuple(port.part for port in self._in)
        self.outputs = tuple(port.part for port in self._out)
        self.input_size = sum(part.size for part in self.inputs)
        self.output_size = sum(part.size for part in self.outputs)
        self.layers: list[LayerReport] = findings.layers
        self.widest = max(self.output_size, *(layer.output_size for layer in self.layers))
        self.returns_sequences = any(port.has_time for port in self._out)
        self.vocabulary = self.inputs[0].vocabulary if self.input_size == 1 else None
        self.streaming_obstacles = findings.obstacles
        self.state_layout = _layout([r for r in self._recurrences if r is not None])
        self.state_size = sum(part.size for part in self.state_layout)
        self.num_recurrent = sum(r.num_flags for r in self._recurrences if r is not None)
        is_same = like is not None and _form(like) == _form(self)
        self.fingerprint = like.fingerprint if like and is_same else self._graph.fingerprint()
        # Layers that mix time steps may be built for one number of them.
        self.length = findings.length if self.streaming_obstacles else None

    def with_steps_on_cudnn(self) -> StatefulModel | None:
        """Return the same for `take` of single steps only, each layer on cuDNN that can be.

        None where no layer can.
        """
        kept = [each for each in self._recurrences if each is not None]
        if all(each.step_on_cudnn is None for each in kept):
            return None
        twin = copy(self)
        twin._recurrences = tuple(each.with_steps_on_cudnn() for each in kept)  # noqa: SLF001 - of its own class
        return twin

    def take(
        self, x: Tensor, rows: Tensor, flags: Tensor, live: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take every row's time steps from its state on. The model must have no obstacle.

        Args:
            x: `(batch, time, input_size)` float32; where time is known to be 1, no loop is made.
            rows: `(batch, state_size)` float32.
            flags: `(batch, num_recurrent)` bool, whether a layer has had a live step.
            live: `(batch, time)` bool, true where a step is live; None means everywhere.

        Returns:
            Outputs `(batch, time, output_size)` float32, and the new rows and flags.
        """
        is_step = x.shape[1] == 1
        time = 1 if is_step else tf.shape(x)[1]
        states = States(self._recurrences, rows, flags)

        def call(operation: Operation, arguments: Arguments | None, _: Any) -> Any:
            assert arguments is not None
            if not is_recurrent(operation):
                return arguments.call(operation)
            recurrence = states.next()
            assert recurrence is not None
            alone = arguments.first
            own = arguments.mask
            outputs = states.take(
                recurrence,
                tf.reshape(alone, (-1, time, alone.shape[-1])),
                _both(live, None if own is None else tf.reshape(own, (-1, time))),
                is_step=is_step,
            )
            if not operation.return_sequences:
                return tf.reshape(outputs, (-1, recurrence.output_size))
            return with_mask(tf.reshape(outputs, (-1, 1, recurrence.output_size)), own)

        inputs = []
        for port in self._in:
            shape = (-1, 1, *port.shape) if port.has_time else (-1, *port.shape)
            inputs.append(tf.reshape(_values(x, port), shape))
        outputs = self._graph.run(inputs, call)
        return self._joined(outputs, time), *states.after()

    def last_outputs(self, rows: Tensor, flags: Tensor) -> Tensor | None:
        """Return what the last live step gave, by the states alone.

        Args:
            rows: `(batch, state_size)` float32.
            flags: `(batch, num_recurrent)` bool, all true.

        Returns:
            `(batch, 1, output_size)` float32; None where an output depends on the inputs too.
        """
        states = States(self._recurrences, rows, flags)

        def call(operation: Operation, arguments: Arguments | None, _: Any) -> Any:
            if not is_recurrent(operation):
                return None if arguments is None else arguments.call(operation)
            recurrence = states.next()
            assert recurrence is not None
            output = states.last_output(recurrence)
            return output[:, None] if operation.return_sequences else output

        outputs = self._graph.run([None] * len(self._in), call)
        if any(output is None for output in outputs):
            return None
        return self._joined(outputs, 1)

    def predict(self, x: Tensor, live: Tensor | None) -> Tensor:
        """Run whole sequences from zero states, as Keras would.

        Args:
            x: `(batch, time, input_size)` float32.
            live: `(batch, time)` bool, true where a step is live; None means everywhere.

        Returns:
            `(batch, time, output_size)` float32, or `(batch, output_size)` where no output has a
            time axis.
        """
        batch = tf.shape(x)[0]
        rows = tf.zeros((batch, self.state_size))
        flags = tf.zeros((batch, self.num_recurrent), tf.bool)
        outputs = (
            self._take_whole(x, rows, flags, live)
            if self.streaming_obstacles
            else self.take(x, rows, flags, live)[0]
        )
        return outputs if self.returns_sequences else outputs[:, -1]

    def _take_whole(self, x: Tensor, rows: Tensor, flags: Tensor, live: Tensor | None) -> Tensor:
        """Run layers that look at more than one time step; see `predict`.

        Returns:
            `(batch, time, output_size)` float32; time is 1 where no output has it, and an output
            without it is the same at every step where another one has it.
        """
        batch, time = tf.unstack(tf.shape(x)[:2])
        states = States(self._recurrences, rows, flags)

        def call(operation: Operation, arguments: Arguments | None, _: Any) -> Any:
            assert arguments is not None
            if isinstance(operation, keras.layers.TimeDistributed):
                return _run_steps_alone(operation, arguments)
            if not is_recurrent(operation):
                return arguments.call(operation)
            recurrence = states.next()
            own = arguments.mask
            mask = _both(live, own)
            if recurrence is None:
                return arguments.with_mask(mask).call(operation)
            outputs = states.take(recurrence, arguments.first, mask, is_step=False)
            shown = with_mask(outputs, own) if operation.return_sequences else outputs[:, -1]
            return [shown, *states.vectors(recurrence)]

        inputs = []
        for port in self._in:
            values = _values(x, port) if port.has_time else _values(x[:, -1], port)
            shape = (batch, time, *port.shape) if port.has_time else (batch, *port.shape)
            inputs.append(_with_shape(tf.reshape(values, shape), port, self.length))
        outputs = self._graph.run(inputs, call)
        parts = []
        for tensor, port in zip(outputs, self._out, strict=True):
            part = tf.reshape(tf.cast(tensor, tf.float32), (batch, -1, port.part.size))
            is_repeated = self.returns_sequences and not port.has_time
            parts.append(tf.repeat(part, time, axis=1) if is_repeated else part)
        return tf.concat(parts, axis=2)

    def _joined(self, outputs: Sequence[Tensor], time: Any) -> Tensor:
        """Lay outputs of rows that are time steps side by side, `(batch, time, output_size)`."""
        parts = [
            tf.reshape(tf.cast(tensor, tf.float32), (-1, time, port.part.size))
            for tensor, port in zip(outputs, self._out, strict=True)
        ]
        return tf.concat(parts, axis=2)


def _form(network: ServedNetwork) -> tuple[Any, ...]:
    """Return what must be the same of two networks that share sessions."""
    # The networks call the models around a layer, and its further calls, by names of their own.
    state = [
        (part.layer.rpartition("/")[2].partition("#")[0], part.size)
        for part in network.state_layout
    ]
    return network.input_size, network.output_size, network.num_recurrent, state


def _layout(recurrences: Sequence[Recurrence]) -> tuple[StatePart, ...]:
    parts: list[StatePart] = []
    offset = 0
    for vector in [vector for recurrence in recurrences for vector in recurrence.vectors]:
        parts.append(
            StatePart(layer=vector.layer, role=vector.role, offset=offset, size=vector.size)
        )
        offset += vector.size
    return tuple(parts)


def _values(x: Tensor, port: Port) -> Tensor:
    """Return an input's part of `(..., input_size)`, in its dtype."""
    return tf.cast(x[..., port.part.offset : port.part.offset + port.part.size], port.dtype)


def _with_shape(tensor: Tensor, port: Port, length: int | None) -> Tensor:
    """Return an input of which the sizes are known that the model was built for."""
    tensor.set_shape((None, *((length,) if port.has_time else ()), *port.shape))
    return tensor


def _run_steps_alone(layer: Operation, arguments: Arguments) -> Tensor:
    """Run a `TimeDistributed` layer with each time step as a row of its own.

    Where the number of time steps is not known in the graph, that of Keras 3.15 takes as many as
    the batch has rows.
    """
    x = arguments.first
    batch, time = tf.unstack(tf.shape(x)[:2])
    mask = arguments.mask

    def alone(value: Any) -> Any:
        if value is x:
            rows = tf.reshape(x, (-1, 1, *x.shape[2:]))
            return with_mask(rows, None if mask is None else alone(mask))
        return tf.reshape(mask, (-1, 1)) if value is mask and mask is not None else value

    steps = arguments.map(alone).call(layer)
    return with_mask(tf.reshape(steps, (batch, time, *steps.shape[2:])), mask)


def _both(live: Tensor | None, own: Tensor | None) -> Tensor | None:
    """Return where a step is live by the caller's mask and by the model's own."""
    if live is None or own is None:
        return own if live is None else live
    return tf.logical_and(live, own)


def _settle(graph: Graph, num_gpus: int) -> None:
    """Turn off what recurrent layers keep between calls, and what binds them to one length."""

    def call(operation: Operation, _: Arguments | None, symbolic: Any) -> Any:
        layers = [operation] if is_recurrent(operation) else []
        if isinstance(operation, keras.layers.Bidirectional):
            layers = [operation.forward_layer, operation.backward_layer]
        for layer in layers:
            layer.stateful = False
            layer.unroll = False
            # Keras's call of cuDNN fails on masks that are not right-padded.
            if num_gpus and isinstance(layer, keras.layers.RNN):
                layer.use_cudnn = False
        return symbolic

    graph.run(graph.inputs, call)
