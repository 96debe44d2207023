"""What an unmodified tritonclient sees of a server: a program of its own, for `test_tritonclient`.

    python triton_script.py HOST:PORT < inputs.json > told.json

A process of its own, because the classes that it generates from its protocol files must not meet
others of the same name. It asserts nothing: it tells what it got, as JSON.
"""

import asyncio
import json
import sys
import uuid

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

MODEL, INPUT, OUTPUT = "bench", "input", "head"
STRING_ID = str(uuid.UUID(int=7))


def tensor(module, values, *, binary=True):
    """Return an input of a request."""
    kind = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}[str(values.dtype)]
    given = module.InferInput(INPUT, list(values.shape), kind)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def steps(client, values, sequence_id, **options):
    """Run a sequence step by step; return the output of each."""
    outputs = []
    for t, value in enumerate(values):
        result = client.infer(
            MODEL,
            [tensor(triton, value[None])],
            sequence_id=sequence_id,
            sequence_start=t == 0,
            sequence_end=t == len(values) - 1,
            **options,
        )
        outputs.append(result.as_numpy(OUTPUT)[0].tolist())
    return outputs


def failure(call, *arguments, **options):
    """Return what a call fails with: its status and its message."""
    try:
        call(*arguments, **options)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def metadata(client):
    """Return everything that the server tells of itself."""
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "version_ready": client.is_model_ready(MODEL, "1"),
        "other_ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(MODEL),
        "config": client.get_model_config(MODEL, "1"),
        "index": client.get_model_repository_index(),
    }


def forms(client, values):
    """Return the outputs of one step, sent and answered in every form."""
    told = {}
    for number, binary_in in enumerate((True, False)):
        for binary_out in (True, False, None):
            for compression in (None, "gzip", "deflate"):
                outputs = [triton.InferRequestedOutput(OUTPUT, binary_data=bool(binary_out))]
                result = client.infer(
                    MODEL,
                    [tensor(triton, values[:1], binary=binary_in)],
                    outputs=None if binary_out is None else outputs,
                    request_id=f"r{number}",
                    sequence_id=1000,
                    sequence_start=True,
                    sequence_end=True,
                    request_compression_algorithm=compression,
                    response_compression_algorithm=compression,
                )
                response = result.get_response()
                told[f"{binary_in} {binary_out} {compression}"] = {
                    "outputs": result.as_numpy(OUTPUT).tolist(),
                    "members": sorted(response),
                    "output_members": sorted(response["outputs"][0]),
                    "id": response["id"],
                }
    return told


def exactly_once(client, values):
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
            parameters = result.get_response()["parameters"]
            told.append([parameters["position"], parameters["replayed"]])
    return told


def errors(client, values):
    """Return what goes wrong, and how it is said."""
    given = [tensor(triton, values[:1])]
    wide = [tensor(triton, np.zeros((1, 3), np.float32))]
    options = {"sequence_id": 77, "sequence_start": True}
    shared = triton.InferInput(INPUT, [1, 32], "FP32")
    shared.set_shared_memory("region", 128)
    return {
        "unknown sequence": failure(client.infer, MODEL, given, sequence_id=77),
        "unknown string": failure(client.infer, MODEL, given, sequence_id="seventy-seven"),
        "unknown model": failure(client.infer, "other", given, **options),
        "shape": failure(client.infer, MODEL, wide, **options),
        "rounded": failure(client.infer, MODEL, [tensor(triton, np.full((1, 32), 0.1))], **options),
        "far start": failure(client.infer, MODEL, given, **options, parameters={"position": 4}),
        "shared memory": failure(client.infer, MODEL, [shared], **options),
        "regions": failure(client.get_system_shared_memory_status),
        "load": failure(client.load_model, MODEL),
        "unload": failure(client.unload_model, MODEL),
    }


async def interleaved(url, sequences):
    """Return the outputs of many sequences at once, a step of each after the other."""

    async def one(client, sequence_id, values):
        outputs = []
        for t, value in enumerate(values):
            result = await client.infer(
                MODEL,
                [tensor(triton_aio, value[None], binary=t % 2 == 0)],
                sequence_id=sequence_id,
                sequence_start=t == 0,
                sequence_end=t == len(values) - 1,
                priority=1,
                timeout=5_000_000,
            )
            outputs.append(result.as_numpy(OUTPUT)[0].tolist())
        return outputs

    async with triton_aio.InferenceServerClient(url) as client:
        metadata = await client.get_model_metadata(MODEL)
        ids = [n if n % 2 else f"name-{n}" for n in range(1, len(sequences) + 1)]
        told = await asyncio.gather(*map(lambda *args: one(client, *args), ids, sequences))
        statistics = await client.get_inference_statistics(MODEL)
    return {"model": metadata, "outputs": told, "statistics": statistics}


def main():
    """Use everything, and tell what it gave."""
    url = sys.argv[1]
    sequences = np.array(json.load(sys.stdin), np.float32)
    values = sequences[0]
    with triton.InferenceServerClient(url, concurrency=4) as client:
        before = client.get_inference_statistics(MODEL)
        told = {
            "metadata": metadata(client),
            "integer": steps(client, values, 42),
            "string": steps(client, values, STRING_ID),
            "retries": exactly_once(client, values),
            "forms": forms(client, values),
            "several": client.infer(
                MODEL, [tensor(triton, values[None])], sequence_id=9, sequence_start=True
            )
            .as_numpy(OUTPUT)
            .tolist(),
            "batch": client.infer(MODEL, [tensor(triton, sequences)]).as_numpy(OUTPUT).tolist(),
            "queried": client.infer(MODEL, [tensor(triton, sequences)], query_params={"a": "b"})
            .as_numpy(OUTPUT)
            .tolist(),
            "async": client.async_infer(MODEL, [tensor(triton, sequences)])
            .get_result()
            .as_numpy(OUTPUT)
            .tolist(),
            "errors": errors(client, values),
        }
        told["statistics"] = [before, client.get_inference_statistics(MODEL)]
    told["interleaved"] = asyncio.run(interleaved(url, sequences))
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
