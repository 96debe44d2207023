"""Variables of a Keras layer that live in the variable scopes of TensorFlow 1.

Owns where a layer's variables come from and what they are called. In a graph of TensorFlow 1 they
are `tf.compat.v1.get_variable`'s: named, shared and refused by the scope, and read through the
default session. In eager code scopes name things too, but TensorFlow keeps no variables by name
there, so this module does: a variable can be shared as long as a layer that uses it lives. The
rules are those of graphs, except that a layer's own `reuse` decides alone. Knows no recurrence.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import keras
import numpy as np
import tensorflow as tf

v1: Any = tf.compat.v1
Tensor: TypeAlias = Any
Variable: TypeAlias = Any

_EAGER_VARIABLES: WeakValueDictionary[str, Variable] = WeakValueDictionary()


def outer_graph() -> Any:
    """Return the graph of TensorFlow 1 that code runs in, or None in eager code.

    A `tf.function`'s graph is eager code; the body of a loop in a graph belongs to that graph.
    """
    if v1.executing_eagerly_outside_functions():
        return None
    with tf.init_scope():
        return v1.get_default_graph()


class ScopedVariables:
    """Mixin of a `keras.Layer` whose variables have a scope, found at the first build or call."""

    name: str
    built: bool
    trainable: bool
    variable_dtype: str

    _reuse: Any = None
    _base_name: str
    _scope: Any = None
    _graph: Any = None
    _whole_variables: Sequence[Variable] = ()
    _graph_variables: Sequence[Variable] = ()

    @property
    def scope_name(self) -> str:
        """The name of the variable scope.

        Raises:
            ValueError: The layer has neither been built nor called, so there is none yet.
        """
        if self._scope is None:
            raise ValueError(
                f"layer {self.name} has no variable scope yet: its first build or call finds one"
            )
        return str(self._scope.name)

    @property
    def weights(self) -> list[Variable]:
        """The variables: Keras's in eager code, TensorFlow's in a graph."""
        return list(self._graph_variables) or list(super().weights)  # type: ignore[misc]

    @property
    def variables(self) -> list[Variable]:
        """The same as `weights`."""
        return list(self._graph_variables) or list(super().variables)  # type: ignore[misc]

    def get_weights(self) -> list[Any]:
        """Return the values of `weights`, in a graph through the default session."""
        return self._values(self.weights)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the values of `weights`, in a graph through the default session.

        Args:
            weights: An array for each of `weights`. Where a graph has split variables, whole arrays
                do as well.

        Raises:
            ValueError: Another number of arrays, or another shape; or no default session.
        """
        if not self._graph_variables:
            super().set_weights(weights)  # type: ignore[misc]
            return
        arrays = [np.asarray(array) for array in weights]
        given = [array.shape for array in arrays]
        if given == [_shape(variable) for variable in self._whole_variables]:
            arrays = [
                part
                for variable, array in zip(self._whole_variables, arrays, strict=True)
                for part in _split_like(variable, array)
            ]
        elif given != (shapes := [_shape(variable) for variable in self.weights]):
            raise ValueError(f"layer {self.name} has weights of shapes {shapes}, not {given}")
        session = self._session()
        for variable, value in zip(self.weights, arrays, strict=True):
            variable.load(value, session)

    def _get_regularization_losses(self) -> list[Any]:
        """Return the losses of Keras's variables, a part of `losses`.

        TensorFlow's in a graph have none of their own: their scope collects what it asks for.
        """
        if self._graph_variables:
            return []
        return list(super()._get_regularization_losses())  # type: ignore[misc]

    def _values(self, tensors: Sequence[Any]) -> list[Any]:
        """Return what variables or tensors of this layer hold, as NumPy arrays."""
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        if self._graph is not None:
            return list(self._session().run(tensors))
        return [tensor.numpy() for tensor in tensors]

    def _session(self) -> Any:
        session = v1.get_default_session()
        if session is None:
            raise ValueError(
                f"layer {self.name} belongs to a graph, so its weights have values in a session "
                "only: ask inside `with tf.compat.v1.Session() as session:`"
            )
        return session

    def _find_scope(self, scope: Any = None) -> None:
        """Settle the variable scope, `scope` or one named after the layer, as TensorFlow 1 does.

        Without `reuse` a name that the surrounding scope has given before gets a number.
        """
        if self._scope is None:
            name = self._base_name if scope is None and self._reuse else scope
            with v1.variable_scope(name, default_name=self._base_name) as found:
                self._scope = found

    def _check_graph(self) -> None:
        """Compare the graph that code runs in with the variables'.

        Raises:
            ValueError: It is another one.
        """
        if self.built and outer_graph() is not self._graph:
            place = "eager code" if self._graph is None else "another graph"
            raise ValueError(
                f"layer {self.name} was built in {place}, and its variables are not known here: "
                "make a layer for each graph, and copy the weights"
            )

    def _create_variables(
        self, shapes: dict[str, tuple[int, ...]], initializers: dict[str, Any], shards: Any
    ) -> list[Variable]:
        """Return a variable for each name, new or shared, as scope and `reuse` say.

        Args:
            shapes: By name, in the order wanted.
            initializers: By name; None means the scope's, or else Glorot-uniform.
            shards: By name, into how many parts a graph splits the variable; no entry or None
                means that it stays whole.

        Raises:
            ValueError: A variable exists and `reuse` is not set, or the other way round; or one
                that exists has another shape or dtype.
        """
        self._find_scope()
        self._graph = outer_graph()
        create = self._eager_variable if self._graph is None else self._graph_variable
        made = [
            create(name, shape, _adapted(initializers[name]), shards.get(name))
            for name, shape in shapes.items()
        ]
        if self._graph is not None:
            self._whole_variables = tuple(made)
            self._graph_variables = tuple(part for variable in made for part in _parts(variable))
        return made

    def _graph_variable(
        self, name: str, shape: tuple[int, ...], initializer: Any, num_shards: int | None
    ) -> Variable:
        with v1.variable_scope(self._scope, reuse=self._reuse, auxiliary_name_scope=False):
            return v1.get_variable(
                name,
                shape,
                dtype=tf.as_dtype(self.variable_dtype),
                initializer=initializer,
                trainable=self.trainable,
                partitioner=v1.fixed_size_partitioner(num_shards) if num_shards else None,
            )

    def _eager_variable(
        self, name: str, shape: tuple[int, ...], initializer: Any, _: int | None
    ) -> Variable:
        key = f"{self._scope.name}/{name}"
        # The scope's own flag says nothing: in eager code TensorFlow sets every one to AUTO_REUSE.
        reuse = self._reuse
        existing = _living(key)
        if existing is None and reuse and reuse is not v1.AUTO_REUSE:
            raise ValueError(
                f"Variable {key} does not exist, so layer {self.name} cannot reuse it. Did you "
                "mean reuse=tf.compat.v1.AUTO_REUSE? (A variable lives as long as its layers.)"
            )
        if existing is not None and not reuse:
            raise ValueError(
                f"Variable {key} already exists, disallowed. Did you mean to set reuse=True or "
                f"reuse=tf.compat.v1.AUTO_REUSE in layer {self.name}, or to give it a scope of its "
                "own?"
            )
        if existing is not None:
            if (tuple(existing.shape), existing.dtype) != (shape, self.variable_dtype):
                raise ValueError(
                    f"Variable {key} has shape {tuple(existing.shape)} and dtype {existing.dtype}, "
                    f"but layer {self.name} needs {shape} and {self.variable_dtype}"
                )
            return existing
        *outer, last = name.split("/")
        with ExitStack() as scopes:
            for part in outer:
                scopes.enter_context(keras.name_scope(part))
            # Not add_weight, which knows no scope below the layer's; an attribute is tracked too.
            variable = keras.Variable(
                initializer or _adapted(self._scope.initializer) or "glorot_uniform",
                shape=shape,
                dtype=self.variable_dtype,
                trainable=True,
                autocast=False,
                name=last,
            )
        _EAGER_VARIABLES[key] = variable
        return variable


