"""A stand-in for cuDNN's operation, after its documented contract, on any device.

Written from the documentation of `tf.raw_ops.CudnnRNNV3` and of cuDNN's parameter buffer, and
sharing no code with `lstm_core`: it reads the buffer with a cursor.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class StandIn:
    """`lstm_core.kernels.cudnn.operation`, counting its runs in graphs too.

    Attributes:
        runs: A `tf.Variable`, how often it ran.
        gates: The order of an LSTM's gates in the buffer.
        gru_gates: The order of a GRU's: reset, update, new memory.
        is_training: What it was asked for.
    """

    def __init__(self, gates: str = "ifco", gru_gates: str = "rzn") -> None:
        self.runs = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.gates = gates
        self.gru_gates = gru_gates
        self.is_training: set[bool] = set()

    def __call__(
        self, *, input: Any, input_h: Any, input_c: Any, params: Any, sequence_lengths: Any,  # noqa: A002
        time_major: bool, direction: str = "unidirectional", dropout: float = 0.0, seed: int = 0,
        rnn_mode: str = "lstm", is_training: bool = True,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        """Refuse what cuDNN refuses, and give what it is documented to give."""
        assert time_major
        assert seed >= 0
        assert dropout == 0.0
        assert sequence_lengths.dtype == tf.int32
        assert {input.dtype} == {input_h.dtype, input_c.dtype, params.dtype}
        num_dirs = 2 if direction == "bidirectional" else 1
        tf.debugging.assert_greater(tf.reduce_min(tf.shape(input)[:2]), 0)
        tf.debugging.assert_greater(tf.reduce_min(sequence_lengths), 0)
        tf.debugging.assert_less_equal(tf.reduce_max(sequence_lengths), tf.shape(input)[0])
        self.runs.assign_add(1)
        self.is_training.add(is_training)
        if rnn_mode == "gru":
            assert direction == "unidirectional"
            return self.run_gru(input, input_h, params, sequence_lengths)
        assert rnn_mode == "lstm"
        units, num_states = input_h.shape[-1], input_h.shape[0]
        weights, biases = read_buffer(params, input.shape[-1], units, num_states, num_dirs)
        last_h, last_c = [], []
        for layer in range(num_states // num_dirs):
            outputs = []
            for direction_index in range(num_dirs):
                at = layer * num_dirs + direction_index
                x = reverse(input, sequence_lengths) if direction_index else input
                y, h, c = self.run(
                    x, input_h[at], input_c[at], weights[at], biases[at], sequence_lengths
                )
                outputs.append(reverse(y, sequence_lengths) if direction_index else y)
                last_h.append(h)
                last_c.append(c)
            input = tf.concat(outputs, axis=-1)  # noqa: A001
        return input, tf.stack(last_h), tf.stack(last_c)

    def run(self, x: Any, h: Any, c: Any, weights: Any, biases: Any, lengths: Any) -> Any:
        """One layer in one direction: outputs, zeros past each length, and the states there."""
        w, r = weights[:4], weights[4:]
        b = [biases[i] + biases[4 + i] for i in range(4)]

        def step(x_t: Any, h_before: Any, c_before: Any) -> Any:
            z = {
                gate: tf.linalg.matvec(w[i], x_t) + tf.linalg.matvec(r[i], h_before) + b[i]
                for i, gate in enumerate(self.gates)
            }
            c_next = tf.sigmoid(z["f"]) * c_before + tf.sigmoid(z["i"]) * tf.tanh(z["c"])
            return tf.sigmoid(z["o"]) * tf.tanh(c_next), c_next

        outputs, (last_h, last_c) = over_time(step, x, (h, c), lengths)
        return outputs, last_h, last_c

    def run_gru(self, x: Any, h: Any, params: Any, lengths: Any) -> Any:
        """One GRU: outputs, the state, and nothing in the place of c."""
        assert h.shape[0] == 1
        ((weights,), (biases,)) = read_buffer(params, x.shape[-1], h.shape[-1], 1, 1, num_gates=3)
        at = {gate: index for index, gate in enumerate(self.gru_gates)}

        def product(gate: str, first: int, operand: Any) -> Any:
            return tf.linalg.matvec(weights[first + at[gate]], operand) + biases[first + at[gate]]

        def step(x_t: Any, h_before: Any) -> Any:
            r = tf.sigmoid(product("r", 0, x_t) + product("r", 3, h_before))
            z = tf.sigmoid(product("z", 0, x_t) + product("z", 3, h_before))
            memory = tf.tanh(product("n", 0, x_t) + r * product("n", 3, h_before))
            return ((1 - z) * memory + z * h_before,)

        outputs, (last_h,) = over_time(step, x, (h[0],), lengths)
        return outputs, last_h[tf.newaxis], tf.zeros((), h.dtype)


def over_time(step: Any, x: Any, first: Any, lengths: Any) -> Any:
    """Take the steps within each length: h of every step, zeros past it, and the last states."""

    def take(states: Any, at: Any) -> Any:
        x_t, t = at
        live = (t < lengths)[:, tf.newaxis]
        after = step(x_t, *states)
        return tuple(tf.where(live, a, b) for a, b in zip(after, states, strict=True))

    times = tf.range(tf.shape(x)[0])
    if x.shape[0] is None:
        every = tf.scan(take, (x, times), first)
    else:
        states = [first]
        for t in range(x.shape[0]):
            states.append(take(states[-1], (x[t], t)))
        every = tuple(tf.stack(part) for part in zip(*states[1:], strict=True))
    live = (times[:, tf.newaxis] < lengths)[..., tf.newaxis]
    outputs = tf.where(live, every[0], tf.zeros_like(every[0]))
    return outputs, tuple(part[-1] for part in every)


def reverse(x: Any, lengths: Any) -> Any:
    """Reverse each row's live steps in time."""
    return tf.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)


def read_buffer(
    params: Any, features: int, units: int, num_states: int, num_dirs: int, num_gates: int = 4
) -> tuple[list[list[Any]], list[list[Any]]]:
    """Read two matrices `(units, n)` and two biases a gate for each layer and direction."""
    at = 0

    def take(*shape: int) -> Any:
        nonlocal at
        size = 1
        for n in shape:
            size *= n
        part = tf.reshape(params[at : at + size], shape)
        at += size
        return part

    weights = []
    for state in range(num_states):
        width = features if state < num_dirs else units * num_dirs
        weights.append(
            [take(units, width) for _ in range(num_gates)]
            + [take(units, units) for _ in range(num_gates)]
        )
    biases = [[take(units) for _ in range(2 * num_gates)] for _ in range(num_states)]
    tf.debugging.assert_equal(tf.size(params), at)
    return weights, biases
