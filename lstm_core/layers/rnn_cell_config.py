"""An `LSTMCell` as a configuration, and copies of it.

Knows arguments. Knows no weights' layout and no arithmetic.
"""

from __future__ import annotations

import copy
from typing import Any

import tensorflow as tf

from lstm_core.layers.activations_v1 import serialize_v1
from lstm_core.layers.initializers_v1 import serialize_initializer_v1

_COPIED = ("activation", "initializer", "activity_regularizer")
"""Arguments that a copy takes as objects: a function need not be in any config."""


class CellConfig:
    """Mixin of a cell and of a `keras.Layer`: `get_config` and `copy.deepcopy`."""

    name: str
    built: bool
    num_units: int
    num_proj: int | None
    use_peepholes: bool
    cell_clip: float | None
    proj_clip: float | None
    initializer: Any
    num_unit_shards: int | None
    num_proj_shards: int | None
    forget_bias: float
    state_is_tuple: bool
    activation: Any
    output_size: Any
    kernel: Any
    get_weights: Any

    _reuse: Any
    _base_name: str
    _is_dtype_known: bool
    _graph: Any

    def get_config(self) -> dict[str, Any]:
        """Return every argument, serialised: `from_config` makes an equal cell of it."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        is_auto_reuse = self._reuse is tf.compat.v1.AUTO_REUSE
        return {
            **config,
            "dtype": config["dtype"] if self._is_dtype_known else None,
            "num_units": self.num_units,
            "use_peepholes": self.use_peepholes,
            "cell_clip": self.cell_clip,
            "initializer": serialize_initializer_v1(self.initializer),
            "num_proj": self.num_proj,
            "proj_clip": self.proj_clip,
            "num_unit_shards": self.num_unit_shards,
            "num_proj_shards": self.num_proj_shards,
            "forget_bias": self.forget_bias,
            "state_is_tuple": self.state_is_tuple,
            "activation": "tanh" if self.activation is tf.tanh else serialize_v1(self.activation),
            "reuse": self._reuse.name if is_auto_reuse else self._reuse,
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a cell with the same arguments and, if built, the same weights in its own scope.

        Raises:
            ValueError: The cell was built in a graph, where weights have no values to copy.
        """
        if self._graph is not None:
            raise ValueError(
                f"cell {self.name} was built in a graph, so it cannot be copied: copy it before "
                "its first call, or make another with reuse=True to share the variables"
            )
        config = self.get_config()
        live = {
            name: copy.deepcopy(getattr(self, name), memo) for name in _COPIED if name in config
        }
        cls: Any = type(self)
        twin = cls.from_config({**config, **live})
        memo[id(self)] = twin
        # The name of a config is unique; the scope goes by what the caller named the cell.
        twin._base_name = self._base_name  # noqa: SLF001
        if self.built:
            reuse, twin._reuse = twin._reuse, None  # noqa: SLF001
            twin.build((None, int(self.kernel.shape[0]) - self.output_size))
            twin._reuse = reuse  # noqa: SLF001
            twin.set_weights(self.get_weights())
        return twin
