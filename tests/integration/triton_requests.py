"""What both programs ask by tritonclient, over HTTP and over gRPC.

Of `triton_script` and `triton_grpc_script`, whose module of tritonclient each function is given:
one process must not load both.
"""

import asyncio
import json
import sys

import numpy as np
from tritonclient.utils import InferenceServerException

MODEL, INPUT, OUTPUT = "bench", "input", "head"


def tensor(triton, values, **options):
    """Return an input of a request."""
    kind = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}[str(values.dtype)]
    given = triton.InferInput(INPUT, list(values.shape), kind)
    given.set_data_from_numpy(values, **options)
    return given


def about(client, **options):
    """Return everything that the server tells of itself."""
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "version_ready": client.is_model_ready(MODEL, "1"),
        "other_ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(**options),
        "model": client.get_model_metadata(MODEL, **options),
        "config": client.get_model_config(MODEL, "1", **options),
        "index": client.get_model_repository_index(**options),
    }


def steps(triton, client, values, sequence_id, **options):
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
            **options,
        )
        outputs.append(result.as_numpy(OUTPUT)[0].tolist())
    return outputs


async def asynchronous_steps(triton, client, values, sequence_id, **tensor_options):
    """Do as `steps` does, with the client of asyncio."""
    outputs = []
    for t, value in enumerate(values):
        result = await client.infer(
            MODEL,
            [tensor(triton, value[None], **tensor_options)],
            sequence_id=sequence_id,
            sequence_start=t == 0,
            sequence_end=t == len(values) - 1,
            priority=1,
            timeout=5_000_000,
        )
        outputs.append(result.as_numpy(OUTPUT)[0].tolist())
    return outputs


async def interleaved(triton, client, sequences, options_of=lambda _: {}):
    """Return the outputs of many sequences at once, a step of each after the other.

    Every other one has a string for its id.

    Args:
        triton: The client's module, of asyncio.
        client: It.
        sequences: `(sequences, time, features)`.
        options_of: What a sequence's tensors are made with, by its number.
    """
    return await asyncio.gather(
        *(
            asynchronous_steps(triton, client, values, n if n % 2 else f"name-{n}", **options_of(n))
            for n, values in enumerate(sequences, 1)
        )
    )


def several(triton, client, values):
    """Return the outputs of time steps of a sequence in one request."""
    given = [tensor(triton, values[None])]
    result = client.infer(MODEL, given, sequence_id=9, sequence_start=True)
    return result.as_numpy(OUTPUT).tolist()


def retries(triton, client, values):
    """Return the parameters of the answers to three steps with their retries."""
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
            response = result.get_response()
            told.append(
                response["parameters"] if isinstance(response, dict) else response.parameters
            )
    return told


def failure(call, *arguments, **options):
    """Return what a call fails with: its status and its message."""
    try:
        call(*arguments, **options)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def errors(triton, client, values):
    """Return what goes wrong over either, and how it is said."""
    given = [tensor(triton, values[:1])]
    start = {"sequence_id": 77, "sequence_start": True}
    return {
        "unknown sequence": failure(client.infer, MODEL, given, sequence_id=77),
        "unknown model": failure(client.infer, "other", given, **start),
        "shape": failure(client.infer, MODEL, [tensor(triton, values[:1, :3])], **start),
        "far start": failure(client.infer, MODEL, given, **start, parameters={"position": 4}),
        "regions": failure(client.get_system_shared_memory_status),
        "load": failure(client.load_model, MODEL),
        "unload": failure(client.unload_model, MODEL),
    }


def main(use):
    """Use the server at the address that is given, and write what it told as JSON.

    Args:
        use: Takes the address and inputs, `(sequences, time, features)` float32.
    """
    json.dump(use(sys.argv[1], np.array(json.load(sys.stdin), np.float32)), sys.stdout)
