"""A stand-in for a replica, as the balancer sees one: ready, and then answering as a test wants."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeReplica(ThreadingHTTPServer):
    """Counts what reaches it.

    Attributes:
        paths: Of the requests so far, from their heads on; health checks left out.
        status: What it answers; None: it reads the request and hangs up, as one that is killed.
    """

    daemon_threads = True

    def __init__(self, status):
        """Listen on some port, and answer from threads."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths = []
        self.status = status
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self):
        """Refuse connections; a second call does nothing."""
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """Say nothing: the balancer resets the connections of its health checks."""

    @property
    def port(self):
        """The port that it listens on."""
        return self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: the second would wait for an acknowledgement
    server: FakeReplica

    def do_GET(self):
        self._handle()

    def do_POST(self):
        self._handle()

    def do_PUT(self):
        self._handle()

    def do_DELETE(self):
        self._handle()

    def _handle(self):
        status = 200 if self.path == "/readyz" else self.server.status
        if self.path != "/readyz":
            self.server.paths.append(self.path)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if status is None:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass
