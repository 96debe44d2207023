"""The configuration of one LSTM as inference sees it, and the order of its gates.

Owns names and numbers. Knows no arrays, no weights and no framework.
"""

from __future__ import annotations

from dataclasses import dataclass

from lstm_core.errors import SpecError

GATE_ORDER = "ifco"
"""Order of the four gates along the last axis of every kernel and bias: input, forget, cell
candidate, output. The one of Keras; `weights.reorder_gates` translates the others."""

ACTIVATIONS = frozenset(
    {
        "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_sigmoid_v1", "hard_silu",
        "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
        "softplus", "softsign", "tanh",
    }
)  # fmt: skip
"""Elementwise activations by their Keras 3 names. `hard_sigmoid` is Keras 3's, `relu6(x + 3) / 6`;
`hard_sigmoid_v1` is the one of Keras 1 and 2, `clip(0.2 x + 0.5, 0, 1)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LSTMSpec:
    """One LSTM's configuration, without options that only training or the call decide.

    Attributes:
        input_size: Features of one time step, at least 1.
        units: Length of `h` and of `c`, at least 1.
        activation: Of the cell candidate and of the cell state on its way out.
        recurrent_activation: Of the input, forget and output gates.
        use_bias: Whether there is a bias.
        use_peepholes: Whether the gates see the cell state through a diagonal weight each: input
            and forget gate the old one, the output gate the new one.
        projection_size: Length of `h` where it is a projection of `units` values; None: no
            projection.
        cell_clip: The new cell state is clipped to this absolute value, before the output gate and
            the output see it; None: it is not.
        projection_clip: The projection is clipped to this absolute value; None: it is not.
        forget_bias: Added to the forget gate's input, beside the bias.
        gate_clip: What the activations of the gates and of the candidate are given is clipped to
            this absolute value (ONNX's `clip`); None: it is not.

    Raises:
        SpecError: A size or a clip is not positive, or an activation is not in `ACTIVATIONS`.
    """

    input_size: int
    units: int
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    use_bias: bool = True
    use_peepholes: bool = False
    projection_size: int | None = None
    cell_clip: float | None = None
    projection_clip: float | None = None
    forget_bias: float = 0.0
    gate_clip: float | None = None

    @property
    def output_size(self) -> int:
        """Length of `h` and of one step's output."""
        return self.units if self.projection_size is None else self.projection_size

    def __post_init__(self) -> None:
        for field in ("input_size", "units", "projection_size"):
            size = getattr(self, field)
            if size is not None and size < 1:
                raise SpecError(field, f"must be at least 1, not {size}")
        for field in ("cell_clip", "projection_clip", "gate_clip"):
            clip = getattr(self, field)
            if clip is not None and not clip > 0:
                raise SpecError(field, f"must be positive, not {clip}")
        for field in ("activation", "recurrent_activation"):
            if getattr(self, field) not in ACTIVATIONS:
                known = ", ".join(sorted(ACTIVATIONS))
                raise SpecError(
                    field, f"unknown activation {getattr(self, field)!r}; known: {known}"
                )
