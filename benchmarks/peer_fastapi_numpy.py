"""A peer: a step at a time with FastAPI and NumPy, as one would write it plainly.

    BENCH_MODEL=bench.keras uvicorn peer_fastapi_numpy:app

No batching, the states in a dict. The route is a coroutine, as nothing in it waits: FastAPI would
hand a plain function to a thread for each request, which costs more than the step. What it keeps
for a client are new arrays after each step, so that a failure halfway leaves the old ones.
"""

from __future__ import annotations

import os
from typing import Annotated

import numpy as np
import numpy.typing as npt
from bench_model import INPUT_SIZE, UNITS, read_arrays
from fastapi import FastAPI
from pydantic import BaseModel, Field

Float32 = npt.NDArray[np.float32]

# Gates of kernels and biases side by side, in Keras's order: input, forget, candidate, output.
arrays = read_arrays(os.environ["BENCH_MODEL"])
weights = np.concatenate([arrays.kernel, arrays.recurrent_kernel])
states: dict[str, tuple[Float32, Float32]] = {}
zeros = np.zeros(UNITS, np.float32)
app = FastAPI()


class Step(BaseModel):
    """One time step."""

    inputs: Annotated[list[float], Field(min_length=INPUT_SIZE, max_length=INPUT_SIZE)]


class Answer(BaseModel):
    """What the network gives."""

    outputs: list[float]


def sigmoid(z: Float32) -> Float32:
    """Return the logistic function of each element."""
    return np.reciprocal(1 + np.exp(-z))


@app.post("/v1/sessions/{client_id}/step")
async def step(client_id: str, body: Step) -> Answer:
    """Take a client's next step."""
    h, c = states.get(client_id, (zeros, zeros))
    x = np.array(body.inputs, np.float32)
    z = np.concatenate([x, h]) @ weights + arrays.bias
    i, f, candidate, o = z[:UNITS], z[UNITS : 2 * UNITS], z[2 * UNITS : 3 * UNITS], z[3 * UNITS :]
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
    h = sigmoid(o) * np.tanh(c)
    states[client_id] = h, c
    return Answer(outputs=(h @ arrays.head_kernel + arrays.head_bias).tolist())
