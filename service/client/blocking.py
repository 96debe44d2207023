"""The blocking face, and the network that blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from functools import wraps
from threading import Lock
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import httpx
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from service.client.documents import Place, Vector
from service.client.errors import ClientError
from service.client.exchange import Exchange, RetryPolicy
from service.client.network import (
    Address,
    Answer,
    Frame,
    Lost,
    disconnected,
    frame_bytes,
    unanswered,
)
from service.client.numbering import Numbering
from service.client.session import SessionCore
from service.client.stream import AsyncStream, block_size, blocks

P = ParamSpec("P")
T = TypeVar("T")
CoreT = TypeVar("CoreT")


class _Face(Generic[CoreT]):
    """What drives a core whose network blocks; the lock is for threads."""

    def __init__(self, core: CoreT, lock: Lock) -> None:
        self._core = core
        self._lock = lock

    def _recover(self) -> None:
        """Be told that a call was interrupted, between any two of its instructions."""


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a blocking network has suspended its caller")


def _blocking(
    method: Callable[Concatenate[CoreT, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Face[CoreT], P], T]:
    """Return a method of the core as one that blocks, with its signature and documentation."""

    @wraps(method)
    def call(self: _Face[CoreT], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._lock:
            try:
                return _run(method(self._core, *args, **kwargs))
            except ClientError:
                raise
            except BaseException:
                self._recover()
                raise

    return call


class Session(_Face[SessionCore]):
    """A session of the service, which numbers its steps so that each is applied exactly once.

    It begins at position 0: its first step begins the session, and fails with `ConflictError` where
    one of this name has come further. To go on with that one, call `resume`; to begin anew,
    `reset_states`.

    Calls are sent again until `deadline_s`, over lost connections and replicas that go. After
    `UnavailableError`, or where a call was interrupted, nobody knows whether it was applied: the
    same call again is safe, and gets the first one's answer. May be shared between threads, whose
    calls take turns.

    Every call may raise `UnavailableError`, `ConflictError` (another writer), `SessionUnknownError`
    (lost), `SessionExpiredError`, `InvalidRequestError` and other `ClientError`s.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        model: str | None = None,
        *,
        timeout_s: float = 10.0,
        deadline_s: float = 30.0,
        position: int = 0,
        epoch: int | None = None,
        headers: Mapping[str, str] | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: The service's root, such as `http://127.0.0.1:8000`.
            client_id: The session's name.
            model: The model's; None for the default one.
            timeout_s: How long one attempt may take.
            deadline_s: How long a call may take, all attempts and pauses included.
            position: Where the session is, if the caller has kept it, with its epoch.
            epoch: The life that it is in.
            headers: For every request and stream.
            http: A client to share between sessions, and not to close.

        Raises:
            ValueError: The URL is none, a time is not positive, or a position has no epoch.
        """
        self._address = Address(url, headers)
        self._model = model
        self._policy = RetryPolicy(timeout_s, deadline_s)
        self._given_http = http
        self._http = http or httpx.Client(verify=self._address.is_encrypted)
        exchange = Exchange(self._policy, _Network(self._address, self._http))
        # The turns are those of the face: its core is driven by one thread at a time.
        place = Place(position, epoch)
        self._numbering = Numbering(client_id, model, place, exchange, nullcontext())
        super().__init__(SessionCore(model, self._numbering), Lock())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def client_id(self) -> str:
        """The session's name."""
        return self._core.client_id

    @property
    def position(self) -> int:
        """From where the next step starts: the time steps acknowledged in this life."""
        return self._core.position

    @property
    def epoch(self) -> int | None:
        """The life that the session is in; None before its first answer."""
        return self._core.epoch

    step = _blocking(SessionCore.step)
    sequence = _blocking(SessionCore.sequence)
    forecast = _blocking(SessionCore.forecast)
    reset_states = _blocking(SessionCore.reset_states)
    state = _blocking(SessionCore.state)
    load_state = _blocking(SessionCore.load_state)
    resume = _blocking(SessionCore.resume)
    delete = _blocking(SessionCore.delete)
    _fork_place = _blocking(SessionCore._fork_place)  # noqa: SLF001

    def fork(self, new_client_id: str) -> Session:
        """Begin a second session from this one's state; to be closed as this one."""
        place = self._fork_place(new_client_id)
        return Session(
            self._address.url,
            new_client_id,
            self._model,
            timeout_s=self._policy.timeout_s,
            deadline_s=self._policy.deadline_s,
            position=place.position,
            epoch=place.epoch,
            headers=self._address.headers,
            http=self._given_http,
        )

    def stream(self) -> Stream:
        """Return a stream for a `with` block; it alone may step meanwhile."""
        return Stream(AsyncStream(self._numbering), self._lock)

    def stream_steps(
        self, inputs: Iterable[Vector], max_in_flight: int | None = None
    ) -> Iterator[list[float]]:
        """Stream time steps, and yield the outputs of each, in order.

        Args:
            inputs: Each `[features]`; taken ahead of the outputs by as many as are in flight. What
                has a length, as a list or an array, is sent several steps together; of anything
                else each is sent as it comes.
            max_in_flight: Most steps in flight; None means as many as the service allows. With 1
                each output comes before the next input is taken.
        """
        with self.stream() as stream:
            most = min(max_in_flight or stream.window, stream.window)
            size = block_size(inputs, most)
            for block in blocks(inputs, size):
                stream.send_many(block)
                while stream.num_pending > most - size:
                    yield stream.receive().outputs
            while stream.num_pending:
                yield stream.receive().outputs

    def close(self) -> None:
        """Close the connections; the session itself stays."""
        if self._given_http is None:
            self._http.close()


