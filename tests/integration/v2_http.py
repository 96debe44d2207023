"""Requests of the Open Inference Protocol for the small models, and what they shall give."""

import json
from typing import Any

import numpy as np

from lstm_core import equations
from tests.integration.small_service import X, streaming

INFER = "/v2/models/net/infer"
LENGTH = "inference-header-content-length"
INPUTS = np.array(X, np.float32)
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-6}
"""How near outputs are to the equations."""


def expected(inputs=INPUTS):
    """Return what the equations give for the first model from zeros, `(time, 2)` float64."""
    lstm, head = streaming().layers
    h, c = np.zeros((1, 5)), np.zeros((1, 5))
    outputs = []
    for x in inputs:
        h, c = equations.step(lstm.spec, lstm.weights, x[None], h=h, c=c)
        outputs.append(h[0] @ head.kernel)
    return np.array(outputs)


def document(values=INPUTS[:1], *, name="inputs", datatype="FP32", **members):
    """Return a request with its tensor written out."""
    values = np.asarray(values)
    tensor = {
        "name": name,
        "shape": list(values.shape),
        "datatype": datatype,
        "data": values.ravel().tolist(),
    }
    return {"inputs": [tensor], **members}


def sequence(number=1, *, start=False, end=False, **parameters):
    """Return the parameters of a request of a sequence."""
    flags = {"sequence_start": start, "sequence_end": end}
    return {"sequence_id": number, **flags, **parameters}


def binary(values=INPUTS[:1], *, name="inputs", datatype="FP32", **members):
    """Return the body and the headers of a request with its tensor behind the JSON."""
    blob = np.asarray(values).tobytes()
    tensor = {
        "name": name,
        "shape": list(np.shape(values)),
        "datatype": datatype,
        "parameters": {"binary_data_size": len(blob)},
    }
    text = json.dumps({"inputs": [tensor], **members}).encode()
    return text + blob, {LENGTH: str(len(text))}


def outputs_of(answer):
    """Return the one output of an answer, whichever form it has."""
    length = answer.headers.get(LENGTH)
    if length is None:
        [output] = answer.json()["outputs"]
        values = np.array(output["data"], np.float32)
    else:
        text, blob = answer.content[: int(length)], answer.content[int(length) :]
        [output] = json.loads(text)["outputs"]
        assert len(blob) == output["parameters"]["binary_data_size"]
        values = np.frombuffer(blob, "<f4")
    assert "FP32" == output["datatype"]
    return values.reshape(output["shape"])
