"""Which uvicorn our protocol classes are used with."""

import logging

import pytest
import uvicorn

from service.served import ServedModels
from service.transport.uvicorn_versions import END, FIRST, is_extended
from service.transport.websocket import WebSocketEntrance, stream_protocol
from service.transport.websocket_protocol import StreamProtocol
from tests.unit.engines import make_engine


def test_the_installed_uvicorn_is_one_of_them():
    """Or the tests of the classes would be of nothing."""
    entrance = WebSocketEntrance(
        ServedModels({"m": make_engine()}), max_frame_bytes=1, max_frame_steps=1
    )
    protocol = stream_protocol(entrance)
    assert isinstance(protocol, type)
    assert issubclass(protocol, StreamProtocol)
    assert entrance is protocol.entrance
    assert is_extended("streams", uvicorn.__version__)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (f"{FIRST[0]}.{FIRST[1]}.0", True),
        (f"{FIRST[0]}.{FIRST[1]}.17", True),
        (f"{END[0]}.{END[1]}.0", False),
        (f"{FIRST[0]}.{FIRST[1] - 1}.9", False),
        (f"{FIRST[0]}.{FIRST[1]}.0.dev1", False),
        (f"{FIRST[0]}.{FIRST[1]}rc1", False),
        ("1.0", False),
        ("", False),
    ],
)
def test_others_are_served_by_asgi_and_the_log_says_so(version, expected, caplog):
    """Once for each kind of connection."""
    with caplog.at_level(logging.WARNING):
        assert expected is is_extended("streams", version)
    told = [record.getMessage().split(":")[0] for record in caplog.records]
    assert told == ([] if expected else ["streams"])
    assert expected or version in caplog.text
