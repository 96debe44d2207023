"""The blocking face: it carries out what the core asks for, one call after another."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import SystemRandom
from threading import Lock
from typing import Any, Self

import httpx

from service.client.blocking_stream import Stream, drive
from service.client.connection import Address, answered, unanswered
from service.client.core import SessionCore
from service.client.documents import Mask, Matrix, SequenceReply, StepReply, Vector
from service.client.effects import Call, Effect, Operation, Outcome, Pause, T
from service.client.retry import RetryPolicy


class Session:
    """A session of the service, which numbers its steps so that each is applied exactly once.

    It begins at position 0: its first step begins the session, and fails with `ConflictError` where
    one of this name has come further. To go on with that one, call `resume`; to begin anew,
    `reset_states`. Calls are sent again until `deadline_s`, over lost connections and replicas that
    go; after `UnavailableError` the same call again is safe. May be shared between threads, whose
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
        deadline_s: float = 60.0,
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
            headers: For every request.
            http: A client to use, and not to close; by default the session has its own.

        Raises:
            ValueError: The URL is none, a time is not positive, or a position has no epoch.
        """
        policy = RetryPolicy(timeout_s, deadline_s, SystemRandom().uniform)
        self._address = Address(url, headers or {})
        self._core = SessionCore(client_id, model, policy, position=position, epoch=epoch)
        self._given_http = http
        self._http = http or httpx.Client()
        self._lock = Lock()

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

    def step(self, inputs: Vector, *, return_state: bool = False) -> StepReply:
        """Take one time step.

        Args:
            inputs: `[features]`, a list or an array.
            return_state: Whether the reply has the state after the step.
        """
        return self._drive(self._core.step(inputs, return_state=return_state))

    def sequence(
        self,
        inputs: Matrix,
        mask: Mask | None = None,
        *,
        return_sequences: bool = True,
        return_state: bool = False,
    ) -> SequenceReply:
        """Take many time steps at once.

        Args:
            inputs: `[time][features]`, lists or an array.
            mask: `[time]`, false where a step keeps the state and repeats the output.
            return_sequences: Whether the reply has every step's output, or the last one's only.
            return_state: Whether the reply has the state after the last step.
        """
        return self._drive(
            self._core.sequence(
                inputs, mask, return_sequences=return_sequences, return_state=return_state
            )
        )

    def reset_states(
        self, states: Sequence[Vector] | None = None, ttl_s: float | None = None
    ) -> None:
        """Begin a new life at position 0, whosever session this was if no step was taken yet.

        Args:
            states: h and c of every layer, in Keras's order; None means zeros.
            ttl_s: How long after its last request the session ends; None means the service's own.
        """
        self._drive(self._core.reset_states(states, ttl_s))

    def state(self) -> dict[str, Any]:
        """Export the session's state: a JSON document, to keep and to give to `load_state`."""
        return self._drive(self._core.state())

    def load_state(self, document: Mapping[str, Any]) -> None:
        """Put an exported state back, position included: into this session it is a rollback."""
        self._drive(self._core.load_state(document))

    def resume(self, *, missing_ok: bool = False) -> int:
        """Go on from where the session is, whoever brought it there.

        Args:
            missing_ok: Whether to begin the session where there is none.

        Returns:
            The position: how many time steps it has consumed.
        """
        return self._drive(self._core.resume(missing_ok=missing_ok))

    def fork(self, new_client_id: str) -> Session:
        """Begin a second session from this one's state; to be closed as this one."""
        place = self._drive(self._core.fork(new_client_id))
        policy = self._core.policy
        return Session(
            self._address.url,
            new_client_id,
            self._core.model,
            timeout_s=policy.timeout_s,
            deadline_s=policy.deadline_s,
            position=place.position,
            epoch=place.epoch,
            headers=self._address.headers,
            http=self._given_http,
        )

    def delete(self) -> None:
        """End the session; the next step begins another."""
        self._drive(self._core.delete())

    def stream(self, **options: Any) -> Stream:  # noqa: ANN401 - they are of another library
        """Return a stream of the session, for a `with` block; it alone may step meanwhile.

        Args:
            **options: For `websockets.sync.client.connect`, such as `ssl`.
        """
        return Stream(self._core, self._address, options, self._lock)

    def stream_steps(
        self, inputs: Iterable[Vector], max_in_flight: int | None = None
    ) -> Iterator[list[float]]:
        """Stream time steps, and yield the outputs of each, in order.

        Args:
            inputs: Each `[features]`; taken ahead of the outputs by as many as are in flight.
            max_in_flight: Most steps in flight; None means as many as the service allows. With 1
                each output comes before the next input is taken.
        """
        with self.stream() as stream:
            most = min(max_in_flight or stream.window, stream.window)
            for step in inputs:
                stream.send(step)
                if stream.num_pending >= most:
                    yield stream.receive().outputs
            while stream.num_pending:
                yield stream.receive().outputs

    def close(self) -> None:
        """Close the connections; the session itself stays."""
        if self._given_http is None:
            self._http.close()

    def _drive(self, operation: Operation[T]) -> T:
        with self._lock:
            return drive(operation, self._perform)

    def _perform(self, effect: Effect) -> Outcome:
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return None
        assert isinstance(effect, Call)
        started = time.monotonic()
        try:
            response = self._http.request(
                effect.method,
                self._address.http(effect.path),
                content=effect.body,
                headers=self._address.http_headers(effect.body),
                timeout=effect.timeout_s,
            )
        except httpx.RequestError as error:
            return unanswered(error, time.monotonic() - started)
        return answered(response, time.monotonic() - started)
