"""The binary form of `steps` beside its JSON form, and its answer read back by hand."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import AdvanceReply, is_client_id
from service.errors import InvalidRequestError, PositionConflictError, StateNotFiniteError
from service.transport.binary_steps import MEDIA_TYPE, parse_binary_steps, render_binary_steps
from service.transport.parse_steps import are_client_ids, parse_steps
from service.transport.schema import MAX_STEPS_ROWS
from tests.unit.documents import problem_of, signature

IDS = st.one_of(
    st.sampled_from(["a", "b", "c", ".", "..", "", "x" * 128, "x" * 129, "a b", "é"]),
    st.text(st.characters(codec="ascii", exclude_characters="\n"), max_size=5),
)
FLOATS = st.floats(width=32)
POSITIONS = st.one_of(st.integers(-1, 3), st.sampled_from([-2, 2**53 - 1, 2**53, 2**62]))


def body_of(client_ids, inputs, positions=None, *, flags=None, num_rows=None):
    """Return a body, whatever it holds."""
    header = struct.pack(
        "<II",
        len(client_ids) if num_rows is None else num_rows,
        (positions is not None) if flags is None else flags,
    )
    placed = b"" if positions is None else struct.pack(f"<{len(positions)}q", *positions)
    numbers = b"".join(struct.pack(f"<{len(row)}f", *row) for row in inputs)
    return header + placed + numbers + "\n".join(client_ids).encode("latin-1")


def told(row):
    """Return what there is to know of a row."""
    if isinstance(row, InvalidRequestError):
        return str(row)
    return (row.key, row.inputs.tobytes(), row.inputs.shape, row.inputs.dtype, row.position)


@settings(deadline=None, max_examples=200)
@given(
    rows=st.lists(
        st.tuples(IDS, st.lists(FLOATS, min_size=2, max_size=2), POSITIONS), min_size=1, max_size=5
    ),
    has_positions=st.booleans(),
)
def test_both_forms_say_the_same_of_every_row(rows, has_positions):
    """The same requests, and the same of what is bad: ids, twins, numbers, positions."""
    ids, inputs, positions = map(list, zip(*rows, strict=True))
    document = {"client_ids": ids, "inputs": inputs}
    if has_positions:
        document["positions"] = [None if value == -1 else value for value in positions]
    model = signature(input_size=2)
    from_json = parse_steps(json.dumps(document).encode(), model)
    body = body_of(ids, inputs, positions if has_positions else None)
    assert list(map(told, from_json)) == list(map(told, parse_binary_steps(body, model)))


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"),
            st.sampled_from([0, 1, 6, 7, -1, 1.5, 2**24, float("nan"), -0.0]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_both_forms_say_the_same_of_tokens(rows):
    """Integers of the vocabulary, and nothing else."""
    ids = [name for name, _ in rows]
    model = signature(vocabulary=7)
    values = [[0 if value == 0 else value] for _, value in rows]
    from_json = parse_steps(json.dumps({"client_ids": ids, "inputs": values}).encode(), model)
    binary = parse_binary_steps(body_of(ids, values), model)
    assert list(map(told, from_json)) == list(map(told, binary))


@given(st.lists(IDS | st.just("a\nb"), min_size=1, max_size=4))
def test_ids_are_checked_all_at_once_as_one_by_one(texts):
    """The quick look lets nothing through that the slow one does not, and the other way round."""
    assert all(map(is_client_id, texts)) == are_client_ids(texts)


GOOD = body_of(["a", "b"], [[1, 2, 3], [4, 5, 6]], [0, -1])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "expected a header of 8 bytes, got 0 in all"),
        (GOOD[:7], "expected a header of 8 bytes, got 7 in all"),
        (body_of([], [], num_rows=0), "client_ids: expected at least one, got none"),
        (
            struct.pack("<II", MAX_STEPS_ROWS + 1, 0),
            "rows: expected at most 1024 rows, got 1025",
        ),
        (struct.pack("<II", 2**32 - 1, 0), "rows: expected at most 1024 rows, got 4294967295"),
        (
            GOOD[:4] + b"\3\0\0\0" + GOOD[8:],
            "flags: expected 0, or 1 where positions follow, got 3",
        ),
        (GOOD[:20], "positions: expected 16 bytes from byte 8 on, got 12"),
        (GOOD[:40], "inputs: expected 24 bytes from byte 24 on, got 16"),
        (GOOD[:48], "client_ids: expected 2 with newlines between them, got 1"),
        (GOOD + b"\n", "client_ids: expected 2 with newlines between them, got 3"),
        (GOOD + b"\nc", "client_ids: expected 2 with newlines between them, got 3"),
    ],
)
def test_a_whole_that_does_not_fit_is_refused(body, message):
    """With what was expected."""
    assert message == problem_of(parse_binary_steps, body, signature())


@given(st.integers(0, len(GOOD) - 1))
def test_a_truncated_body_is_never_taken_for_a_whole_one(length):
    """It is refused, or its last id is cut."""
    try:
        rows = parse_binary_steps(GOOD[:length], signature())
    except InvalidRequestError:
        return
    assert length == len(GOOD) - 1
    assert "got an empty one" in str(rows[1])


def reply(index, **options):
    """Return a row's answer."""
    outputs = np.array([index, index + 0.5], np.float32)
    return AdvanceReply(outputs=outputs, position=index + 1, epoch=2**53 - 1 - index, **options)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 7])
def test_an_answer_is_read_back_field_by_field(num_rows):
    """By the layout that is documented, with padding for every number of rows."""
    results = [reply(index, replayed=index == 1) for index in range(num_rows)]
    body = render_binary_steps(results, 2)
    layout = f"<II{num_rows}q{num_rows}Q{num_rows}H{num_rows}B{-3 * num_rows % 4}x{2 * num_rows}f"
    assert struct.calcsize(layout) == len(body)
    n, size, *rest = struct.unpack(layout, body)
    assert (num_rows, 2) == (n, size)
    columns = [rest[i * n : (i + 1) * n] for i in range(4)]
    assert [r.position for r in results] == columns[0]
    assert [r.epoch for r in results] == columns[1]
    assert [200] * n == columns[2]
    assert [r.replayed for r in results] == columns[3]
    assert [value for r in results for value in r.outputs.tolist()] == rest[4 * n :]


def test_rows_that_failed_are_told_at_the_end():
    """With status, code and message; their numbers are none."""
    conflict = PositionConflictError(7, 9, "the request starts from position 3")
    results = [conflict, reply(1), StateNotFiniteError("a state")]
    body = render_binary_steps(results, 2)
    layout = "<II3q3Q3H3B3x6f"
    _, _, *rest = struct.unpack_from(layout, body)
    assert ([-1, 2, -1], [0, 2**53 - 2, 0], [409, 200, 422]) == (rest[:3], rest[3:6], rest[6:9])
    assert [True, True, False, False, True, True] == np.isnan(rest[12:]).tolist()
    errors = json.loads(body[struct.calcsize(layout) :])
    assert [(0, "position_conflict"), (2, "state_not_finite")] == [
        (error["row"], error["code"]) for error in errors
    ]
    assert (7, 9) == (errors[0]["position"], errors[0]["epoch"])
    assert str(conflict) == errors[0]["message"]


def test_the_media_type_is_one_of_vendors():
    """No registered one means this."""
    assert MEDIA_TYPE.startswith("application/vnd.")
