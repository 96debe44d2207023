"""A model's signature and the message of a refusal, for the tests of parsing and rendering."""

import numpy as np
import pytest

from service.domain import SessionKey
from service.errors import InvalidRequestError
from service.signature import Signature, StateVector

KEY = SessionKey("default", "m", "alice")
LARGEST = float(np.finfo(np.float32).max)


def signature(vocabulary=None, input_size=3):
    """Return the signature of a model with one LSTM of two units."""
    return Signature(
        model="m",
        fingerprint="f" * 64,
        input_size=1 if vocabulary else input_size,
        output_size=2,
        vocabulary=vocabulary,
        returns_sequences=True,
        state_layout=(StateVector("lstm", "h", 2), StateVector("lstm", "c", 2)),
        streaming_obstacles=(),
        layers=(),
    )


def problem_of(parse, *arguments, **options):
    """Return the message that a bad document gets."""
    with pytest.raises(InvalidRequestError) as caught:
        parse(*arguments, **options)
    return str(caught.value)
