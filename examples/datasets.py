"""Readers of the recordings in `examples/data`. NumPy only: no TensorFlow, no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

DATA = Path(__file__).parent / "data"
VOWELS_TRAIN = DATA / "JapaneseVowels_TRAIN.ts"
VOWELS_TEST = DATA / "JapaneseVowels_TEST.ts"
GAIT = DATA / "daphnet_S06R02E0.csv"

GAIT_CHANNELS = (
    "ankle_horiz_fwd",
    "ankle_vert",
    "ankle_horiz_lateral",
    "leg_horiz_fwd",
    "leg_vert",
    "leg_horiz_lateral",
    "trunk_horiz_fwd",
    "trunk_vert",
    "trunk_horiz_lateral",
)


def read_vowels(
    path: str | Path,
) -> tuple[list[npt.NDArray[np.float32]], npt.NDArray[np.int64]]:
    """Read utterances of JapaneseVowels.

    Args:
        path: A `.ts` file: `@` header lines, `@data`, then a line an utterance, its 12 channels
            and its label separated by `:`, the values of a channel by `,`.

    Returns:
        The utterances, each `(frames, 12)` float32, and the speakers, `(utterances,)`, 0 to 8 (the
        file counts from 1).
    """
    utterances, speakers = [], []
    _, _, data = Path(path).read_text(encoding="utf-8").partition("@data\n")
    for line in data.splitlines():
        *channels, label = line.split(":")
        values = [[float(value) for value in channel.split(",")] for channel in channels]
        utterances.append(np.array(values, np.float32).T.copy())
        speakers.append(int(label) - 1)
    return utterances, np.array(speakers, np.int64)


def read_gait(path: str | Path) -> npt.NDArray[np.float32]:
    """Read the accelerometer recording of Daphnet.

    Args:
        path: A `.csv` file with a header line; the first column is a time, the last a label.

    Returns:
        `(samples, 9)` float32 in mg, about 64 samples a second, channels as `GAIT_CHANNELS`.
    """
    return np.loadtxt(path, np.float32, delimiter=",", skiprows=1, usecols=range(1, 10), ndmin=2)
