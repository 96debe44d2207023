"""The parity table: the largest difference that any test saw, by system, feature and peer.

Owns the comparison, the record and its Markdown. Knows no layer: what stands in a row was computed
by a test that ran, and `EXPECTED` tells only which rows must not be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np

Row: TypeAlias = tuple[str, str, str]
"""System, feature, and what it is compared with: a dotted name."""

_DISTRIBUTIONS = {"lstm_core": "lstm-service"}
"""Of a peer's first name, where the two differ."""

EXPECTED: dict[str, tuple[str, ...]] = {
    "LSTM": (
        "forward", "float64", "mask", "initial_state", "go_backwards", "time_major", "unroll",
        "implementation=1", "use_bias=False", "zero_output_for_mask", "activations",
        "weights of the peer", "gradients", "steps equal one sequence", "rows equal the batch",
        "padding", "stateful", "dropout", "recurrent_dropout", "initial weights", "regularizers",
        "constraints", "get_config", ".keras", ".weights.h5", "mixed_float16", "mixed_bfloat16",
        "Bidirectional", "fit", "reset_state", "use_cudnn", "return_state", "seed",
        "get_initial_state", "batch_input_shape", "weights=", "activity_regularizer",
    ),
    "compat.v1.LSTM": (
        "forward", "mask", "initial_state", "go_backwards", "time_major", "unroll",
        "implementation=2", "gradients", "stateful", "hard_sigmoid", "dropout",
    ),
    "compat.tf14.LSTM": (
        "forward", "mask before the first step", "go_backwards", "unroll", "implementation",
        "gradients", "stateful", "step", "preprocess_input", "get_constants",
        "get_initial_state",
    ),
    "LSTMCell": (
        "forward", "peepholes", "cell_clip", "num_proj", "proj_clip", "forget_bias",
        "state_is_tuple", "activation", "gradients", "zero_state", "dynamic_rnn",
        "keras.layers.RNN", "reuse",
    ),
    "CuDNNLSTM": ("forward", "gradients", "go_backwards", "stateful", "weight conversion"),
    "CudnnLSTM": (
        "forward", "gradients", "bidirectional", "sequence_lengths", "weight conversion",
    ),
    "CudnnCompatibleLSTMCell": ("forward",),
    "LSTMBlockCell": ("forward", "peephole", "cell_clip", "gradients"),
    "LSTMBlockFusedCell": ("forward", "peephole", "cell_clip", "sequence_length", "gradients"),
    "kernels.block": ("forward", "gradients"),
    "CPU runtime": ("forward", "mask", "go_backwards", "sessions", "peepholes, projection"),
}  # fmt: skip
"""The systems, and the features that each must have a row for."""

DIFFERENCES: dict[Row, float] = {}
"""The largest absolute difference by row, of this process."""


def agree(actual: Any, expected: Any, *, row: Row, rtol: float = 0.0, atol: float = 1e-6) -> None:
    """Assert that two nests of arrays are close, and keep the largest difference of `row`.

    Args:
        actual: An array, or nested lists and tuples of them: what ours gave.
        expected: The same of the peer.
        row: What was compared.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Raises:
        AssertionError: Another structure, shape or number.
    """
    agree_in_rows(actual, expected, rows=[row], rtol=rtol, atol=atol)


def agree_in_rows(
    actual: Any, expected: Any, *, rows: Iterable[Row], rtol: float = 0.0, atol: float = 1e-6
) -> None:
    """Assert as `agree` does, for one comparison that stands for several features."""
    actual_arrays, expected_arrays = flat(actual), flat(expected)
    assert len(expected_arrays) == len(actual_arrays)
    for e, a in zip(expected_arrays, actual_arrays, strict=True):
        assert e.shape == a.shape
    differences = [
        float(abs(a - e).max())
        for a, e in zip(actual_arrays, expected_arrays, strict=True)
        if e.size
    ]
    note(rows, max(differences, default=0.0))
    for e, a in zip(expected_arrays, actual_arrays, strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=atol)


def note(rows: Iterable[Row], difference: float) -> None:
    """Keep a difference where it is the largest of its row."""
    for row in rows:
        known = row[0] in EXPECTED and row[1] in EXPECTED[row[0]]
        assert known, f"{row}: no such feature in tests.parity.record.EXPECTED"
        DIFFERENCES[row] = float(np.fmax(DIFFERENCES.get(row, 0.0), difference))


def flat(nest: Any) -> list[np.ndarray[Any, Any]]:
    """Return the arrays of a nest in a row, each float64."""
    if isinstance(nest, list | tuple):
        return [array for part in nest for array in flat(part)]
    return [np.asarray(nest, np.float64)]


def missing(differences: Mapping[Row, float]) -> list[str]:
    """Name each system and feature without a row."""
    seen = {row[:2] for row in differences}
    return [
        f"{system}: {feature}"
        for system, features in EXPECTED.items()
        for feature in features
        if (system, feature) not in seen
    ]


def markdown(differences: Mapping[Row, float]) -> str:
    """Return the table, in the order of `EXPECTED`."""
    systems = list(EXPECTED)
    rows = sorted(
        differences, key=lambda row: (systems.index(row[0]), EXPECTED[row[0]].index(row[1]), row[2])
    )
    lines = ["| system | feature | compared with | largest difference |", "|---|---|---|---|"]
    for row in rows:
        system, feature, peer = row
        size = differences[row]
        shown = "0" if size == 0 else f"{size:.1e}"
        lines.append(f"| `{system}` | {feature} | {_with_version(peer)} | {shown} |")
    return "\n".join(lines) + "\n"


def _with_version(peer: str) -> str:
    first = peer.partition(".")[0]
    distribution = _DISTRIBUTIONS.get(first, first)
    release = version(distribution)
    return (
        f"`{peer}` ({release})" if distribution == first else f"`{peer}` ({distribution} {release})"
    )
