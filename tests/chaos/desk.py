"""Where requests go out and answers come in: intents to HTTP, and everything into the history."""

import json
import time

from tests.chaos.history import Operation, Outcome
from tests.chaos.wire import LostError, NotSentError, Wire

_MODEL = "/v1/models/vowels"


class Desk:
    """What sends the clients' requests.

    Attributes:
        history: Everything that was sent.
        entrances: Where requests can go to.
        input_size: Features of a time step.
        timeout_s: How long clients wait for an answer.
        is_ending: Whether clients should begin nothing new.
        is_closing: Whether they should not even settle what they began.
    """

    def __init__(self, history, ports, input_size, timeout_s):
        """Prepare to send.

        Args:
            history: Takes in everything.
            ports: By the name of the entrance.
            input_size: Features of a time step.
            timeout_s: How long clients wait for an answer.
        """
        self.history = history
        self.entrances = list(ports)
        self.input_size = input_size
        self.timeout_s = timeout_s
        self.is_ending = False
        self.is_closing = False
        self._ports = ports
        self._num_begun = self._num_ended = 0
        self._wires = {name: Wire(port, timeout_s) for name, port in ports.items()}
        self._began = time.perf_counter()

    @property
    def now(self):
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    @property
    def num_in_flight(self):
        """Requests, and frames of streams, that wait for their answer."""
        return self._num_begun - self._num_ended

    def close(self):
        """End the connections."""
        for wire in self._wires.values():
            wire.close()

    def stream_address(self, entrance, session):
        """Return where a session's stream is."""
        return f"ws://127.0.0.1:{self._ports[entrance]}{_MODEL}/sessions/{session}/stream"

    async def send(self, intent, writer, entrance, leave_after_s=None):
        """Send a request once, and return what became of it."""
        operation = self.begin(intent, writer, entrance)
        method, path, body = _request(intent)
        wire = self._wires[entrance]
        try:
            if leave_after_s is not None:
                operation.outcome = Outcome.ABANDONED
                await wire.abandon(method, path, body, leave_after_s)
            else:
                _take(operation, await wire.exchange(method, path, body))
        except NotSentError:
            operation.outcome = Outcome.UNSENT
        except LostError as error:
            operation.code = str(error).partition(":")[0]
        self.end(operation)
        return operation

    async def send_batch(self, intents, writer, entrance):
        """Send one step of many sessions in one request; return what became of each."""
        operations = [self.begin(intent, writer, entrance) for intent in intents]
        document = {
            "client_ids": [intent.session for intent in intents],
            "inputs": [_numbers(intent.inputs)[0] for intent in intents],
            "positions": [intent.position for intent in intents],
        }
        try:
            answer = await self._wires[entrance].exchange(
                "POST", f"{_MODEL}/steps", json.dumps(document).encode()
            )
        except NotSentError:
            for operation in operations:
                operation.outcome = Outcome.UNSENT
        except LostError as error:
            for operation in operations:
                operation.code = str(error).partition(":")[0]
        else:
            for index, operation in enumerate(operations):
                _take_row(operation, answer, index)
        for operation in operations:
            self.end(operation)
        return operations

    def begin(self, intent, writer, entrance):
        """Note that something is sent now, and return what is to become of it."""
        self._num_begun += 1
        operation = Operation(intent, writer, entrance, self.now)
        self.history.begin(operation)
        return operation

    def end(self, operation):
        """Note that no more will be known of it."""
        self._num_ended += 1
        self.history.end(operation, self.now)


def _take(operation, answer):
    if answer.status == 200:
        operation.take(answer.document)
    else:
        operation.refuse(answer.document.get("code", f"status {answer.status}"), answer.document)


def _take_row(operation, answer, index):
    if answer.status != 200:
        _take(operation, answer)
        return
    row = {name: values[index] for name, values in answer.document.items()}
    if row["errors"] is not None:
        operation.refuse(row["errors"]["code"], row["errors"])
        return
    operation.take(
        {
            "position": row["positions"],
            "epoch": row["epochs"],
            "replayed": row["replayed"],
            "outputs": row["outputs"],
        }
    )


def _request(intent):
    path = f"{_MODEL}/sessions/{intent.session}"
    if intent.kind == "look":
        return "GET", path + ("/state" if intent.has_states else ""), b""
    document = {}
    if intent.epoch is not None:
        document["epoch"] = intent.epoch
    if intent.kind == "reset":
        return "POST", f"{path}/reset_states", json.dumps(document).encode()
    document["position"] = intent.position
    if intent.has_states:
        document["return_state"] = True
    is_step = intent.num_steps == 1 and not intent.is_sequence and intent.mask is None
    if is_step:
        document["inputs"] = _numbers(intent.inputs)[0]
        return "POST", f"{path}/step", json.dumps(document).encode()
    document["inputs"] = _numbers(intent.inputs)
    if not intent.is_sequence:
        document["return_sequences"] = False
    if intent.mask is not None:
        document["mask"] = intent.mask.tolist()
    return "POST", f"{path}/sequence", json.dumps(document).encode()


def _numbers(inputs):
    """Return float32 numbers as short decimals that read back to the same float32."""
    return inputs.astype("float64").round(4).tolist()
