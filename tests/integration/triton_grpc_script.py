"""What an unmodified tritonclient sees over gRPC: a program, for `test_tritonclient_grpc`.

    python -m tests.integration.triton_grpc_script HOST:PORT < inputs.json > told.json

It asserts nothing: it tells what it got, as JSON.
"""

import asyncio
import queue
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2

from tests.integration import triton_requests
from tests.integration.triton_requests import INPUT, MODEL, OUTPUT, failure, tensor

PATIENCE_S = 30


def steps(client, values, sequence_id, **options):
    """Run a sequence step by step; return the output of each."""
    return triton_requests.steps(
        triton, client, values, sequence_id, client_timeout=PATIENCE_S, **options
    )


def typed(client, values):
    """Return a step's output where its values are written out by type, with the client's stub."""
    request = service_pb2.ModelInferRequest(model_name=MODEL, id="typed")
    request.parameters["sequence_id"].int64_param = 70
    request.parameters["sequence_start"].bool_param = True
    given = request.inputs.add(name=INPUT, datatype="FP32", shape=[1, values.shape[1]])
    given.contents.fp32_contents.extend(values[0].tolist())
    response = client._client_stub.ModelInfer(request)  # noqa: SLF001 - there is no public way
    # The client's own class for results reads raw answers only.
    return {"id": response.id, "outputs": list(response.outputs[0].contents.fp32_contents)}


def batch(client, sequences):
    """Return the outputs of sequences without a state, by the way with a callback."""
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer(
        MODEL, [tensor(triton, sequences)], lambda result, error: answers.put((result, error))
    )
    result, _ = answers.get(timeout=PATIENCE_S)
    return result.as_numpy(OUTPUT).tolist()


def retries(client, values):
    """Return what the parameters of answers say, of steps and their retries."""
    return [
        {"position": told["position"].int64_param, "replayed": told["replayed"].bool_param}
        for told in triton_requests.retries(triton, client, values)
    ]


def streamed(client, sequences):
    """Return the ids and outputs of interleaved sequences over one stream, an error in between."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    num_sent = 0
    for t in range(sequences.shape[1]):
        for n, values in enumerate(sequences):
            client.async_stream_infer(
                MODEL,
                [tensor(triton, values[t : t + 1])],
                request_id=f"{n}-{t}",
                sequence_id=n + 1 if n % 2 else f"stream-{n}",
                sequence_start=t == 0,
                sequence_end=t == sequences.shape[1] - 1,
            )
            num_sent += 1
        wrong = [tensor(triton, np.zeros((1, 3), np.float32))]
        client.async_stream_infer(MODEL, wrong, request_id=f"wrong-{t}", sequence_id=1)
        num_sent += 1
    told = []
    for _ in range(num_sent):
        result, error = answers.get(timeout=PATIENCE_S)
        if error is None:
            told.append([result.get_response().id, result.as_numpy(OUTPUT)[0].tolist()])
        else:
            told.append([None, error.message()])
    client.stop_stream()
    return told


def errors(client, values):
    """Return what goes wrong, and how it is said."""
    return triton_requests.errors(triton, client, values) | {
        "trace": failure(client.get_trace_settings),
        "log": failure(client.get_log_settings),
    }


async def interleaved(url, sequences):
    """Return what the client of asyncio sees: many sequences at once, and one over a stream."""

    async def requests(values):
        for t, value in enumerate(values):
            yield {
                "model_name": MODEL,
                "inputs": [tensor(triton_aio, value[None])],
                "sequence_id": 900,
                "sequence_start": t == 0,
            }

    async with triton_aio.InferenceServerClient(url) as client:
        unary = await triton_requests.interleaved(triton_aio, client, sequences)
        streamed = []
        async for result, error in client.stream_infer(requests(sequences[0])):
            streamed.append(error or result.as_numpy(OUTPUT)[0].tolist())
    return {"unary": unary, "streamed": streamed}


def use(url, sequences):
    """Use everything; return what it gave."""
    values = sequences[0]
    with triton.InferenceServerClient(url) as client:
        before = client.get_inference_statistics(MODEL, as_json=True)
        told = {
            "about": triton_requests.about(client, as_json=True),
            "integer": steps(client, values, 42),
            "string": steps(client, values, "a-sequence"),
            "gzip": steps(client, values, 43, compression_algorithm="gzip"),
            "deflate": steps(client, values, 44, compression_algorithm="deflate"),
            "typed": typed(client, values),
            "several": triton_requests.several(triton, client, values),
            "batch": batch(client, sequences),
            "retries": retries(client, values),
            "streamed": streamed(client, sequences),
            "errors": errors(client, values),
        }
        told["statistics"] = [before, client.get_inference_statistics(MODEL, as_json=True)]
    told["interleaved"] = asyncio.run(interleaved(url, sequences))
    return told


if __name__ == "__main__":
    triton_requests.main(use)
