"""Train `service/bundled/vowels.keras`: which of nine speakers talks, answered at every frame.

From the repository's root: `python -m examples.train_vowels`. The same machine and TensorFlow give
the same weights again; elsewhere the figures differ a little.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import lstm_core
from examples.datasets import VOWELS_TEST, VOWELS_TRAIN, read_vowels

BUNDLED = Path(__file__).parents[1] / "service" / "bundled"
NUM_SPEAKERS = 9
CHANNELS = 12
UNITS = 48
EPOCHS = 100
SEED = 1
# Coefficients stay within 3 of zero, so no frame is mistaken for padding.
PADDING = -100.0


def pad(utterances: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Stack utterances of different lengths.

    Args:
        utterances: Each `(frames, 12)`.

    Returns:
        `(utterances, longest, 12)` float32, `PADDING` past each end.
    """
    longest = max(len(utterance) for utterance in utterances)
    batch = np.full((len(utterances), longest, CHANNELS), PADDING, np.float32)
    for row, utterance in zip(batch, utterances, strict=True):
        row[: len(utterance)] = utterance
    return batch


def build(frames: npt.NDArray[np.float32]) -> keras.Model:
    """Build the model: `(batch, time, 12)` in, `(batch, time, 9)` probabilities out.

    Args:
        frames: `(frames, 12)`, all of the training set, for the standardisation.
    """
    standardise = keras.layers.Normalization(name="standardise")
    standardise.adapt(frames)
    return keras.Sequential(
        [
            keras.Input((None, CHANNELS), name="frames"),
            keras.layers.Masking(PADDING, name="padding"),
            standardise,
            keras.layers.GaussianNoise(0.3, name="noise"),
            lstm_core.LSTM(UNITS, return_sequences=True, dropout=0.2, name="lstm"),
            keras.layers.Dropout(0.3, name="dropout"),
            keras.layers.Dense(NUM_SPEAKERS, activation="softmax", name="speaker"),
        ],
        name="vowels",
    )


def train(
    model: keras.Model, frames: npt.NDArray[np.float32], speakers: npt.NDArray[np.int64]
) -> None:
    """Fit on every frame's answer, padding left out.

    Args:
        model: As `build` makes it.
        frames: `(utterances, time, 12)`, padded.
        speakers: `(utterances,)`.
    """
    batch_size = 30
    steps = EPOCHS * len(frames) // batch_size
    # A second model over the same layers, so that the file holds no optimizer.
    learner = keras.Model(model.inputs, model.outputs)
    learner.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(),
    )
    targets = np.repeat(speakers[:, None], frames.shape[1], axis=1)
    learner.fit(frames, targets, batch_size=batch_size, epochs=EPOCHS, verbose=0)


def report(model: keras.Model) -> None:
    """Print how many of the test utterances are told right, by the last frame and before."""
    utterances, speakers = read_vowels(VOWELS_TEST)
    told = model.predict(pad(utterances), verbose=0).argmax(-1)
    for heard in (3, 5, 10):
        is_right = [
            row[min(heard, len(u)) - 1] == speaker
            for row, u, speaker in zip(told, utterances, speakers, strict=True)
        ]
        print(f"right after {heard} frames: {np.mean(is_right):.1%}")
    # Past an utterance's end the last answer stands.
    is_right = told[:, -1] == speakers
    print(f"right by the last frame: {is_right.sum()} of {len(is_right)}, {np.mean(is_right):.1%}")


def main() -> None:
    """Train, report and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=BUNDLED / "vowels.keras")
    output = parser.parse_args().output
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    utterances, speakers = read_vowels(VOWELS_TRAIN)
    model = build(np.concatenate(utterances))
    train(model, pad(utterances), speakers)
    report(model)
    model.save(output)
    print(f"saved {output}")


if __name__ == "__main__":
    main()
