"""Train `service/bundled/gait.keras`: the next sample of nine body-worn accelerometer channels.

From the repository's root: `python -m examples.train_gait`. The same machine and TensorFlow give
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
from examples.datasets import GAIT, GAIT_CHANNELS, read_gait

BUNDLED = Path(__file__).parents[1] / "service" / "bundled"
TRAINED_FRACTION = 0.7
WINDOW = 128
STRIDE = 16
UNITS = 64
EPOCHS = 50
SEED = 1


def build(samples: npt.NDArray[np.float32]) -> tuple[keras.Model, keras.Model]:
    """Build the network twice over the same layers: for training, and as it is served.

    Args:
        samples: `(samples, 9)` in mg, for the standardisation.

    Returns:
        `(batch, time, 9)` mg in both; standard deviations out of the first, mg out of the second.
    """
    standardise = keras.layers.Normalization(name="standardise")
    restore = keras.layers.Normalization(invert=True, name="restore")
    for layer in (standardise, restore):
        layer.adapt(samples)
    inputs = keras.Input((None, len(GAIT_CHANNELS)), name="samples")
    x = standardise(inputs)
    x = keras.layers.GaussianNoise(0.1, name="noise")(x)
    x = lstm_core.LSTM(UNITS, return_sequences=True, name="lstm")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(x)
    x = keras.layers.Dense(len(GAIT_CHANNELS), name="next_sample")(x)
    return keras.Model(inputs, x), keras.Model(inputs, restore(x), name="gait")


def train(model: keras.Model, samples: npt.NDArray[np.float32]) -> None:
    """Fit on overlapping windows, every step of which predicts the next sample.

    Args:
        model: The one of `build` that is for training.
        samples: `(samples, 9)` in mg.
    """
    windows = np.stack(
        [samples[i : i + WINDOW + 1] for i in range(0, len(samples) - WINDOW, STRIDE)]
    )
    mean, deviation = samples.mean(0), samples.std(0)
    batch_size = 32
    steps = EPOCHS * len(windows) // batch_size
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)), "mse")
    model.fit(
        windows[:, :-1],
        (windows[:, 1:] - mean) / deviation,
        batch_size=batch_size,
        epochs=EPOCHS,
        verbose=0,
    )


def report(model: keras.Model, samples: npt.NDArray[np.float32], num_trained: int) -> None:
    """Print the error on the samples behind the trained ones, beside that of persistence.

    Args:
        model: As it is served.
        samples: `(samples, 9)` in mg, all of the recording, run through in one go.
        num_trained: How many of them were for training.
    """
    predicted = model.predict(samples[None, :-1], verbose=0)[0]
    error = (predicted - samples[1:])[num_trained:]
    persistence = np.diff(samples, axis=0)[num_trained:]
    print(f"root mean square error over {len(error)} samples, mg:")
    print(f"{'channel':22}{'model':>8}{'last sample again':>20}")
    for name, ours, theirs in zip(GAIT_CHANNELS, error.T, persistence.T, strict=True):
        print(f"{name:22}{rms(ours):8.1f}{rms(theirs):20.1f}")
    print(f"{'all':22}{rms(error):8.1f}{rms(persistence):20.1f}")


def rms(error: npt.NDArray[np.float32]) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))


def main() -> None:
    """Train, report and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=BUNDLED / "gait.keras")
    output = parser.parse_args().output
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    samples = read_gait(GAIT)
    num_trained = int(TRAINED_FRACTION * len(samples))
    trainable, served = build(samples[:num_trained])
    train(trainable, samples[:num_trained])
    report(served, samples, num_trained)
    served.save(output)
    print(f"saved {output}")


if __name__ == "__main__":
    main()
