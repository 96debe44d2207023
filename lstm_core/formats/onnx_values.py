"""What stands for a value while a graph is read: a constant, a state, or sequences on their way.

Owns the rules by which the two directions of an LSTM come together, and its last step is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_axes import Atom, Axes, kinds
from lstm_core.merge import Merge
from lstm_core.network import Bidirectional, Layer, Recurrent
from lstm_core.pointwise import LastStep, Pointwise

Constant = npt.NDArray[Any]

MAX_LAYERS = 1000
"""Between two junctions. Each layer costs as much as there are before it."""


SERVED = "served are LSTMs and operators that treat each time step on its own"
_BOTH_LAST = (
    "takes the last time step of both directions, of which the backward one has taken only one"
    " step; the last states of both (Y_h, or h_n) can be served"
)


@dataclass(frozen=True, slots=True)
class State:
    """An h or c, or several: those that a graph is given, or gives beside its outputs.

    Attributes:
        parts: Each h, where it is made of those of one LSTM after another.
        axis: Along which they lie.
        is_given: Whether the graph is given it, so that an LSTM may begin with it.
    """

    parts: tuple[Sequences, ...] = ()
    axis: int = 0
    is_given: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """A node that is a part of a function, as long as the others have not come.

    Attributes:
        name: The node's name.
        operator: Its operator.
        function: What it computes, as `onnx_formulas` calls it.
    """

    name: str
    operator: str
    function: str

    def output_size(self, input_size: int) -> int:
        """Return `input_size`, also of what is one number for all features."""
        return input_size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Junction:
    """Where values meet: the first of the layers of what comes of them.

    Attributes:
        merge: What is made of them.
        sources: The values.
    """

    merge: Merge
    sources: tuple[Sequences, ...]

    @property
    def name(self) -> str:
        """The node's name."""
        return self.merge.name


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """Where a way begins: an input of the graph.

    Attributes:
        name: The input's name.
        number: Of it among those that are no states.
        features: Of one of its time steps; 1 for integers.
    """

    name: str
    number: int
    features: int


Link = Entry | Layer | Part | Junction
"""What the way of a value is made of while a graph is read."""


