"""`fit` on JapaneseVowels with `lstm_core.LSTM` and `keras.layers.LSTM`, from the same seed.

From the repository's root: `python -m benchmarks.vowels_fit`. Both start from the same weights and
see the same batches in the same order; what differs is the recurrent layer alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import time
from typing import Any

import keras
import numpy as np

import lstm_core
from examples.datasets import VOWELS_TEST, VOWELS_TRAIN, read_vowels
from examples.train_vowels import CHANNELS, NUM_SPEAKERS, PADDING, UNITS, pad


def build(layer: type[Any], seed: int) -> keras.Model:
    """Return a model that tells the speaker by the last frame, compiled."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((None, CHANNELS)),
            keras.layers.Masking(PADDING),
            layer(UNITS),
            keras.layers.Dense(NUM_SPEAKERS, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    """Train both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    (train, train_speakers), (test, test_speakers) = map(read_vowels, (VOWELS_TRAIN, VOWELS_TEST))
    frames, test_frames = pad(train), pad(test)

    print("| seed | layer | right of 370 | loss | seconds of `fit` |")
    print("|---|---|---|---|---|")
    for seed in range(options.seeds):
        weights = None
        for name, layer in (
            ("keras.layers.LSTM", keras.layers.LSTM),
            ("lstm_core.LSTM", lstm_core.LSTM),
        ):
            model = build(layer, seed)
            weights = model.get_weights() if weights is None else weights
            model.set_weights(weights)
            model.train_on_batch(frames[:30], train_speakers[:30])  # warmed up
            model = rewind(model, weights)
            keras.utils.set_random_seed(seed)
            began = time.perf_counter()
            model.fit(frames, train_speakers, batch_size=30, epochs=options.epochs, verbose=0)
            took_s = time.perf_counter() - began
            loss, accuracy = model.evaluate(test_frames, test_speakers, verbose=0)
            right = round(accuracy * len(test_speakers))
            print(f"| {seed} | {name} | {right} ({accuracy:.1%}) | {loss:.4f} | {took_s:.1f} |")


def rewind(model: keras.Model, weights: list[np.ndarray]) -> keras.Model:
    """Return the model at its first weights, its optimizer as new."""
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        if variable.path.rpartition("/")[2] != "learning_rate":
            variable.assign(np.zeros(variable.shape, variable.dtype))
    return model


if __name__ == "__main__":
    main()
