"""What many tests begin with: the entrances for HTTP, a client of either, and a model."""

import numpy as np
import pytest
from bench_model import expected_outputs, write_bench_model

from tests.integration.small_service import make_app, serving_asgi, serving_hot
from tests.integration.triton_visit import SEQUENCES


@pytest.fixture(scope="session", params=[serving_asgi, serving_hot], ids=["asgi", "hot"])
def serving(request):
    """Run an application: in this process, or inside uvicorn's protocol behind a socket."""
    return request.param


@pytest.fixture
async def client(serving):
    """A client of a running service, which asks for nothing to be compressed."""
    async with serving(make_app()) as client:
        client.headers["accept-encoding"] = "identity"
        yield client


@pytest.fixture(scope="session")
def bench_model(tmp_path_factory):
    """The file of a model whose input is called `input` and whose output `head`."""
    path = tmp_path_factory.mktemp("model") / "bench.keras"
    write_bench_model(path)
    return path


@pytest.fixture(scope="session")
def bench_outputs(bench_model):
    """What the equations give for what tritonclient asks of it, `(sequences, time, 8)`."""
    return np.stack([expected_outputs(bench_model, each) for each in SEQUENCES])
