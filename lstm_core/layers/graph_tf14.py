"""The rest of TensorFlow 1.4's base layer: losses, updates, variables, scope, graph and copies.

What that release kept for each graph is kept here in the collections of the `tf.Graph` being built
(a `tf.function` builds one), and dies with it. In eager mode there is none, and what needs one
raises the RuntimeError that the documentation promises. Knows no recurrence.
"""

from __future__ import annotations

import copy
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from lstm_core.errors import NoGraphError
from lstm_core.layers.arguments import is_symbolic
from lstm_core.layers.weights import PARTS

Tensor: TypeAlias = Any

_COPIED = (
    "activation",
    "recurrent_activation",
    "activity_regularizer",
    *(f"{part}_{kind}" for part in PARTS for kind in ("initializer", "regularizer", "constraint")),
)
"""Arguments that a copy takes as objects: a function need not be in any config."""


class GraphLayer(keras.Layer):
    """Base class: `keras.Layer` with the methods and properties that it had in TensorFlow 1.4."""

    states: Any

    _activity_regularizer: Any = None
    _initial_weights: Any
    _is_called = False
    _is_called_symbolically = False

    def __call__(self, inputs: Any, initial_state: Any = None, **kwargs: Any) -> Any:
        """Call the layer.

        Args:
            inputs: `(batch, time, features)`, or the list of that and of the first states.
            initial_state: The first states.
            **kwargs: `mask` and `training`.

        Raises:
            ValueError: Some of `inputs` and `initial_state` are symbolic and some are not.
        """
        if isinstance(inputs, list | tuple) and len(inputs) > 1 and initial_state is None:
            inputs, *initial_state = inputs
        tensors = [inputs] if initial_state is None else [inputs, *tf.nest.flatten(initial_state)]
        if len({is_symbolic(tensor) for tensor in tensors}) > 1:
            raise ValueError(
                f"the inputs and the initial_state of layer {self.name} are a mix of Keras tensors "
                "and other tensors: give it one kind"
            )
        before = self._is_called, self._is_called_symbolically
        self._is_called, self._is_called_symbolically = True, is_symbolic(inputs)
        try:
            outputs = super().__call__(inputs, initial_state=initial_state, **kwargs)
            if self._activity_regularizer is not None and not is_symbolic(inputs):
                # TensorFlow 1.4 does not divide the loss by the batch size, as Keras 3 does.
                losses = [self._activity_regularizer(x) for x in tf.nest.flatten(outputs)]
                self.add_loss(losses, inputs)
        finally:
            self._is_called, self._is_called_symbolically = before
        return outputs

    def apply(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the layer: the same as `layer(inputs, ...)`."""
        return self(inputs, *args, **kwargs)

    @property
    def activity_regularizer(self) -> Any:
        """The regularizer of the outputs, or None."""
        # While Keras 3 calls the layer it must find none: the layer applies it itself.
        return None if self._is_called else self._activity_regularizer

    @activity_regularizer.setter
    def activity_regularizer(self, regularizer: Any) -> None:
        self._activity_regularizer = keras.regularizers.get(regularizer)

    @property
    def graph(self) -> Any:
        """The `tf.Graph` that is being built.

        Raises:
            RuntimeError: None is.
        """
        self._check_graph(
            "graph", "tf.function(layer).get_concrete_function(tf.TensorSpec(...)).graph is one"
        )
        return tf.compat.v1.get_default_graph()

    @property
    def scope_name(self) -> str:
        """Where the layer stands in its model, such as `encoder/lstm`.

        Raises:
            ValueError: The layer has not been used yet.
        """
        if self.path is None:
            raise ValueError(
                f"No name available for layer scope because the layer {self.name} has not been "
                "used yet: call or build it first"
            )
        return str(self.path)

    def add_loss(self, losses: Any, inputs: Any = None) -> None:
        """Add losses, which count for the pass that they are made in.

        Args:
            losses: A scalar tensor, or a list or tuple of them.
            inputs: The layer's inputs that they depend on; None means none.

        Raises:
            RuntimeError: In eager mode, outside the layer's own call.
        """
        if not self._is_called:
            self._check_graph(
                "add_loss",
                "make the loss in call(), or add it to what GradientTape differentiates",
            )
        super().add_loss(losses)
        self._record("losses", losses, inputs)

    def get_losses_for(self, inputs: Any) -> list[Tensor]:
        """Return the losses that depend on `inputs`, tensors of the graph being built.

        Args:
            inputs: As they came to the layer; None means the losses that depend on none, the
                regularizers' of the weights among them.

        Raises:
            RuntimeError: In eager mode.
        """
        self._check_graph("get_losses_for", "layer.losses holds those of the last call")
        losses = self._recorded_for("losses", inputs)
        return losses if _key(inputs) else [*losses, *self._get_regularization_losses()]

    @property
    def updates(self) -> list[Any]:
        """What `add_update` has got in the graph being built, any inputs.

        Raises:
            RuntimeError: In eager mode.
        """
        self._check_graph("updates", "TensorFlow 2 runs updates where they are made")
        return [item for item, _ in self._recorded("updates")]

    def add_update(self, updates: Any, inputs: Any = None) -> None:
        """Tell the layer of updates of its variables; does nothing in eager mode.

        They run without it, where they are made: this is for `updates` and `get_updates_for`.

        Args:
            updates: An operation, or a list or tuple of operations, or of pairs of a variable and
                its new value.
            inputs: The layer's inputs that they depend on; None means none.
        """
        self._record("updates", updates, inputs)

    def get_updates_for(self, inputs: Any) -> list[Any]:
        """Return the updates that depend on `inputs`, tensors of the graph being built.

        Args:
            inputs: As they came to the layer; None means the updates that depend on none.

        Raises:
            RuntimeError: In eager mode.
        """
        self._check_graph("get_updates_for", "TensorFlow 2 runs updates where they are made")
        return self._recorded_for("updates", inputs)

    def add_weight(
        self,
        name: str | None = None,
        shape: Any = None,
        dtype: Any = None,
        initializer: Any = None,
        regularizer: Any = None,
        trainable: bool = True,
        constraint: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Add a variable to the layer, before or in `build`.

        Args:
            name: Of the variable.
            shape: Of the variable.
            dtype: None means the layer's.
            initializer: None means Glorot-uniform.
            regularizer: Of the variable, or None.
            trainable: Whether training changes it.
            constraint: Of the variable, or None.
            **kwargs: What else `keras.Layer.add_weight` takes.
        """
        return super().add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=initializer,
            regularizer=regularizer,
            trainable=trainable,
            constraint=constraint,
            **kwargs,
        )

    def add_variable(
        self,
        name: str,
        shape: Any,
        dtype: Any = None,
        initializer: Any = None,
        regularizer: Any = None,
        trainable: bool = True,
        constraint: Any = None,
    ) -> Any:
        """Add a variable as `add_weight`, or return the layer's variable of that name.

        Raises:
            RuntimeError: In eager mode with a regularizer.
            ValueError: There is a variable of that name and another shape.
        """
        if regularizer is not None and not self._is_called_symbolically:
            self._check_graph(
                "add_variable with a regularizer", "add_weight takes regularizers in every mode"
            )
        for variable in self.weights:
            if variable.name == name:
                if tuple(variable.shape) != tuple(shape):
                    raise ValueError(
                        f"variable {name} of layer {self.name} has shape {tuple(variable.shape)}, "
                        f"but it was asked for with shape {tuple(shape)}"
                    )
                return variable
        return self.add_weight(name, shape, dtype, initializer, regularizer, trainable, constraint)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a layer of its own with the same name, arguments, weights and recorded states.

        Nodes, losses and attributes that the layer did not set itself stay behind.

        Raises:
            ValueError: The layer has variables that neither its constructor nor `build` makes.
        """
        live = {name: copy.deepcopy(getattr(self, name), memo) for name in _COPIED}
        if self._initial_weights is not None:  # Given to the constructor, and not set yet.
            live["weights"] = [np.array(array) for array in self._initial_weights]
        twin = type(self).from_config({**self.get_config(), **live})
        memo[id(self)] = twin
        if self.built:
            twin.build_from_config(self.get_build_config())
        own, its = ([variable.name for variable in layer.variables] for layer in (self, twin))
        if own != its:
            raise ValueError(
                f"layer {self.name} cannot be copied: its variables are {own}, but a layer of the "
                f"same arguments has {its}. Add variables in build()"
            )
        for mine, copied in zip(self.variables, twin.variables, strict=True):
            copied.assign(mine)
        for mine, copied in zip(self.states, twin.states, strict=True):
            if mine is not None:
                copied.assign(mine)
        return twin

    def _check_graph(self, member: str, advice: str) -> None:
        if tf.executing_eagerly():
            raise NoGraphError(f"{member} of layer {self.name}", advice)

    def _record(self, kind: str, items: Any, inputs: Any) -> None:
        if tf.executing_eagerly():
            return
        graph = tf.compat.v1.get_default_graph()
        for item in items if isinstance(items, list | tuple) else [items]:
            graph.add_to_collection(self._collection(kind), (item, _key(inputs)))

    def _recorded(self, kind: str) -> list[tuple[Any, tuple[int, ...]]]:
        return list(tf.compat.v1.get_default_graph().get_collection(self._collection(kind)))

    def _recorded_for(self, kind: str, inputs: Any) -> list[Any]:
        return [item for item, key in self._recorded(kind) if key == _key(inputs)]

    def _collection(self, kind: str) -> tuple[str, Any]:
        return (kind, self)  # Not its `id`, which another layer may have after its death.


def _key(inputs: Any) -> tuple[int, ...]:
    """Return what tells one list of tensors from another, in order; empty for None."""
    return () if inputs is None else tuple(id(tensor) for tensor in tf.nest.flatten(inputs))
