"""The bundled speaker model over HTTP, against Keras on the same file and the real utterances."""

import os
from pathlib import Path

import httpx
import numpy as np
import pytest

from examples.datasets import read_vowels
from service.model_files import bundled_models
from tests.integration.live_server import live_server

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

DATA = Path(__file__).parents[2] / "examples" / "data" / "JapaneseVowels_TEST.ts"


@pytest.fixture(scope="module")
def server():
    """A server of the bundled models."""
    with live_server() as server:
        yield server


def test_every_utterance_is_the_same_step_by_step_as_a_sequence_and_in_keras(server):
    """370 utterances: both ways over HTTP agree with Keras within 1e-6; 95 % are told right."""
    from lstm_core import LSTM  # registers the layer that the file names

    utterances, speakers = read_vowels(DATA)
    model = keras.saving.load_model(bundled_models()["vowels"])
    assert any(isinstance(layer, LSTM) for layer in model.layers)
    assert 370 == len(utterances)
    guesses = []
    with httpx.Client(base_url=f"{server.url}/v1/models/vowels/sessions") as http:
        for number, utterance in enumerate(utterances):
            steps = [
                http.post(f"/step-{number}/step", json={"inputs": frame, "position": t})
                for t, frame in enumerate(utterance.tolist())
            ]
            outputs = np.array([step.json()["outputs"] for step in steps])
            whole = http.post(f"/whole-{number}/sequence", json={"inputs": utterance.tolist()})
            np.testing.assert_allclose(whole.json()["outputs"], outputs, rtol=0, atol=1e-6)
            guesses.append(outputs[-1])
    for length in {len(utterance) for utterance in utterances}:
        chosen = [n for n, utterance in enumerate(utterances) if len(utterance) == length]
        batch = np.stack([utterances[n] for n in chosen])
        predicted = model.predict(batch, verbose=0).reshape(len(batch), -1, 9)[:, -1]
        np.testing.assert_allclose([guesses[n] for n in chosen], predicted, rtol=0, atol=1e-6)

    accuracy = np.mean(np.argmax(guesses, axis=1) == speakers)
    print(f"right by the last frame: {accuracy:.1%} of {len(utterances)}")
    assert accuracy >= 0.95
