"""Laws of `lstm_core.LSTM`'s dropout: its numbers, its statistics, its seeds."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tensorflow")

import tensorflow as tf

import lstm_core
from lstm_core import equations
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights
from tests.parity.cases import AS_KERAS, FORWARD, cases
from tests.parity.record import agree_in_rows
from tests.parity.subjects import subject

BATCH, TIME, FEATURES, UNITS = 3, 2, 3, 4
RATES = [(0.5, 0.0, 1), (0.5, 0.0, 2), (0.3, 0.6, 1), (0.0, 0.4, 2), (0.9, 0.9, 1)]
"""Of the inputs, of the hidden state, and the implementation asked for."""


@functools.cache
def built(dropout: float, recurrent_dropout: float, implementation: int, **options: Any) -> Any:
    """Return a layer that returns everything."""
    layer = lstm_core.LSTM(
        UNITS,
        dropout=dropout,
        recurrent_dropout=recurrent_dropout,
        implementation=implementation,
        return_sequences=True,
        return_state=True,
        **options,
    )
    layer.build((None, None, FEATURES))
    return layer


def with_masks(layer: Any, x: Any, mask: Any, input_masks: Any, recurrent_masks: Any) -> Any:
    """Return what the equations give where each gate sees inputs and h under a mask of its own."""
    kernels, recurrent_kernels = (np.split(w, 4, axis=1) for w in layer.get_weights()[:2])
    bias = layer.get_weights()[2]
    # The gates' sums come ready: an identity kernel hands them through.
    spec = LSTMSpec(input_size=4 * UNITS, units=UNITS)
    through = LSTMWeights(
        kernel=np.eye(4 * UNITS), recurrent_kernel=np.zeros((UNITS, 4 * UNITS)), bias=None
    )
    h, c = np.zeros((2, len(x), UNITS))
    output, outputs = h, []
    for t in reversed(range(x.shape[1])) if layer.go_backwards else range(x.shape[1]):
        sums = [
            (x[:, t] * m) @ k + (h * r) @ w
            for m, k, r, w in zip(
                input_masks, kernels, recurrent_masks, recurrent_kernels, strict=True
            )
        ]
        z = np.concatenate(sums, axis=1) + bias
        h_next, c_next = equations.step(spec, through, z, h=h, c=c)
        live = mask[:, t, None]
        h, c, output = (
            np.where(live, new, old) for new, old in ((h_next, h), (c_next, c), (h_next, output))
        )
        outputs.append(output)
    return [np.stack(outputs, axis=1), h, c]


def four(masks: Any, like: Any) -> list[Any]:
    """Return a mask for each gate: those shown, or the one for all, or ones."""
    if masks is None:
        return [np.ones_like(like)] * 4
    return [np.asarray(m) for m in (masks if isinstance(masks, list) else [masks] * 4)]


@given(st.sampled_from(RATES), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_call_uses_the_masks_that_the_methods_show(rates, go_backwards, seed):
    """One mask over all time, one a gate with implementation 1: the equations give the same."""
    layer, random = built(*rates, go_backwards=go_backwards), np.random.default_rng(seed)
    x = random.normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)
    mask = random.random((BATCH, TIME)) < 0.8
    actual = layer(x, mask=mask, training=True)
    num_masks = 4 if layer.implementation == 1 else 1
    shown = [
        layer.get_dropout_mask_for_cell(x[:, 0], training=True, count=num_masks),
        layer.get_recurrent_dropout_mask_for_cell(actual[1], training=True, count=num_masks),
    ]
    assert [rate > 0 for rate in rates[:2]] == [masks is not None for masks in shown]
    assert all(num_masks == (len(m) if isinstance(m, list) else 1) for m in shown if m is not None)
    names = ("dropout", "recurrent_dropout")
    features = [name for name, masks in zip(names, shown, strict=True) if masks is not None]
    agree_in_rows(
        actual,
        with_masks(layer, x, mask, four(shown[0], x[:, 0]), four(shown[1], actual[1])),
        rows=[("LSTM", feature, "lstm_core.equations") for feature in features],
        rtol=1e-6,
        atol=2e-6,
    )


@given(st.one_of(st.floats(0.05, 0.9), st.just(1.0)), st.integers(0, 2**31 - 1), st.booleans())
def test_masks_keep_the_promised_fraction(rate, seed, is_recurrent):
    """Each of four is drawn by itself: zeros at the rate, the rest made up for."""
    layer = lstm_core.LSTM(2, dropout=rate, recurrent_dropout=rate, seed=seed)
    get = layer.get_dropout_mask_for_cell
    if is_recurrent:
        get = layer.get_recurrent_dropout_mask_for_cell
    masks = [np.asarray(m) for m in get(np.ones((40, 50), np.float32), training=True, count=4)]
    keep = 1 - rate
    for mask in masks:
        kept = mask != 0
        assert abs(kept.mean() - keep) <= allowed(keep, mask.size)
        if kept.any():
            np.testing.assert_allclose(mask[kept], 1 / keep, rtol=1e-5)
    for a, b in itertools.combinations(masks, 2):
        kept = (a != 0) & (b != 0)
        assert abs(kept.mean() - keep * keep) <= allowed(keep * keep, kept.size)


def allowed(chance: float, number: int) -> float:
    """Return six standard deviations of a mean, which chance passes once in 500 million draws.

    Four more elements are for rare ones, whose tail is longer.
    """
    return 6 * float(np.sqrt(chance * (1 - chance) / number)) + 4 / number


DROPPING = functools.partial(lstm_core.LSTM, dropout=0.5, recurrent_dropout=0.5)


@given(cases(AS_KERAS[:8]))
def test_inference_drops_nothing(case):
    """Outside training the layer is the one without dropout."""
    dropping, plain = (
        subject(make, case.config).given(case.weights).forward(*case.data)
        for make in (DROPPING, lstm_core.LSTM)
    )
    rows = [("LSTM", feature, "lstm_core.LSTM") for feature in ("dropout", "recurrent_dropout")]
    agree_in_rows(dropping, plain, rows=rows, **FORWARD[case.config.dtype])


@functools.cache
def seeded_pair(seed: int, *rates: Any) -> list[Any]:
    """Return two layers with one seed and the same weights, as graphs, called as often."""
    pair = [built(*rates, seed=seed, name=name) for name in ("one", "other")]
    pair[1].set_weights(pair[0].get_weights())
    signature = [tf.TensorSpec((None, None, FEATURES))]
    return [
        tf.function(functools.partial(layer, training=True), input_signature=signature)
        for layer in pair
    ]


@given(st.sampled_from(RATES[:3]), st.integers(0, 1), st.integers(0, 2**32 - 1))
def test_equal_seeds_draw_alike_call_after_call(rates, seed, data_seed):
    """Two layers with one seed that were called as often drop the same, and the next time anew."""
    one, other = seeded_pair(seed, *rates)
    x = np.random.default_rng(data_seed).normal(size=(BATCH, 8, FEATURES)).astype(np.float32)
    first, second = one(x), one(x)
    rows = [("LSTM", feature, "lstm_core.LSTM") for feature in ("seed", "dropout")]
    agree_in_rows([other(x), other(x)], [first, second], rows=rows, atol=0)
    assert (np.asarray(first[0]) != np.asarray(second[0])).any()
