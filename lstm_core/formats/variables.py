"""Where a layer's variables are in a file, whatever the file: the checks that all formats share.

Owns shapes, finiteness and messages. Does not know how any format stores its arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lstm_core.errors import SpecError, WeightsError
from lstm_core.formats.tensors import Float32, StoredTensor


class Variables(ABC):
    """One layer's place in a file.

    Attributes:
        layer: The layer's name, for messages.
    """

    layer: str

    @abstractmethod
    def child(self, part: str, index: int = 0) -> Variables:
        """Return the place of a part of the layer.

        Args:
            part: `cell`, `cells`, `layer`, `forward_layer` or `backward_layer`, or a cell's group
                among the cells.
            index: Number of a cell among the cells.
        """

    @abstractmethod
    def find(self, index: int, name: str) -> StoredTensor:
        """Return variable number `index` of the layer, called `name` by Keras.

        Raises:
            KeyError: There is none; its argument tells where it was looked for.
            ValueError: It is there, but not where it may be read.
        """

    def read(self, index: int, name: str, shape: tuple[int | None, ...]) -> Float32:
        """Return variable number `index` of the layer.

        Args:
            index: Its number.
            name: What it is called.
            shape: What it shall have, None where any size will do.

        Returns:
            float32, C-contiguous, all finite.

        Raises:
            SpecError: It is missing, cannot be read, is not finite or has another shape.
        """
        try:
            stored = self.find(index, name)
            _check_shape(name, stored.shape, shape)
            array = stored.load()
        except KeyError as error:
            raise SpecError(self.layer, f"its {name} is missing: no {error.args[0]}") from None
        except WeightsError as error:
            raise SpecError(self.layer, str(error)) from error
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise SpecError(self.layer, f"its {name} cannot be read: {error}") from error
        if not np.isfinite(array).all():
            raise SpecError(self.layer, f"its {name} has values that are not finite in float32")
        return array


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedVariables(Variables):
    """A layer's variables where a file lists them by name, in the layer's own order.

    The name's last part is what Keras calls the variable, the parts before it are the layers and
    cells that it belongs to. Old names tell less; then the order decides.

    Attributes:
        layer: The layer's name, for messages.
        listed: The name of each variable without `:0`, and the variable.
    """

    layer: str
    listed: Sequence[tuple[str, StoredTensor]]

    def child(self, part: str, index: int = 0) -> NamedVariables:
        """Return the variables of a part."""
        if part in {"forward_layer", "backward_layer"}:
            return replace(self, listed=self._direction(part.partition("_")[0]))
        if part in {"cell", "cells", "layer"}:
            return self
        owners = list(dict.fromkeys(_owner(name) for name, _ in self.listed))
        chosen = owners[index] if index < len(owners) else None
        return replace(self, listed=[each for each in self.listed if _owner(each[0]) == chosen])

    def _direction(self, direction: str) -> Sequence[tuple[str, StoredTensor]]:
        named = [
            each
            for each in self.listed
            if any(part.startswith(direction) for part in each[0].split("/"))
        ]
        if named:
            return named
        # Keras 1 and 2 name both directions alike at times; forward comes first.
        half = len(self.listed) // 2
        return self.listed[:half] if direction == "forward" else self.listed[half:]

    def find(self, index: int, name: str) -> StoredTensor:
        """Return the variable of that name, or else of that number."""
        called = [stored for each, stored in self.listed if each.rsplit("/", 1)[-1] == name]
        if len(called) == 1:
            return called[0]
        if index >= len(self.listed):
            raise KeyError(f"variable number {index + 1} of this layer")
        return self.listed[index][1]


def _owner(name: str) -> str:
    # A projection is a part of its cell.
    return name.rpartition("/")[0].removesuffix("/projection")


def _check_shape(name: str, actual: tuple[int, ...], shape: tuple[int | None, ...]) -> None:
    fits = len(actual) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, actual, strict=True)
    )
    if not fits:
        padded = zip(shape, (*actual, *[0] * len(shape)), strict=False)
        expected = tuple(have if want is None else want for want, have in padded)
        raise WeightsError(name, expected, actual)
