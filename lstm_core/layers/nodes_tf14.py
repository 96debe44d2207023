"""What TensorFlow 1.4's layers tell about their calls: tensors, shapes and masks, node by node.

A node is one call on symbolic tensors: on a `keras.Input` or on what a layer made of one. Eager
calls leave none. Knows no recurrence, no weights and no losses.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.errors import NoGraphError
from lstm_core.layers.arguments import is_symbolic

Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[int | None, ...]

_CALL_SYMBOLICALLY = (
    "eager calls leave no nodes. Call the layer on keras.Input(...), or keep the tensors that go "
    "in and come out"
)


class InboundNodes:
    """Mixin of a `keras.Layer`: the `get_..._at` methods and the properties beside them."""

    name: str
    _inbound_nodes: list[Any]
    _called: bool

    def get_input_at(self, node_index: int) -> Any:
        """Return the input tensor of a call, or the list of them.

        Args:
            node_index: Of the call: 0 is the first.

        Raises:
            RuntimeError: There has been no symbolic call.
            ValueError: There have been fewer.
        """
        return _one_or_all(self._inputs_of(node_index, "get_input_at"))

    def get_output_at(self, node_index: int) -> Any:
        """Return the output tensor of a call, or the list of them; otherwise as `get_input_at`."""
        return _one_or_all(self._outputs_of(node_index, "get_output_at"))

    def get_input_shape_at(self, node_index: int) -> Any:
        """Return the input shape of a call, or a list; otherwise as `get_input_at`."""
        return _one_or_all(_shapes(self._inputs_of(node_index, "get_input_shape_at")))

    def get_output_shape_at(self, node_index: int) -> Any:
        """Return the output shape of a call, or a list; otherwise as `get_input_at`."""
        return _one_or_all(_shapes(self._outputs_of(node_index, "get_output_shape_at")))

    def get_input_mask_at(self, node_index: int) -> Any:
        """Return the mask that the input of a call carries, None if it carries none, or a list.

        A mask that was handed over as an argument is not among them. Otherwise as `get_input_at`.
        """
        return _one_or_all(_masks(self._inputs_of(node_index, "get_input_mask_at")))

    def get_output_mask_at(self, node_index: int) -> Any:
        """Return the mask that the output of a call carries, or None, or a list; as above."""
        return _one_or_all(_masks(self._outputs_of(node_index, "get_output_mask_at")))

    @property
    def input(self) -> Any:
        """The input tensor of the only call, or the list of them.

        Raises:
            AttributeError: There has been no call, or more than one.
            RuntimeError: All calls were eager.
        """
        self._check_single_node("input")
        return self.get_input_at(0)

    @property
    def output(self) -> Any:
        """The output tensor of the only call, or the list of them; otherwise as `input`."""
        if not _is_asked_by_keras():
            self._check_single_node("output")
        return self.get_output_at(0)

    @property
    def input_mask(self) -> Any:
        """The mask of the input of the only call, None, or a list; otherwise as `input`."""
        self._check_single_node("input_mask")
        return self.get_input_mask_at(0)

    @property
    def output_mask(self) -> Any:
        """The mask of the output of the only call, None, or a list; otherwise as `input`."""
        self._check_single_node("output_mask")
        return self.get_output_mask_at(0)

    @property
    def input_shape(self) -> Any:
        """The shape that the input of every call has, or a list of shapes.

        Raises:
            AttributeError: There has been no call, or they differ.
            RuntimeError: All calls were eager.
        """
        return self._common("input_shape", self.get_input_shape_at)

    @property
    def output_shape(self) -> Any:
        """The shape that the output of every call has, or a list; otherwise as `input_shape`."""
        return self._common("output_shape", self.get_output_shape_at)

    def _check_connected(self, member: str) -> None:
        if self._inbound_nodes:
            return
        if self._called:
            raise NoGraphError(f"{member} of layer {self.name}", _CALL_SYMBOLICALLY)
        raise AttributeError(
            f"layer {self.name} has never been called and thus has no defined {member}"
        )

    def _check_single_node(self, member: str) -> None:
        self._check_connected(member)
        if len(self._inbound_nodes) > 1:
            raise AttributeError(
                f"layer {self.name} has {len(self._inbound_nodes)} inbound nodes, hence the notion "
                f"of {member} is ill-defined for it: use get_{member}_at(node_index) instead"
            )

    def _common(self, member: str, get_at: Any) -> Any:
        self._check_connected(member)
        values = [get_at(index) for index in range(len(self._inbound_nodes))]
        if any(value != values[0] for value in values):
            raise AttributeError(
                f"layer {self.name} has inbound nodes with different values of {member}: {values}; "
                f"use get_{member}_at(node_index) instead"
            )
        return values[0]

    def _node(self, node_index: int, member: str) -> Any:
        if not self._inbound_nodes:
            raise NoGraphError(f"{member} of layer {self.name}", _CALL_SYMBOLICALLY)
        if not 0 <= node_index < len(self._inbound_nodes):
            raise ValueError(
                f"{member} of layer {self.name} was asked for node {node_index}, but the layer has "
                f"only {len(self._inbound_nodes)} inbound nodes, counted from 0"
            )
        return self._inbound_nodes[node_index]

    def _inputs_of(self, node_index: int, member: str) -> list[Tensor]:
        arguments = self._node(node_index, member).arguments
        # A mask among the keyword arguments is a tensor of the node, but no input.
        given = (arguments.args, arguments.kwargs.get("initial_state"))
        return [tensor for tensor in tf.nest.flatten(given) if is_symbolic(tensor)]

    def _outputs_of(self, node_index: int, member: str) -> list[Tensor]:
        return list(self._node(node_index, member).output_tensors)


def _is_asked_by_keras() -> bool:
    """Return whether the property that calls this is read by Keras itself.

    `keras.Model` counts by `output` the tensors of every layer in it, also of one that it shares,
    and would fail on the AttributeError that TensorFlow 1.4 promises to everybody else.
    """
    reader = sys._getframe(2)  # noqa: SLF001 - `inspect` reads the source files, too.
    return str(reader.f_globals.get("__name__")).startswith("keras.src.")


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _shapes(tensors: list[Tensor]) -> list[Shape]:
    return [tuple(tensor.shape) for tensor in tensors]


def _masks(tensors: list[Tensor]) -> list[Tensor | None]:
    return [getattr(tensor, "_keras_mask", None) for tensor in tensors]
