"""The three weights of a recurrent Keras layer: their arguments, their creation, their config.

Knows no recurrence and no state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from lstm_core.layers.initializers_v1 import get_initializer_v1, serialize_initializer_v1

PARTS = ("kernel", "recurrent", "bias")
"""Prefixes of the arguments `..._initializer`, `..._regularizer` and `..._constraint`."""

HALVES = ("bfloat16", "float16")
"""Dtypes in which the orthogonal initializer's decomposition does not run."""


class GateWeights:
    """Mixin of a `keras.Layer` whose variables `kernel`, `recurrent_kernel` and `bias` hold gates.

    The variables sit on the layer itself, so that files hold them at `layers/lstm/vars/{0,1,2}`.
    """

    units: int
    use_bias: bool
    unit_forget_bias: bool
    bias_initializer: Any
    variable_dtype: str
    add_weight: Any

    _num_biases = 1
    """Of each gate, side by side in `bias`; they are added."""

    def _keep_weight_arguments(
        self, part: str, initializer: Any, regularizer: Any, constraint: Any
    ) -> None:
        """Set the attributes `{part}_initializer`, `{part}_regularizer`, `{part}_constraint`."""
        setattr(self, f"{part}_initializer", get_initializer_v1(initializer))
        setattr(self, f"{part}_regularizer", keras.regularizers.get(regularizer))
        setattr(self, f"{part}_constraint", keras.constraints.get(constraint))

    def _weight_config(self) -> dict[str, Any]:
        """Return the nine arguments, serialised."""
        config = {}
        for part in PARTS:
            for kind, serialize in (
                ("initializer", serialize_initializer_v1),
                ("regularizer", keras.regularizers.serialize),
                ("constraint", keras.constraints.serialize),
            ):
                config[f"{part}_{kind}"] = serialize(getattr(self, f"{part}_{kind}"))
        return config

    def _create_weights(self, features: int) -> None:
        """Create `kernel`, `recurrent_kernel` and `bias`.

        `(features, 4 * units)`, `(units, 4 * units)`, and `(4 * units,)` for each of the biases, or
        None without `use_bias`.
        """
        self.kernel = self._create("kernel", "kernel", (features, 4 * self.units))
        self.recurrent_kernel = self._create(
            "recurrent", "recurrent_kernel", (self.units, 4 * self.units)
        )
        bias_shape = (self._num_biases * 4 * self.units,)
        self.bias = self._create("bias", "bias", bias_shape) if self.use_bias else None

    def _create(self, part: str, name: str, shape: tuple[int, ...]) -> Any:
        initializer = getattr(self, f"{part}_initializer")
        if part == "bias" and self.unit_forget_bias:
            initializer = self._initial_bias
        if self.variable_dtype in HALVES and initializer is not None:
            initializer = _drawn_in_float32(initializer)
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=initializer,
            regularizer=getattr(self, f"{part}_regularizer"),
            constraint=getattr(self, f"{part}_constraint"),
        )

    def _initial_bias(self, _: tuple[int, ...], *args: Any, **kwargs: Any) -> Any:
        """Return the bias, ones for the last bias of the forget gate (Jozefowicz et al. 2015)."""
        initial = self.bias_initializer
        num_before = 4 * (self._num_biases - 1) + 1
        return keras.ops.concatenate(
            [
                initial((num_before * self.units,), *args, **kwargs),
                keras.initializers.Ones()((self.units,), *args, **kwargs),
                initial((2 * self.units,), *args, **kwargs),
            ]
        )


def _drawn_in_float32(initializer: Callable[..., Any]) -> Callable[..., Any]:
    """Return an initializer whose values are drawn in float32, then cast to what is asked for."""

    def draw(shape: tuple[int, ...], dtype: Any = None, **kwargs: Any) -> Any:
        return keras.ops.cast(initializer(shape, dtype="float32", **kwargs), dtype)

    return draw
