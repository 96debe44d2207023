"""A functional Keras model as nodes, run one by one with tensors and calls of the caller's choice.

The one place that knows what Keras keeps of a model's graph. Knows nothing of states.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from lstm_core.errors import SpecError

Tensor: TypeAlias = Any  # TensorFlow and Keras ship no types.
Operation: TypeAlias = Any

Call: TypeAlias = Callable[[Operation, "Arguments | None", Sequence[Tensor]], Any]
"""Runs an operation, given the symbolic tensors of its outputs too. There are no arguments where
some of them could not be had. It returns a tensor for each output, None for none; the last ones may
be left out."""

_TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")
_NEVER_INFERENCE = {"batch_input_shape", "batch_shape", "name", "trainable"}
_NOT_INFERENCE = _NEVER_INFERENCE | {
    "dropout",
    "implementation",
    "noise_shape",
    "rate",
    "recurrent_dropout",
    "seed",
    "stateful",
    "unroll",
    "use_cudnn",
}
"""Of a layer's configuration: what only training looks at, or what changes no result. The first of
any layer's, the second of Keras's and ours: what a user's layer calls its rate may be anything."""
_KNOWN_PACKAGES = ("keras", "lstm_core")


class Arguments:
    """What an operation of a graph is called with."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take positional arguments and named ones."""
        self.args = args
        self.kwargs = kwargs

    @property
    def first(self) -> Tensor:
        """The first argument, by position or name."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    @property
    def values(self) -> list[Any]:
        """Every value inside them, containers flattened."""
        return list(keras.tree.flatten([self.args, self.kwargs]))

    @property
    def others(self) -> list[Any]:
        """Every value but the first argument and the mask."""
        mask = self.kwargs.get("mask")
        return [value for value in self.values if value is not self.first and value is not mask]

    @property
    def mask(self) -> Tensor | None:
        """The mask of the first argument: the one that is given, or the one that it carries."""
        given = self.kwargs.get("mask")
        return mask_of(self.first) if given is None else given

    def with_mask(self, mask: Tensor | None) -> Arguments:
        """Return the same arguments with another mask."""
        return Arguments(self.args, {**self.kwargs, "mask": mask})

    def map(self, change: Callable[[Any], Any]) -> Arguments:
        """Return the same arguments with every value inside them changed."""
        args, kwargs = keras.tree.map_structure(change, (self.args, self.kwargs))
        return Arguments(tuple(args), kwargs)

    def call(self, operation: Operation) -> Any:
        """Call an operation as inference does."""
        kwargs = self.kwargs
        if getattr(operation, "_call_has_training_arg", False):
            kwargs = {"training": False, **kwargs}
        return operation(*self.args, **kwargs)


class Graph:
    """A model's nodes.

    Attributes:
        model: The model.
        inputs: Its symbolic inputs, flat.
        outputs: Its symbolic outputs, flat.
    """

    def __init__(self, model: keras.Model) -> None:
        """Look into a model.

        Raises:
            SpecError: It is no functional one, nor a Sequential that is built.
        """
        self.model = model
        functional = _functional(model)
        if functional is None:
            problem = (
                "is a subclassed model, or was never built: only Sequential and functional models"
                " have a graph that sessions can be made of"
            )
            raise SpecError(model.name, problem)
        self.inputs: list[Tensor] = list(functional.inputs)
        self.outputs: list[Tensor] = list(functional.outputs)

    def run(self, inputs: Sequence[Tensor | None], call: Call) -> list[Tensor | None]:
        """Run every operation once, always in the same order, those of nested models too.

        Args:
            inputs: One for each of the model's; None where there is none.
            call: Runs an operation.

        Returns:
            One tensor for each of the model's outputs; None where it could not be had.
        """
        return _run(self.model, inputs, call)

    def fingerprint(self) -> str:
        """Return SHA-256, in hexadecimal, of the inference configuration and the weights."""
        digest = hashlib.sha256(b'{"fingerprint": "graph 1"}')
        numbers: dict[int, int] = {}
        tokens = [_Token() for _ in self.inputs]
        numbers.update({id(token): index for index, token in enumerate(tokens)})
        kept: list[Any] = list(tokens)

        def describe(value: Any) -> Any:
            if id(value) in numbers:
                return f"tensor {numbers[id(value)]}"
            if isinstance(value, np.ndarray | tf.Tensor | keras.Variable):
                return [value.shape, np.asarray(value).tobytes().hex()]
            return repr(value)

        def call(operation: Operation, arguments: Arguments | None, symbolic: Any) -> Any:
            assert arguments is not None
            _digest_operation(digest, operation, [describe(value) for value in arguments.values])
            outputs = [_Token() for _ in symbolic]
            for token in outputs:
                numbers[id(token)] = len(numbers)
            kept.extend(outputs)
            return outputs

        for tensor in self.inputs:
            digest.update(json.dumps([tensor.shape[1:], str(tensor.dtype)]).encode())
        outputs = self.run(tokens, call)
        digest.update(json.dumps([describe(token) for token in outputs]).encode())
        return digest.hexdigest()


class _Token:
    """Stands for a tensor where only the graph's form counts."""


