"""Reading and writing in slices beside doing it in one piece."""

import asyncio
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.domain import AdvanceReply
from service.errors import InvalidRequestError
from service.signature import StateVector
from service.transport import slices
from service.transport.parse import parse_sequence
from service.transport.render import render_advance
from service.transport.slices import parse_sequence_in_slices, render_advance_in_slices
from tests.unit.documents import KEY, problem_of, signature

MAX_STEPS = 50
SPACES = st.sampled_from(["", " ", "\n\t ", "\r\n"])
NUMBERS = st.one_of(
    st.integers(-9, 9).map(str),
    st.floats(width=32).map(json.dumps),
    st.sampled_from(["1e38", "3.5e38", "1e999", "-0", "-0.0", "01", "1.", "true", "null", '"1"']),
)
MEMBERS = st.sampled_from(
    [
        '"position":3',
        '"position" : null',
        '"epoch":7 ',
        '"return_sequences":false',
        '"return_state" :true',
        '"mask":[true,false]',
        '"mask": [ true , false ] ',
        '"mask":[[1],[2]]',
        '"inputs":[]',
        '"inputs":[[1,2]]',
        '"\\u0069nputs":[[1,2]]',
        '"\\u0069nputs":[]',
        '"unknown":"]],[["',
        '"unknown":{"inputs":[[1,2]]}',
        '"position":"[[1,2]]"',
    ]
)
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace"]),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([*'[]{},:"\\019.-eE tfn', "],[", "]]", '"inputs":', "é", "\x00"]),
    ),
    max_size=3,
)


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch):
    """Every few bytes are a slice, and every few numbers."""
    monkeypatch.setattr(slices, "_READ_BYTES", 8)
    monkeypatch.setattr(slices, "_WRITE_VALUES", 5)
    monkeypatch.setattr(slices, "LARGE_ANSWER_VALUES", 4)


def finish(work):
    """Run a work to its end; return what it made and in how many slices."""
    num_slices = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value, num_slices
        num_slices += 1


def told(parse, body, model):
    """Return all that a reading of a body says."""
    try:
        request = parse(body, model, KEY, MAX_STEPS)
    except InvalidRequestError as error:
        return [(problem.location, problem.message) for problem in error.problems]
    mask = None if request.mask is None else request.mask.tolist()
    return (
        (request.inputs.tobytes(), request.inputs.shape, request.inputs.dtype, mask),
        (request.position, request.epoch, request.return_sequences, request.return_state),
    )


def sliced(body, model, key, max_steps):
    """Read in slices."""
    return finish(parse_sequence_in_slices(body, model, key, max_steps))[0]


@st.composite
def bodies(draw, numbers=NUMBERS, width=2):
    """Return a sequence's body with members before and behind its inputs, perhaps damaged."""
    rows = draw(
        st.lists(
            st.lists(numbers, min_size=width, max_size=width)
            | st.lists(numbers, max_size=width + 1),
            max_size=8,
        )
    )

    def space():
        return draw(SPACES)

    cells = [f"{space()}[{space()}" + f"{space()},{space()}".join(row) + "]" for row in rows]
    inputs = f'{space()}"inputs"{space()}:{space()}[' + f"{space()},".join(cells) + f"{space()}]"
    before, behind = (draw(st.lists(MEMBERS, max_size=2)) for _ in "12")
    text = f"{space()}{{" + f"{space()},".join([*before, inputs, *behind]) + f"{space()}}}"
    for kind, where, what in draw(DAMAGE):
        at = int(where * len(text))
        text = text[:at] + ("" if kind == "delete" else what) + text[at + (kind != "insert") :]
    return text.encode()


