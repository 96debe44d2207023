"""A peer: a step at a time with FastAPI and a Keras model that is called, as in Keras's own guides.

    BENCH_MODEL=bench.keras uvicorn peer_fastapi_keras:app

`model(x, training=False)` is what Keras's documentation says for small inputs, many times faster
than `model.predict`. The states of each client are tensors in a dict. The route is a coroutine, as
in `peer_fastapi_numpy`.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import keras
import tensorflow as tf
from bench_model import INPUT_SIZE, UNITS
from fastapi import FastAPI
from pydantic import BaseModel, Field


def stateful_model(path: str) -> Any:
    """Return a model from the inputs `(1, 1, INPUT_SIZE)`, h and c to the outputs, h and c."""
    saved = keras.models.load_model(path)
    x = keras.Input((1, INPUT_SIZE))
    h, c = keras.Input((UNITS,)), keras.Input((UNITS,))
    lstm = keras.layers.LSTM(UNITS, return_state=True)
    y, h_next, c_next = lstm(x, initial_state=[h, c])
    head = saved.get_layer("head")
    lstm.set_weights(saved.get_layer("lstm").get_weights())
    return keras.Model([x, h, c], [head(y), h_next, c_next])


tf.config.threading.set_intra_op_parallelism_threads(1)
model = stateful_model(os.environ["BENCH_MODEL"])
states: dict[str, tuple[Any, Any]] = {}
zeros = tf.zeros((1, UNITS))
app = FastAPI()


class Step(BaseModel):
    """One time step."""

    inputs: Annotated[list[float], Field(min_length=INPUT_SIZE, max_length=INPUT_SIZE)]


class Answer(BaseModel):
    """What the network gives."""

    outputs: list[float]


@app.post("/v1/sessions/{client_id}/step")
async def step(client_id: str, body: Step) -> Answer:
    """Take a client's next step."""
    h, c = states.get(client_id, (zeros, zeros))
    x = tf.constant(body.inputs, tf.float32, (1, 1, INPUT_SIZE))
    y, h, c = model([x, h, c], training=False)
    states[client_id] = h, c
    return Answer(outputs=y.numpy()[0].tolist())
