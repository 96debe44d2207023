"""The entrances for HTTP, which every test of the API runs over, and a client of either."""

import pytest

from tests.integration.small_service import make_app, serving_asgi, serving_hot


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