def mask_of(tensor: Tensor) -> Tensor | None:
    """Return the mask that a tensor carries, if any."""
    return getattr(tensor, "_keras_mask", None)


def with_mask(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Return a tensor after it was given a mask to carry, if there is one."""
    if mask is not None:
        tensor._keras_mask = mask  # noqa: SLF001 - where Keras's layers look for it
    return tensor


def _functional(model: Operation) -> Any | None:
    """Return what has the nodes of a model; None for what is no model, or has none."""
    if isinstance(model, keras.Sequential):
        model = model._functional  # noqa: SLF001 - Keras shows a Sequential's nodes nowhere else
    return model if hasattr(model, "_nodes_by_depth") else None


def _run(model: Operation, inputs: Sequence[Tensor | None], call: Call) -> list[Tensor | None]:
    functional = _functional(model)
    assert functional is not None
    tensors = {
        id(symbolic): tensor
        for symbolic, tensor in zip(functional.inputs, inputs, strict=True)
        if tensor is not None
    }
    by_depth = functional._nodes_by_depth  # noqa: SLF001 - as `Functional.call` reads it
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.is_input:
                continue
            operation = node.operation
            if _functional(operation) is not None:
                given, masks = _given(node.arguments, tensors)
                with _carrying(given, masks):
                    outputs = _run(operation, given, call)
            else:
                is_complete = all(id(symbolic) in tensors for symbolic in node.input_tensors)
                arguments = Arguments(*node.arguments.fill_in(tensors)) if is_complete else None
                outputs = keras.tree.flatten(call(operation, arguments, node.outputs))
            for symbolic, tensor in zip(node.outputs, outputs, strict=False):
                if tensor is not None:
                    tensors[id(symbolic)] = tensor
    return [tensors.get(id(symbolic)) for symbolic in functional.outputs]


def _given(
    arguments: Any, tensors: Mapping[int, Tensor]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Return the inputs of a nested model, and the masks that it is called with, or none."""
    called = Arguments(arguments.args, arguments.kwargs)
    both = called.first, called.kwargs.get("mask")
    given, masks = ([tensors.get(id(x)) for x in keras.tree.flatten(each)] for each in both)
    return given, masks


@contextmanager
def _carrying(given: Sequence[Tensor | None], masks: Sequence[Tensor | None]) -> Iterator[None]:
    """Let tensors carry masks for a while: elsewhere in the graph they may come without them."""
    pairs = [
        (tensor, mask)
        for tensor, mask in zip(given, masks, strict=False)
        if tensor is not None and mask is not None
    ]
    carried = [mask_of(tensor) for tensor, _ in pairs]
    for tensor, mask in pairs:
        tensor._keras_mask = mask  # noqa: SLF001 - where Keras's layers look for it
    try:
        yield
    finally:
        for (tensor, _), mask in zip(pairs, carried, strict=True):
            tensor._keras_mask = mask  # noqa: SLF001 - likewise


def _digest_operation(digest: Any, operation: Operation, given: list[Any]) -> None:
    kind = keras.saving.get_registered_name(type(operation))
    config = _inference_part(operation.get_config(), type(operation).__module__)
    digest.update(json.dumps([kind, config, given], sort_keys=True, default=repr).encode())
    for weight in getattr(operation, "weights", []):
        array = keras.ops.convert_to_numpy(weight)
        digest.update(json.dumps(array.shape).encode())
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())


def _inference_part(config: Any, module: str) -> Any:
    """Return what counts of the configuration of a layer whose class stands in a module."""
    if isinstance(config, dict):
        if "class_name" in config:
            module = str(config.get("module"))
        is_known = module.split(".")[0] in _KNOWN_PACKAGES
        left_out = _NOT_INFERENCE if is_known else _NEVER_INFERENCE
        return {
            name: _inference_part(value, module)
            for name, value in config.items()
            # None: what a later release of Keras adds is that where it is not used.
            if value is not None and name not in left_out and not name.endswith(_TRAINING_ONLY)
        }
    if isinstance(config, list | tuple):
        return [_inference_part(value, module) for value in config]
    return config
