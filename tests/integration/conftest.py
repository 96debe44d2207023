"""The entrances for HTTP, which every test of the API runs over."""

import pytest

from tests.integration.small_service import serving_asgi, serving_hot


@pytest.fixture(scope="session", params=[serving_asgi, serving_hot], ids=["asgi", "hot"])
def serving(request):
    """Run an application: in this process, or inside uvicorn's protocol behind a socket."""
    return request.param
