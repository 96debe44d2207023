"""What the client library shows: two equal faces, and addresses."""

import inspect

import pytest

from service.client import AsyncSession, AsyncStream, Session, Stream
from service.client.network import Address


def surface(face):
    """Return the public names of a class, with the names of their parameters."""
    return {
        name: list(inspect.signature(member).parameters) if callable(member) else None
        for name, member in inspect.getmembers(face)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("blocking", "awaiting"), [(Session, AsyncSession), (Stream, AsyncStream)])
def test_both_faces_show_the_same(blocking, awaiting):
    """Whoever knows one knows the other."""
    assert surface(blocking) == surface(awaiting)


def test_both_faces_are_made_with_the_same():
    """Whoever moves from one to the other changes the name."""
    blocking, awaiting = (inspect.signature(face).parameters for face in (Session, AsyncSession))
    assert list(blocking) == list(awaiting)


@pytest.mark.parametrize(
    ("url", "stream"),
    [
        ("http://h:1", "ws://h:1/v1/x"),
        ("http://h:1/", "ws://h:1/v1/x"),
        ("https://h/lstm", "wss://h/lstm/v1/x"),
    ],
)
def test_a_stream_has_the_address_of_the_service(url, stream):
    """With its path and its encryption."""
    assert stream == Address(url, None).stream("/v1/x", 1.0)["uri"]


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ws://h", "", "http://", "http:///x", "http://h:port", "http://h?x=1"]
)
def test_a_url_that_is_none_is_told_at_once(url):
    """And not after a minute of attempts."""
    with pytest.raises(ValueError, match="URL"):
        Session(url, "alice")
