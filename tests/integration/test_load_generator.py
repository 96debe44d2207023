"""The benchmarks' load generator against small servers of other people's making."""

import shutil
import threading
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from load import Load, Run, binary_frame, handshake, post, run
from websockets.sync.server import serve

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@contextmanager
def http_server(status=200):
    """Run the standard library's server; give its port and the bodies of each connection."""
    bodies = defaultdict(list)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            bodies[self.client_address].append(body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], bodies
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def websocket_server(answer):
    """Run the websockets library's server, which answers each frame with `answer` of it."""
    received = defaultdict(list)

    def handle(connection):
        path = connection.request.path
        connection.send('{"hello": true}')
        for message in connection:
            received[path].append(message)
            connection.send(answer(message))

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1], received
        finally:
            server.shutdown()
            thread.join()


def test_every_answer_was_asked_for_once_and_in_order():
    """Each client sends its own messages round and round, and all that are sent are answered."""
    requests = [post("/", b"%d" % index) for index in range(7)]

    with http_server() as (port, bodies):
        result = run(port, requests, 0.05, 0.2, num_clients=3)

    assert result.num_answers == sum(map(len, bodies.values()))
    assert result.num_failed == 0
    rounds = {0: [b"0", b"3", b"6"], 1: [b"1", b"4"], 2: [b"2", b"5"]}
    for sent in bodies.values():
        mine = rounds[int(sent[0])]
        assert (mine * len(sent))[: len(sent)] == sent
    assert 3 == len(bodies)


def test_other_statuses_than_200_are_failures():
    """They are answers, and each is counted as failed."""
    with http_server(status=503) as (port, _):
        result = run(port, [post("/", b"{}")], 0.0, 0.1)

    assert result.num_failed == result.num_answers > 0


def test_long_messages_go_through_whole():
    """A body that no socket takes at once arrives byte for byte, and so does its answer."""
    body = bytes(range(256)) * 20_000

    with http_server() as (port, bodies):
        result = run(port, [post("/", body)], 0.0, 0.2)

    assert {body} == {sent for each in bodies.values() for sent in each}
    assert result.num_failed == 0


def test_a_closed_connection_is_an_error():
    """Figures of a server that goes away are worth nothing."""
    with (
        websocket_server(lambda _: "not binary") as (port, _),
        pytest.raises(ConnectionError, match="gave up"),
    ):
        stream_load(port, 1, 1).result()


def stream_load(port, num_clients, depth):
    """Start some streams of 128-byte frames that want 32 bytes each."""
    load = Load(
        messages=[binary_frame(bytes([index]) * 128) for index in range(2 * num_clients)],
        num_clients=num_clients,
        depth=depth,
        handshakes=[handshake(f"/{index}") for index in range(num_clients)],
        answer_bytes=32,
    )
    return Run(load, port, 0.05, 0.2)


def test_frames_are_masked_as_a_server_wants_them():
    """The library takes the frames, in order and with their bytes, several being in flight."""
    with websocket_server(lambda message: message[:32]) as (port, received):
        result = stream_load(port, 2, 8).result()

    assert {"/0", "/1"} == received.keys()
    assert result.num_answers == sum(map(len, received.values()))
    assert result.num_failed == 0
    for client, path in enumerate(("/0", "/1")):
        mine = [bytes([client]) * 128, bytes([client + 2]) * 128]
        assert (mine * len(received[path]))[: len(received[path])] == received[path]


def test_frames_of_another_length_are_failures():
    """An answer that is not eight numbers is none."""
    with websocket_server(lambda message: message[:28]) as (port, _):
        result = stream_load(port, 1, 2).result()

    assert result.num_failed == result.num_answers > 0
