"""What an unmodified tritonclient sees of a server: a program of its own, for `test_tritonclient`.

    python -m tests.integration.triton_script HOST:PORT < inputs.json > told.json

A process of its own, because the classes that it generates from its protocol files must not meet
others of the same name. It asserts nothing: it tells what it got, as JSON.
"""

import asyncio
import uuid

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from tests.integration import triton_requests
from tests.integration.triton_requests import INPUT, MODEL, OUTPUT, failure, tensor

STRING_ID = str(uuid.UUID(int=7))


def forms(client, values):
    """Return the outputs of one step, sent and answered in every form."""
    told = {}
    for number, binary_in in enumerate((True, False)):
        for binary_out in (True, False, None):
            for compression in (None, "gzip", "deflate"):
                outputs = [triton.InferRequestedOutput(OUTPUT, binary_data=bool(binary_out))]
                result = client.infer(
                    MODEL,
                    [tensor(triton, values[:1], binary_data=binary_in)],
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


def errors(client, values):
    """Return what goes wrong, and how it is said."""
    start = {"sequence_id": 77, "sequence_start": True}
    rounded = [tensor(triton, np.full((1, 32), 0.1))]
    shared = triton.InferInput(INPUT, [1, 32], "FP32")
    shared.set_shared_memory("region", 128)
    given = [tensor(triton, values[:1])]
    return triton_requests.errors(triton, client, values) | {
        "unknown string": failure(client.infer, MODEL, given, sequence_id="seventy-seven"),
        "rounded": failure(client.infer, MODEL, rounded, **start),
        "shared memory": failure(client.infer, MODEL, [shared], **start),
    }


def batches(client, sequences):
    """Return the outputs of sequences without a state, by each way to ask for them."""
    batch = [tensor(triton, sequences)]
    results = {
        "batch": client.infer(MODEL, batch),
        "queried": client.infer(MODEL, batch, query_params={"a": "b"}),
        "async": client.async_infer(MODEL, batch).get_result(),
    }
    return {how: result.as_numpy(OUTPUT).tolist() for how, result in results.items()}


async def interleaved(url, sequences):
    """Return what the client of asyncio sees: many sequences at once, half of them in JSON."""
    async with triton_aio.InferenceServerClient(url) as client:
        return {
            "model": await client.get_model_metadata(MODEL),
            "outputs": await triton_requests.interleaved(
                triton_aio, client, sequences, lambda n: {"binary_data": n % 4 < 2}
            ),
            "statistics": await client.get_inference_statistics(MODEL),
        }


def use(url, sequences):
    """Use everything; return what it gave."""
    values = sequences[0]
    with triton.InferenceServerClient(url, concurrency=4) as client:
        before = client.get_inference_statistics(MODEL)
        told = {
            "about": triton_requests.about(client),
            "integer": triton_requests.steps(triton, client, values, 42),
            "string": triton_requests.steps(triton, client, values, STRING_ID),
            "retries": triton_requests.retries(triton, client, values),
            "forms": forms(client, values),
            "several": triton_requests.several(triton, client, values),
            **batches(client, sequences),
            "errors": errors(client, values),
        }
        told["statistics"] = [before, client.get_inference_statistics(MODEL)]
    told["interleaved"] = asyncio.run(interleaved(url, sequences))
    return told


if __name__ == "__main__":
    triton_requests.main(use)
