"""What an unmodified tritonclient sees over gRPC: a program, for `test_tritonclient_grpc`.

    python triton_grpc_script.py HOST:PORT < inputs.json > told.json

It asserts nothing: it tells what it got, as JSON.
"""

import asyncio
import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

MODEL, INPUT, OUTPUT = "bench", "input", "head"
PATIENCE_S = 30


def tensor(module, values):
    """Return an input of a request."""
    given = module.InferInput(INPUT, list(values.shape), "FP32")
    given.set_data_from_numpy(values)
    return given


def failure(call, *arguments, **options):
    """Return what a call fails with: its status and its message."""
    try:
        call(*arguments, **options)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def about(client):
    """Return everything that the server tells of itself."""
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "version_ready": client.is_model_ready(MODEL, "1"),
        "other_ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata(MODEL, as_json=True),
        "config": client.get_model_config(MODEL, "1", as_json=True),
        "index": client.get_model_repository_index(as_json=True),
    }


def steps(client, values, sequence_id, **options):
    """Run a sequence step by step; return the output of each."""
    outputs = []
    for t, value in enumerate(values):
        result = client.infer(
            MODEL,
            [tensor(triton, value[None])],
            outputs=[triton.InferRequestedOutput(OUTPUT)] if t % 2 else None,
            sequence_id=sequence_id,
            sequence_start=t == 0,
            sequence_end=t == len(values) - 1,
            priority=1,
            timeout=5_000_000,
            client_timeout=PATIENCE_S,
            **options,
        )
        outputs.append(result.as_numpy(OUTPUT)[0].tolist())
    return outputs


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


def retries(client, values):
    """Return what the parameters of answers say, of steps and their retries."""
    told = []
    for position, (start, end) in enumerate([(True, False), (False, False), (False, True)]):
        for _ in range(2):
            result = client.infer(
                MODEL,
                [tensor(triton, values[position : position + 1])],
                sequence_id=55,
                sequence_start=start,
                sequence_end=end,
                parameters={"position": position},
            )
            parameters = result.get_response().parameters
            told.append([parameters["position"].int64_param, parameters["replayed"].bool_param])
    return told


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
    given = [tensor(triton, values[:1])]
    start = {"sequence_id": 77, "sequence_start": True}
    return {
        "unknown sequence": failure(client.infer, MODEL, given, sequence_id=77),
        "unknown model": failure(client.infer, "other", given, **start),
        "shape": failure(client.infer, MODEL, [tensor(triton, values[:1, :3])], **start),
        "gap": failure(client.infer, MODEL, given, **start, parameters={"position": 4}),
        "regions": failure(client.get_system_shared_memory_status),
        "trace": failure(client.get_trace_settings),
        "log": failure(client.get_log_settings),
        "load": failure(client.load_model, MODEL),
        "unload": failure(client.unload_model, MODEL),
    }


async def interleaved(url, sequences):
    """Return the outputs of many sequences, unary and streamed, by the client of asyncio."""

    async def one(client, sequence_id, values):
        outputs = []
        for t, value in enumerate(values):
            result = await client.infer(
                MODEL,
                [tensor(triton_aio, value[None])],
                sequence_id=sequence_id,
                sequence_start=t == 0,
                sequence_end=t == len(values) - 1,
            )
            outputs.append(result.as_numpy(OUTPUT)[0].tolist())
        return outputs

    async def requests(values):
        for t, value in enumerate(values):
            yield {
                "model_name": MODEL,
                "inputs": [tensor(triton_aio, value[None])],
                "sequence_id": 900,
                "sequence_start": t == 0,
            }

    async with triton_aio.InferenceServerClient(url) as client:
        ids = [n if n % 2 else f"name-{n}" for n in range(1, len(sequences) + 1)]
        unary = await asyncio.gather(*map(lambda *args: one(client, *args), ids, sequences))
        streamed = []
        async for result, error in client.stream_infer(requests(sequences[0])):
            streamed.append(error or result.as_numpy(OUTPUT)[0].tolist())
    return {"unary": unary, "streamed": streamed}


def main():
    """Use everything, and tell what it gave."""
    url = sys.argv[1]
    sequences = np.array(json.load(sys.stdin), np.float32)
    values = sequences[0]
    with triton.InferenceServerClient(url) as client:
        before = client.get_inference_statistics(MODEL, as_json=True)
        batch = [tensor(triton, sequences)]
        answers: queue.Queue[Any] = queue.Queue()
        client.async_infer(MODEL, batch, lambda result, error: answers.put((result, error)))
        result, _ = answers.get(timeout=PATIENCE_S)
        told = {
            "about": about(client),
            "integer": steps(client, values, 42),
            "string": steps(client, values, "a-sequence"),
            "gzip": steps(client, values, 43, compression_algorithm="gzip"),
            "deflate": steps(client, values, 44, compression_algorithm="deflate"),
            "typed": typed(client, values),
            "several": client.infer(
                MODEL, [tensor(triton, values[None])], sequence_id=9, sequence_start=True
            )
            .as_numpy(OUTPUT)
            .tolist(),
            "batch": result.as_numpy(OUTPUT).tolist(),
            "retries": retries(client, values),
            "streamed": streamed(client, sequences),
            "errors": errors(client, values),
        }
        told["statistics"] = [before, client.get_inference_statistics(MODEL, as_json=True)]
    told["interleaved"] = asyncio.run(interleaved(url, sequences))
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