def _living(key: str) -> Variable | None:
    """Return the variable that living layers have under a name."""
    if key in _EAGER_VARIABLES:
        # Layers are cycles, so that one without owner may still be there.
        gc.collect()
    return _EAGER_VARIABLES.get(key)


def _adapted(initializer: Any) -> Callable[..., Tensor] | None:
    """Return an initializer, of Keras or of TensorFlow 1, as both of them would call it.

    One of Keras draws the same numbers whenever it is called, so a fresh one is made, as Keras's
    layers do; and the parts of a split variable are parts of what the whole would be.
    """
    if initializer is None:
        return None
    if isinstance(initializer, keras.initializers.Initializer):
        initializer = initializer.clone()

        def draw(shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
            name = None if dtype is None else tf.as_dtype(dtype).name
            if partition_info is None:
                return initializer(tuple(shape), dtype=name)
            whole = initializer(tuple(partition_info.full_shape), dtype=name)
            return tf.slice(whole, partition_info.var_offset, shape)

        return draw
    # One of TensorFlow 1 then scales by the whole variable, and not by its part.
    takes_partition = "partition_info" in inspect.signature(initializer).parameters

    def draw_v1(shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        name = None if dtype is None else tf.as_dtype(dtype)
        part = {"partition_info": partition_info} if takes_partition else {}
        return initializer(tuple(shape), dtype=name, **part)

    return draw_v1


def _shape(variable: Variable) -> tuple[int, ...]:
    return tuple(tf.TensorShape(variable.shape).as_list())


def _parts(variable: Variable) -> list[Variable]:
    return list(variable) if hasattr(variable, "as_tensor") else [variable]


def _split_like(variable: Variable, array: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return the parts of an array where the parts of a split variable are in it."""
    shapes = [_shape(part) for part in _parts(variable)]
    # TensorFlow splits along one dimension, in order.
    axis = next((at for at, size in enumerate(array.shape) if size != shapes[0][at]), 0)
    ends = np.cumsum([shape[axis] for shape in shapes])
    return np.split(array, ends[:-1], axis)
