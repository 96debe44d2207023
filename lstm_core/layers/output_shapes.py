"""What comes out of a recurrent Keras layer: its shapes and its mask.

Knows shapes only: computes nothing.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

from lstm_core.layers.arguments import check_initial_state_shapes, check_symbolic_mask

Shape: TypeAlias = tuple[int | None, ...]


class OutputShapes:
    """Mixin of a recurrent `keras.Layer`, before it among the bases."""

    name: str
    units: int
    time_major: bool
    return_sequences: bool
    return_state: bool
    call: Any

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return the symbolic outputs of a call with symbolic inputs.

        Raises:
            ValueError: The mask or `initial_state` can never fit.
        """
        # By name: subclasses have the arguments of `call` in other orders.
        given = inspect.signature(self.call).bind(*args, **kwargs).arguments
        check_symbolic_mask(given.get("mask"), next(iter(given.values())), self.name)
        return super().compute_output_spec(*args, **kwargs)  # type: ignore[misc]

    def compute_output_shape(self, sequences_shape: Shape, initial_state_shape: Any = None) -> Any:
        """Return the shape of the output, or a tuple of it and of those of h and c.

        Raises:
            ValueError: `initial_state_shape` is not two shapes `(batch, units)`.
        """
        batch = sequences_shape[1 if self.time_major else 0]
        check_initial_state_shapes(initial_state_shape, (batch, self.units), self.name)
        last_shape = (batch, self.units)
        shape = (*sequences_shape[:2], self.units) if self.return_sequences else last_shape
        return (shape, last_shape, last_shape) if self.return_state else shape

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the mask of the output, None unless it has a time axis; h and c have none."""
        if isinstance(mask, list | tuple):
            mask = mask[0]
        output_mask = mask if self.return_sequences else None
        return [output_mask, None, None] if self.return_state else output_mask

    @property
    def state_size(self) -> list[int]:
        """The lengths of h and c."""
        return [self.units, self.units]

    @property
    def output_size(self) -> int:
        """The length of one step's output."""
        return self.units