class Stream(_Face[AsyncStream]):
    """Time steps of a session over a WebSocket, several in flight, replies in order.

    It connects again and sends again what was not acknowledged. A block that ends waits for the
    replies to everything that was sent. One that ends with an error does not: the same steps from
    `position` on may be sent again, by another stream, or `resume` tells where the session is.
    """

    send = _blocking(AsyncStream.send)
    send_many = _blocking(AsyncStream.send_many)
    receive = _blocking(AsyncStream.receive)

    def _recover(self) -> None:
        self._core._distrust()  # noqa: SLF001 - none of its own callers

    def __enter__(self) -> Self:
        with self._lock:
            _run(self._core.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            _run(self._core.__aexit__(kind))

    @property
    def window(self) -> int:
        """Most steps in flight, as the service allows."""
        return self._core.window

    @property
    def num_pending(self) -> int:
        """How many steps were sent whose replies were not received."""
        return self._core.num_pending


class _Network:
    def __init__(self, address: Address, http: httpx.Client) -> None:
        self._address = address
        self._http = http
        self._closing = ExitStack()
        self._socket: ClientConnection | None = None

    async def request(
        self, method: str, path: str, body: bytes | None, timeout_s: float
    ) -> Answer | Lost:
        ends_at = time.monotonic() + timeout_s
        content = bytearray()
        try:
            with self._http.stream(
                method, **self._address.request(path, body), timeout=timeout_s
            ) as response:
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > ends_at:
                        return Lost("no whole answer in time")
        except httpx.RequestError as error:
            return unanswered(error)
        return Answer(response.status_code, response.headers, bytes(content))

    async def connect(self, path: str, timeout_s: float) -> Lost | None:
        await self.disconnect()
        try:
            opened = connect(**self._address.stream(path, timeout_s))
            self._socket = self._closing.enter_context(opened)
        except (OSError, EOFError, WebSocketException) as error:
            return disconnected(error)
        return None

    async def send(self, frames: Sequence[Frame]) -> None:
        socket = self._socket
        if socket is not None and frames:
            with suppress(ConnectionClosed), socket.send_context():
                data = frame_bytes(socket.protocol, frames)
                with suppress(OSError):
                    socket.socket.sendall(data)

    async def receive(self, timeout_s: float) -> Frame | Lost:
        if self._socket is None:
            return Lost("not connected")
        try:
            return self._socket.recv(timeout_s)
        except TimeoutError:
            return Lost("no answer in time")
        except (ConnectionClosed, OSError) as error:
            return disconnected(error)

    async def disconnect(self) -> None:
        self._socket = None
        self._closing.close()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop
