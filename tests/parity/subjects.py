"""Layers that are built once for each configuration, so that an example takes milliseconds.

Owns the calls, eagerly or as graphs of any batch and time. Knows no law and no data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tests.parity.cases import Array, Config


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A built layer, and its calls on batch-major data of any batch and time.

    Attributes:
        layer: Ours or a peer's.
        forward: Takes inputs, mask, h and c; returns output or outputs, h and c.
        gradients: Takes the same; returns the gradients of `loss` for inputs, h and c where they
            came, and all weights.
    """

    layer: Any
    forward: Callable[..., Any]
    gradients: Callable[..., Any]

    def given(self, weights: Sequence[Array]) -> Subject:
        """Set the layer's weights."""
        for variable, weight in zip(self.layer.weights, weights, strict=True):
            variable.assign(weight)
        return self


def loss(results: Sequence[Any]) -> Any:
    """Return a number that every element of output, h and c moves, each in another way."""
    output, h, c = results
    return tf.reduce_sum(tf.sin(3 * output)) + tf.reduce_sum(h * c)


@functools.cache
def subject(make: Callable[..., Any], config: Config) -> Subject:
    """Build a layer, once for each class and configuration.

    Args:
        make: The layer's class.
        config: Of the layer and of the call.
    """
    layer = make(config.units, **config.options())
    layer.build((None, None, config.features))
    trainable = [w if isinstance(w, tf.Variable) else w.value for w in layer.trainable_weights]

    def forward(x: Any, mask: Any, h: Any, c: Any) -> Any:
        if config.time_major:
            x, mask = tf.transpose(x, (1, 0, 2)), None if mask is None else tf.transpose(mask)
        state = None if h is None else [h, c]
        output, *after = layer(x, initial_state=state, mask=mask)
        if config.time_major and config.return_sequences:
            output = tf.transpose(output, (1, 0, 2))
        return output, *after

    def gradients(x: Any, mask: Any, h: Any, c: Any) -> Any:
        given = [each for each in (x, h, c) if each is not None]
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = loss(forward(x, mask, h, c))
        return tape.gradient(value, [*given, *trainable], unconnected_gradients="zero")

    arguments = [
        tf.TensorSpec((None, None, config.features), config.dtype),
        tf.TensorSpec((None, None), tf.bool) if config.has_mask else None,
        *[tf.TensorSpec((None, config.units), config.dtype) if config.has_state else None] * 2,
    ]
    return Subject(
        layer=layer,
        forward=_call(forward, arguments, is_eager=config.is_eager),
        gradients=_call(gradients, arguments, is_eager=config.is_eager),
    )


def _call(function: Callable[..., Any], arguments: list[Any], *, is_eager: bool) -> Any:
    """Return `function` of arrays, where `arguments` has one, and of None elsewhere."""
    is_given = [argument is not None for argument in arguments]

    def of_given(*given: Any) -> Any:
        rest = iter(given)
        return function(*(next(rest) if is_there else None for is_there in is_given))

    run = of_given
    if not is_eager:
        run = tf.function(of_given, input_signature=[a for a in arguments if a is not None])

    def call(*arrays: Array | None) -> Any:
        assert is_given == [array is not None for array in arrays]
        return run(*(tf.constant(array) for array in arrays if array is not None))

    return call