@dataclass(frozen=True, slots=True)
class Broken:
    """What comes of a node that cannot be served."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences:
    """What an input has become, behind some layers.

    Attributes:
        axes: Its axes.
        layers: The layers, behind the input or behind where values have met last, that first.
        is_integer: Whether the values are integers, for an embedding.
        is_state: Whether it is an h, fresh from its LSTM.
        direction: 0 or 1 where it is the forward or the backward half of the last layer, or a
            layer that runs backwards only; None where it is all of it.
        step: Of such a half, or of both, `last` or `first` where it is one time step; None where
            it is all.
    """

    axes: Axes
    layers: tuple[Link, ...]
    is_integer: bool = False
    is_state: bool = False
    direction: int | None = None
    step: str | None = None

    def through(self, layer: Pointwise | Part) -> Sequences:
        """Return the values behind another layer, which takes the features.

        Raises:
            SpecError: They are not all of the layer before it, or it takes something else.
        """
        self.check_whole()
        if len(self.layers) == MAX_LAYERS:
            raise SpecError("layers", f"are more than {MAX_LAYERS}")
        size = layer.output_size(self.features)
        axis = (Atom("features", size),)
        return Sequences(axes=(*self.axes[:-1], axis), layers=(*self.layers, layer))

    def check_whole(self) -> None:
        """Refuse half of a layer.

        Raises:
            SpecError: They are one direction only, or both side by side.
        """
        if self.direction is not None and isinstance(self.layers[-1], Recurrent):
            problem = (
                "gives on the sequence of an LSTM that runs backwards only, in the order of time,"
                " which is not served; its last state (Y_h, or h_n) can be"
            )
            raise SpecError(self.layers[-1].name, problem)
        if self.direction is not None:
            raise SpecError("direction", "one direction of an LSTM goes its own way")
        if self.step is not None:
            raise SpecError("step", _BOTH_LAST)
        if any(kinds(axis) != ["direction", "features"] for axis in self.axes if _is_split(axis)):
            raise SpecError("direction", "the directions of an LSTM are not joined")

    def whole_layers(self) -> tuple[Entry | Layer | Junction, ...]:
        """Return the layers.

        Raises:
            SpecError: One is a part of a function that is not known.
        """
        layers = tuple(layer for layer in self.layers if not isinstance(layer, Part))
        if len(layers) < len(self.layers):
            part = next(layer for layer in self.layers if isinstance(layer, Part))
            raise SpecError(part.name, f"is a {part.operator}; {SERVED}")
        return layers

    @property
    def features(self) -> int:
        """Length of the last axis, which must be the features.

        Raises:
            SpecError: It is something else.
        """
        axis = self.axes[-1] if self.axes else ()
        if kinds(axis) not in (["features"], ["direction", "features"]):
            raise SpecError("axis", "works along another axis than the features")
        return int(np.prod([atom.size for atom in axis]))


Value = Constant | State | Broken | Sequences


def _is_split(axis: Sequence[Any]) -> bool:
    return "direction" in kinds(tuple(axis))


def take_step(value: Sequences, axis: int, index: int, *, keeps_axis: bool) -> Sequences:
    """Choose one of the time steps or of the directions.

    Args:
        value: The values.
        axis: Which axis.
        index: Which step or direction, not negative.
        keeps_axis: Whether the axis stays, with size 1.

    Raises:
        SpecError: It is another axis, or a step that is not the layer's last.
    """
    kept: Axes = ((),) if keeps_axis else ()
    axes = value.axes[:axis] + kept + value.axes[axis + 1 :]
    atoms = [atom for atom in value.axes[axis] if atom.size > 1]
    if not atoms:
        return replace(value, axes=axes)
    if len(atoms) > 1 or atoms[0].kind not in {"time", "direction"}:
        what = " and ".join(atom.kind for atom in atoms)
        raise SpecError("axis", f"chooses one of the axis {what}, which is not served")
    (atom,) = atoms
    if atom.kind == "direction":
        return replace(value, axes=axes, direction=index)
    steps = {0: "first", atom.size - 1: "last"}
    is_both = bool(value.layers) and isinstance(value.layers[-1], Bidirectional)
    if is_both and value.direction is None and index in steps:
        # The one direction's last step, whose half may still be taken.
        return replace(value, axes=axes, step=steps[index])
    if steps.get(index) != ("first" if value.direction == 1 else "last"):
        raise SpecError("step", "is not the last that the LSTM takes")
    if is_both:
        return replace(value, axes=axes, step=steps[index])
    return Sequences(axes=axes, layers=_ended(value.layers))


def take_half(value: Sequences, axis: int, chosen: range) -> Sequences | None:
    """Return one direction of the two that lie side by side in the features, or None.

    Args:
        value: The values.
        axis: Which axis.
        chosen: Which of its places are taken.
    """
    atoms = value.axes[axis]
    if kinds(atoms) != ["direction", "features"] or not value.layers:
        return None
    size = atoms[1].size
    halves = [range(size), range(size, 2 * size)]
    if not isinstance(value.layers[-1], Bidirectional) or chosen not in halves:
        return None
    axes = (*value.axes[:axis], atoms[1:], *value.axes[axis + 1 :])
    return replace(value, axes=axes, direction=halves.index(chosen))


def _ended(layers: tuple[Link, ...]) -> tuple[Link, ...]:
    """Return the layers, of which the last recurrent one gives its last step only.

    Where values have met since, it is the last step of what came of them.

    Raises:
        SpecError: There is none, or one that runs both ways.
    """
    found = [i for i, layer in enumerate(layers) if isinstance(layer, Recurrent | Bidirectional)]
    if not found and layers and isinstance(layers[0], Junction):
        return (*layers, LastStep(name=f"{layers[0].name}/last"))
    if not found:
        raise SpecError("step", "one time step is taken before any LSTM")
    at = found[-1]
    if isinstance(layers[at], Bidirectional):
        raise SpecError("step", _BOTH_LAST)
    return (*layers[:at], without_sequences(layers[at]), *layers[at + 1 :])


def without_sequences(layer: Link) -> Link:
    """Return a recurrent layer that gives its last step only."""
    if isinstance(layer, Bidirectional):
        forward, backward = (
            replace(each, return_sequences=False, zero_output_for_mask=False)
            for each in (layer.forward, layer.backward)
        )
        return replace(layer, forward=forward, backward=backward)
    if isinstance(layer, Recurrent):
        return replace(layer, return_sequences=False)
    return layer


def joined(values: Sequence[Sequences], axis: int, mode: str) -> Sequences:
    """Bring the two directions of a layer together, of which one comes at least.

    Args:
        values: The halves, forward first.
        axis: Along which they are concatenated; with another mode it does not matter.
        mode: A merge mode of `Bidirectional`.

    Raises:
        SpecError: They are something else, or of different steps.
    """
    first, *others = values
    layer = first.layers[-1] if first.layers else None
    is_pair = [value.direction for value in values] == [0, 1]
    if not is_pair or first.layers != others[0].layers or not isinstance(layer, Bidirectional):
        raise SpecError(
            "inputs", "joins a direction of an LSTM with something else than the other one"
        )
    steps = (first.step, others[0].step)
    if steps not in {(None, None), ("last", "first")}:
        raise SpecError("step", "joins other steps than the last of each direction")
    axes = first.axes
    if [kinds(each) for each in axes[:-1]] != [kinds(each) for each in others[0].axes[:-1]]:
        raise SpecError("inputs", "joins directions whose axes are not in the same order")
    if mode == "concat":
        if axis != len(axes) - 1:
            raise SpecError("axis", "joins the directions along another axis than the features")
        second = others[0].axes[-1]
        size = sum(atom.size for atom in (*axes[-1], *second) if atom.kind == "features")
        axes = (*axes[:-1], tuple(atom._replace(size=size) for atom in second[-1:]))
    layer = replace(layer, merge_mode=mode)
    merged = layer if steps[0] is None else without_sequences(layer)
    return Sequences(axes=axes, layers=(*first.layers[:-1], merged))
