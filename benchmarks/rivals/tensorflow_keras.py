"""TensorFlow: a traced function, the same under XLA, its fused BlockLSTM; and Keras's own layer.

Everything is traced once for its shape and called as a concrete function.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import tensorflow as tf
from rivals.problem import Contestant, Problem, States

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

Function = Callable[..., tuple[Any, Any, Any]]


def contestants(problem: Problem) -> Iterator[Contestant]:
    """Yield the ways to use it."""
    step = _step(problem)

    def whole(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        """Map time-major inputs to time-major outputs and the state."""
        if problem.steps == 1:
            h, c = step(x[0], h, c)
            return h[None], h, c
        outputs = tf.TensorArray(tf.float32, problem.steps, element_shape=problem.h.shape)
        for t in tf.range(problem.steps):
            h, c = step(x[t], h, c)
            outputs = outputs.write(t, h)
        return outputs.stack(), h, c

    for name, options in (("TensorFlow", {}), ("XLA", {"jit_compile": True})):
        yield _traced(name, problem, whole, is_time_major=True, **options)
    yield _traced("TensorFlow, block", problem, _block(problem), is_time_major=True)
    yield _traced("Keras", problem, _keras(problem), is_time_major=False)


def _step(problem: Problem) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    kernel, recurrent, bias = (tf.Variable(value) for value in problem.with_gates("ifco"))

    def step(x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        z = tf.matmul(x, kernel) + tf.matmul(h, recurrent) + bias
        i, f, g, o = tf.split(z, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    return step


def _block(problem: Problem) -> Function:
    kernel, recurrent, bias = problem.with_gates("ifco")
    w = tf.Variable(tf.concat([kernel, recurrent], 0))
    b = tf.Variable(bias)
    peephole = tf.zeros(problem.units)
    steps = tf.constant(problem.steps, tf.int64)

    def block(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        result = tf.raw_ops.BlockLSTMV2(
            seq_len_max=steps, x=x, cs_prev=c, h_prev=h, w=w, wci=peephole, wcf=peephole,
            wco=peephole, b=b, cell_clip=0.0, use_peephole=False,
        )  # fmt: skip
        return result.h, result.h[-1], result.cs[-1]

    return block


def _keras(problem: Problem) -> Function:
    layer = keras.layers.LSTM(problem.units, return_sequences=True, return_state=True)
    layer.build(problem.inputs.shape)
    layer.set_weights(problem.with_gates("ifco"))

    def call(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        y, h, c = layer(x, initial_state=[h, c], training=False)
        return y, h, c

    return call


def _traced(
    name: str, problem: Problem, function: Function, *, is_time_major: bool, **options: Any
) -> Contestant:
    x = problem.time_major if is_time_major else problem.inputs
    arguments = [tf.constant(value) for value in (x, problem.h, problem.c)]
    traced = tf.function(function, **options)
    concrete = traced.get_concrete_function(*map(tf.TensorSpec.from_tensor, arguments))

    def results() -> States:
        y, h, c = (value.numpy() for value in concrete(*arguments))
        return y.swapaxes(0, 1) if is_time_major else y, h, c

    return Contestant(name=name, call=lambda: concrete(*arguments), results=results)
