"""Which of a stream's steps are binary and which text, and what answers each."""

import numpy as np
import pytest

from service.client import ProtocolError
from service.client.stream import block_size, blocks
from tests.unit.client_frames import BINARY, CUT, frame, hello, opened, reply, send
from tests.unit.client_script import EPOCH, Script, make_core


def test_a_binary_step_is_sent_again_as_text():
    """It may have been applied: its answer tells whether it is replayed. The next is binary."""
    stream = opened(make_core(position=3, epoch=EPOCH))
    assert [[1.0]] == send(stream, 1.0)
    script = Script(CUT, None, hello(4, EPOCH), reply(4, replayed=True))
    assert script.run(stream.receive()).replayed
    assert [{"inputs": [1.0], "position": 3, "epoch": EPOCH}] == script.sent
    assert [[2.0]] == send(stream, 2.0)


@pytest.mark.parametrize(
    "inputs", [[], [1.0, 2.0], [True], ["1"], [None], [[1.0]], 1.0, "1", [1e39], [2**200]], ids=repr
)
def test_what_is_no_step_in_float32_is_said_in_json(inputs):
    """So that the service says what is wrong with it, as it does over HTTP."""
    stream = opened(make_core(position=3, epoch=EPOCH))
    script = Script()
    script.run(stream.send(inputs))
    assert [{"inputs": inputs, "position": 3, "epoch": EPOCH}] == script.sent


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda row: [np.float32(row[0])]])
def test_numbers_of_every_kind_are_binary(kind):
    """Lists, arrays, and lists of an array's scalars."""
    stream = opened(make_core(position=3, epoch=EPOCH))
    script = Script()
    script.run(stream.send(kind([0.1])))
    assert [np.array([0.1], "<f4").tobytes()] == script.frames


def test_an_array_that_changes_is_sent_again_as_it_was():
    """A caller may fill the same one for every step."""
    stream = opened(make_core(position=3, epoch=EPOCH))
    row = np.array([1.0])
    Script().run(stream.send(row))
    row[:] = 2.0
    script = Script(CUT, None, hello(3, EPOCH), reply(4))
    script.run(stream.receive())
    assert [[1.0]] == [document["inputs"] for document in script.sent]


def test_steps_that_are_sent_together_are_one_write():
    """As far as there is room for them."""
    stream = opened(make_core(position=3, epoch=EPOCH))
    script = Script(BINARY, BINARY)
    script.run(stream.send_many([[float(n)] for n in range(6)]))
    assert [4, 1, 1] == script.writes
    assert [[float(n)] for n in range(6)] == script.sent
    assert [4, 5] == [Script().run(stream.receive()).position for _ in range(2)]


@pytest.mark.parametrize("answer", [b"", b"12345678", reply(4), frame(position=4)])
def test_what_does_not_answer_a_binary_step_is_told(answer):
    """Nothing of this service's."""
    stream = opened(make_core(position=3, epoch=EPOCH))
    send(stream, 1.0, 2.0)
    with pytest.raises(ProtocolError):
        Script(answer).run(stream.receive())
    with pytest.raises(ProtocolError):
        Script(BINARY).run(stream.receive())


def test_a_reply_as_text_has_the_outputs_of_a_binary_one():
    """To the bit: JSON's shorter numbers are read as the float32 that they stand for."""
    stream = opened(make_core())
    send(stream, 1.0)
    text = frame(outputs=[0.1], position=1, epoch=EPOCH, replayed=False)
    assert [float(np.float32(0.1))] == Script(text).run(stream.receive()).outputs


@pytest.mark.parametrize(
    ("inputs", "most", "sizes"),
    [([[0.0]] * 5, 4, [2, 2, 1]), (np.zeros((3, 1)), 1, [1, 1, 1]), (iter([[0.0]] * 2), 4, [1, 1])],
)
def test_only_what_is_there_already_is_sent_together(inputs, most, sizes):
    """Half of what may be in flight; of what has no length each step by itself."""
    assert sizes == [len(block) for block in blocks(inputs, block_size(inputs, most))]
