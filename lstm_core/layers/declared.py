"""Constructor arguments of older releases that Keras 3 rejects: the inputs' shape, first weights.

Owns their meaning. Knows no recurrence.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int | None, ...]

_INITIAL = "initial_"
"""Before the position, the name in a file of a weight that a layer has still to begin with."""


class DeclaredInputs:
    """Mixin of a recurrent `keras.Layer` which may be told its inputs' shape when it is made.

    In a `keras.Sequential` model whose first layer it is, the declared shape builds the model. The
    batch size is kept for the states of a stateful layer.
    """

    batch_input_shape: Shape | None = None
    """`(batch, time, features)`, or time-major; None where nothing was declared."""

    built: bool
    set_weights: Any

    _initial_weights: Any = None

    def _take_declared_inputs(self, kwargs: dict[str, Any]) -> None:
        """Take the arguments out of `kwargs`, which go on to `keras.Layer`.

        Args:
            kwargs: May hold `batch_input_shape`, or `input_shape` and `batch_size`, or `input_dim`
                and `input_length` and `batch_size`; and `weights`, a list of arrays that the layer
                begins with. Changed.

        Raises:
            ValueError: A shape does not have three dimensions, that of the batch included.

        References:
            `Layer.__init__` and `RNN.__init__` of tf_keras.
        """
        self._initial_weights = kwargs.pop("weights", None)
        batch_input_shape = kwargs.pop("batch_input_shape", None)
        input_shape = kwargs.pop("input_shape", None)
        batch_size = kwargs.pop("batch_size", None)
        features, time = kwargs.pop("input_dim", None), kwargs.pop("input_length", None)
        if input_shape is None and (features is not None or time is not None):
            input_shape = (time, features)
        if batch_input_shape is None and input_shape is not None:
            batch_input_shape = (batch_size, *input_shape)
        if batch_input_shape is None:
            return
        if len(batch_input_shape) != 3:
            raise ValueError(
                "the inputs of a recurrent layer have three dimensions, the batch's among them, "
                f"but the shape given to the constructor comes to {tuple(batch_input_shape)}"
            )
        self.batch_input_shape = tuple(batch_input_shape)

    def _declare_to_keras(self) -> None:
        """Tell `keras.Sequential` the shape; after `keras.Layer.__init__`, which forgets it."""
        if self.batch_input_shape is not None and self.batch_input_shape[-1] is not None:
            self._input_shape_arg = self.batch_input_shape[1:]

    def _declared_config(self) -> dict[str, Any]:
        """Return what was declared; the weights are no part of it, files hold them."""
        if self.batch_input_shape is None:
            return {}
        return {"batch_input_shape": list(self.batch_input_shape)}

    def _set_initial_weights(self) -> None:
        """Set the weights that the constructor was given, once they have been created.

        Raises:
            ValueError: Another number of arrays, or another shape.
        """
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)
            self._initial_weights = None

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Put the weights into `store`; of a layer that is not built those that it begins with.

        Keras copies and pickles a layer, and the models that hold it, by way of a file.
        """
        super().save_own_variables(store)  # type: ignore[misc]
        for position, array in enumerate(self._initial_weights or ()):
            store[f"{_INITIAL}{position}"] = np.asarray(array)

    def load_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Take out of `store` what `save_own_variables` put there.

        Raises:
            ValueError: They are the weights of a built layer, and this one is not built.
        """
        names = store.keys()  # The stores of files do not iterate by themselves.
        num_initial = sum(name.startswith(_INITIAL) for name in names)
        if not num_initial:
            super().load_own_variables(store)  # type: ignore[misc]
            return
        weights = [np.asarray(store[f"{_INITIAL}{position}"]) for position in range(num_initial)]
        if self.built:
            self.set_weights(weights)
        else:
            self._initial_weights = weights