@settings(deadline=None, max_examples=600)
@given(bodies())
@example(b'{"inputs":[[1,2][3,4]]}')
@example(b'{"inputs":[[1,2] , [3,4],5]}')
@example(b'{"inputs":[[1,2],]}')
@example(b'{"inputs":[[1,2]],"inputs":[]}')
@example(b'{"inputs":[[1,2]]')
@example(b'{"inputs":[[1,2]}')
@example(b'{"inputs":[[1,2]]}}')
@example(b'{"inputs":[[1,2],[3,4]],"mask":[true,false]}')
@example(b'{"mask":[true,false],"inputs":[[1,2],[3,4]]}')
@example(b'{"position":1,2,"inputs":[[1,2],[3,4]]}')
@example(b'{"position":,"inputs":[[1,2],[3,4]]}')
@example(b'\xef\xbb\xbf{"inputs":[[1,2],[3,4]]}')
def test_slices_say_what_the_whole_says(body):
    """Of good bodies and of damaged ones: the same numbers, the same errors in the same places."""
    model = signature(input_size=2)
    assert told(parse_sequence, body, model) == told(sliced, body, model)


@settings(deadline=None, max_examples=200)
@given(bodies(st.integers(-1, 8).map(str) | st.just("1.0"), 1))
def test_slices_of_tokens_say_what_the_whole_says(body):
    """Integers of the vocabulary, and nothing else."""
    model = signature(vocabulary=7)
    assert told(parse_sequence, body, model) == told(sliced, body, model)


def test_a_plain_body_is_read_in_many_slices():
    """Were it read in one piece, the law above would say nothing."""
    model = signature()
    rows = np.random.default_rng(0).standard_normal((MAX_STEPS, 3)).round(3).tolist()
    for document in (
        {"inputs": rows},
        {"position": 4, "mask": [True] * MAX_STEPS, "inputs": rows},
        {"inputs": rows, "mask": [True] * MAX_STEPS, "epoch": 4},
    ):
        body = json.dumps(document).encode()
        request, num_slices = finish(parse_sequence_in_slices(body, model, KEY, MAX_STEPS))
        assert num_slices == MAX_STEPS
        np.testing.assert_array_equal(np.array(rows, np.float32), request.inputs)


@pytest.mark.parametrize("num_steps", [MAX_STEPS + 1, 100_000])
def test_too_many_steps_are_refused_as_in_one_piece(num_steps):
    """Before they are made, where they are far too many."""
    body = b'{"inputs":[' + b",".join([b"[1,2,3]"] * num_steps) + b"]}"
    arguments = body, signature(), KEY, MAX_STEPS
    assert problem_of(parse_sequence, *arguments) == problem_of(sliced, *arguments)


def test_too_many_steps_are_counted_in_slices():
    """They would hold the event loop up as long as as many good ones, read in one piece."""
    body = b'{"inputs":[' + b",".join([b"[0.1,0.2,0.3]"] * (3 * MAX_STEPS)) + b"]}"
    work = parse_sequence_in_slices(body, signature(), KEY, MAX_STEPS)
    for _ in range(3 * MAX_STEPS):
        next(work)
    with pytest.raises(InvalidRequestError):
        next(work)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 12),
    st.integers(1, 7),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(), (StateVector("older", "h", 1), StateVector("older", "c", 3))]),
)
def test_an_answer_in_slices_is_the_same_to_the_byte(
    num_steps, size, has_row, is_last_only, layout
):
    """With states and without, of this version of the model or of one that lays them out else."""
    random = np.random.default_rng(num_steps)
    outputs = random.standard_normal((num_steps, size)).astype(np.float32)
    reply = AdvanceReply(
        outputs=outputs[-1] if is_last_only and num_steps else outputs,
        position=9,
        epoch=8,
        replayed=True,
        row=random.standard_normal(4).astype(np.float32) if has_row else None,
        layout=layout,
    )
    written, num_slices = finish(render_advance_in_slices(reply, signature()))
    assert render_advance(reply, signature()) == written
    assert (num_slices > 0) == (reply.outputs.ndim == 2 and num_steps * size > 4)


async def test_works_take_turns_and_others_come_between():
    """However many they are, no more than one slice runs before everybody else has had a turn."""
    runner = slices.SliceRunner()
    seen = []

    def work(name):
        for _ in range(5):
            seen.append(name)
            yield
        return name

    async def other():
        for _ in range(100):
            seen.append("other")
            await asyncio.sleep(0)

    results = await asyncio.gather(*(runner.run(work(name)) for name in "abc"), other())
    assert ["a", "b", "c", None] == results
    works = [index for index, name in enumerate(seen) if name != "other"]
    between = [seen[i:j].count("other") for i, j in pairwise(works)]
    assert all(between[1:])
