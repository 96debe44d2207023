"""Files of Keras and TensorFlow, each written by its own release, beside what that one answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from lstm_core.formats.read import format_at
from tests.fixtures.formats.table import DIRECTORY, compare, fixtures

FILES = fixtures("keras1", "keras3", "keras_2_12", "keras_2_14", "tf_keras", "tf1")
TOLERANCE = 1e-6


@pytest.mark.parametrize("model", FILES, ids=lambda path: str(path.relative_to(DIRECTORY)))
def test_fixture(model: Path):
    """Step by step and as a sequence, a file gives what its framework gave."""
    row = compare(model)
    assert row.sequence <= TOLERANCE
    assert row.steps is None or row.steps <= TOLERANCE


def test_every_format_has_its_fixture():
    """Each way in which Keras and TensorFlow write a model is proved by a file."""
    assert {format_at(model).name for model in FILES} == {
        "a .keras file",
        "a .h5 file of Keras",
        "a .weights.h5 of Keras",
        "a SavedModel",
        "a TensorFlow 1 checkpoint",
    }
