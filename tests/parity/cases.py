"""What the laws are tested on: configurations, and weights and data for them.

Owns the hypothesis strategies. Knows no law and no layer but the equations.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from lstm_core import equations
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

Array: TypeAlias = np.ndarray[Any, Any]
Tolerance: TypeAlias = dict[str, float]

FORWARD: dict[str, Tolerance] = {
    "float32": {"rtol": 1e-6, "atol": 1e-6},
    "float64": {"rtol": 1e-12, "atol": 1e-12},
}
GRADIENTS: Tolerance = {"rtol": 1e-5, "atol": 1e-5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One layer, and the kind of call that is made of it.

    Attributes:
        features: Of the inputs.
        units: Of the layer.
        activations: Of candidate and output, and of the gates; None is linear.
        use_bias: As the layer's.
        implementation: As the layer's.
        return_sequences: As the layer's.
        go_backwards: As the layer's.
        time_major: As the layer's; data and results are batch-major here all the same.
        zero_output_for_mask: As the layer's.
        unroll: As the layer's; runs eagerly.
        dtype: As the layer's.
        is_eager: Whether the call runs outside a graph.
        has_mask: Whether a mask comes.
        has_state: Whether an initial state comes.
    """

    features: int = 3
    units: int = 4
    activations: tuple[str | None, str | None] = ("tanh", "sigmoid")
    use_bias: bool = True
    implementation: int = 2
    return_sequences: bool = True
    go_backwards: bool = False
    time_major: bool = False
    zero_output_for_mask: bool = False
    unroll: bool = False
    dtype: str = "float32"
    is_eager: bool = False
    has_mask: bool = True
    has_state: bool = True

    def options(self) -> dict[str, Any]:
        """Return the arguments of the layer beside `units`; those at their defaults left out."""
        given: dict[str, Any] = {
            "activation": self.activations[0],
            "recurrent_activation": self.activations[1],
            "return_state": True,
            "implementation": self.implementation,
        }
        for name in ("use_bias", "return_sequences", "go_backwards", "time_major",
                     "zero_output_for_mask", "unroll", "dtype"):  # fmt: skip
            if getattr(self, name) != getattr(Config(return_sequences=False), name):
                given[name] = getattr(self, name)
        return given

    @property
    def spec(self) -> LSTMSpec:
        """The configuration as the equations take it."""
        return LSTMSpec(
            input_size=self.features,
            units=self.units,
            activation=self.activations[0] or "linear",
            recurrent_activation=self.activations[1] or "linear",
            use_bias=self.use_bias,
        )

    @property
    def tested(self) -> Iterator[str]:
        """The rows of the parity table that a comparison with this one stands for."""
        if self.dtype == "float64":
            yield "float64"
            return
        yield "forward"
        if self.has_mask:
            yield "mask"
        if self.has_state:
            yield "initial_state"
        if self.implementation == 1:
            yield "implementation=1"
        if not self.use_bias:
            yield "use_bias=False"
        if self.activations != ("tanh", "sigmoid"):
            yield "activations"
        for name in ("go_backwards", "time_major", "zero_output_for_mask", "unroll"):
            if getattr(self, name):
                yield name


BOUNDED = (("tanh", "sigmoid"), ("tanh", "sigmoid"), ("softsign", "tanh"))
"""Activations that keep states, and with them gradients, of the size of one."""

SMOOTH = (*BOUNDED, (None, "sigmoid"))
"""Activations that everybody has under one name, whose gradients have no corner."""

_VALUES: dict[str, tuple[Any, ...]] = {
    "features": (1, 3),
    "units": (1, 4),
    "activations": (*SMOOTH, ("relu", "hard_sigmoid")),
    "use_bias": (True, True, False),
    "implementation": (1, 2, 2),
    "return_sequences": (False, True, True),
    "go_backwards": (False, True),
    "time_major": (False, True),
    "zero_output_for_mask": (False, False, True),
    "unroll": (False, False, False, False, False, True),
    "dtype": ("float32", "float32", "float64"),
    "is_eager": (False, False, False, False, False, True),
    "has_mask": (False, True, True),
    "has_state": (False, True, True),
}


def pool(size: int, seed: int, **only: Sequence[Any]) -> list[Config]:
    """Return configurations, always the same ones, so that layers can be kept.

    They are drawn at random, but so that any two values of two fields meet soon.

    Args:
        size: How many.
        seed: Of the draw.
        **only: The values that a field may have, where not those of `_VALUES`.
    """
    chance = random.Random(seed)
    values = _VALUES | {name: tuple(choices) for name, choices in only.items()}
    drawn: list[Config] = []
    seen: set[frozenset[Any]] = set()
    while len(drawn) < size:
        candidates = [_draw_config(chance, values) for _ in range(30)]
        best = max(candidates, key=lambda config: len(_pairs(config) - seen))
        seen |= _pairs(best)
        drawn.append(best)
    return drawn


def _draw_config(chance: random.Random, values: dict[str, tuple[Any, ...]]) -> Config:
    config = {field.name: chance.choice(values[field.name]) for field in fields(Config)}
    config["is_eager"] |= config["unroll"]
    if config["activations"] not in BOUNDED:  # states grow, and float32's rounding with them
        config["dtype"] = "float64"
    return Config(**config)


def _pairs(config: Config) -> set[frozenset[Any]]:
    """Return each two fields with their values."""
    return {frozenset(pair) for pair in itertools.combinations(asdict(config).items(), 2)}


DEFAULTS = [Config(), Config(has_mask=False, has_state=False, return_sequences=False)]
"""What most people run: on a CPU, the fused operations."""

EVERY = [*DEFAULTS, *pool(20, 1)]
"""What most laws are tested on: few enough to be built in seconds."""

AS_KERAS = [*DEFAULTS, *pool(10, 2, time_major=[False], unroll=[False])]
"""What `keras.layers.LSTM` has as well, and does right."""

AS_TF_KERAS = [*DEFAULTS, *pool(6, 3, unroll=[False], activations=SMOOTH, is_eager=[False])]
"""The same for `tf_keras.layers.LSTM`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A configuration with weights and data of its dtype.

    Attributes:
        config: The configuration.
        weights: Kernel, recurrent kernel and, if there is one, bias.
        x: `(batch, time, features)`.
        mask: `(batch, time)` bool, or None.
        h: `(batch, units)`, or None.
        c: `(batch, units)`, or None.
    """

    config: Config
    weights: list[Array]
    x: Array
    mask: Array | None
    h: Array | None
    c: Array | None

    @property
    def live(self) -> Array:
        """The mask, true everywhere where there is none."""
        return np.ones(self.x.shape[:2], bool) if self.mask is None else self.mask

    @property
    def data(self) -> tuple[Array | None, ...]:
        """What a call takes: inputs, mask, h and c."""
        return self.x, self.mask, self.h, self.c

    @property
    def core_weights(self) -> LSTMWeights:
        """The weights as the equations take them."""
        bias = self.weights[2] if self.config.use_bias else None
        return LSTMWeights(kernel=self.weights[0], recurrent_kernel=self.weights[1], bias=bias)

    def expected(self) -> list[Array]:
        """Return what the equations give: output or outputs, h and c."""
        result = equations.sequence(
            self.config.spec,
            self.core_weights,
            self.x,
            h=self.h,
            c=self.c,
            mask=self.mask,
            go_backwards=self.config.go_backwards,
            zero_output_for_mask=self.config.zero_output_for_mask,
        )
        output = result.outputs if self.config.return_sequences else result.last_output
        return [output, result.h, result.c]


def draw_mask(kind: str, chance: np.random.Generator, batch: int, time: int) -> Array:
    """Return a mask `(batch, time)` of one of `MASK_KINDS`."""
    steps, lengths = np.arange(time), chance.integers(0, time + 1, (batch, 1))
    if kind == "right":
        return steps < lengths
    if kind == "left":
        return steps >= lengths
    if kind == "holes":
        return chance.random((batch, time)) < 0.6
    return np.full((batch, time), kind == "all_live")


MASK_KINDS = ("right", "left", "holes", "holes", "all_live", "none_live")


@st.composite
def cases(
    draw: Callable[..., Any], configs: list[Config], *, smallest: int = 0, largest: int = 4
) -> Case:
    """Draw a case of any sizes from `smallest` on, empty ones among them by default."""
    config = draw(st.sampled_from(configs))
    batch, time = (draw(st.integers(smallest, largest)) for _ in range(2))
    kind = draw(st.sampled_from(MASK_KINDS)) if config.has_mask else None
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features, units = config.features, config.units
    shapes = [(features, 4 * units), (units, 4 * units), (4 * units,)]

    def normal(shape: tuple[int, ...], scale: float = 1.0) -> Array:
        return chance.normal(0, scale, shape).astype(config.dtype)

    return Case(
        config=config,
        weights=[normal(shape, 0.5) for shape in shapes[: 3 if config.use_bias else 2]],
        x=normal((batch, time, features)),
        mask=None if kind is None else draw_mask(kind, chance, batch, time),
        h=normal((batch, units)) if config.has_state else None,
        c=normal((batch, units)) if config.has_state else None,
    )
