"""Checkpoints made by hand whose tensors are in slices: put together, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.read import read_network
from tests.unit.tensorflow_files import bundle, entry, field, table

UNITS = 2
KERNEL = np.arange(5 * 4 * UNITS, dtype=np.float32).reshape(5, 4 * UNITS)
BIAS = np.zeros(4 * UNITS, np.float32)
Place = tuple[int, int | None]


def extents(*places: Place) -> bytes:
    """Return where a slice is: its start and length along each axis, all of it without a length."""
    return b"".join(
        field(1, field(1, start) + (b"" if length is None else field(2, length)))
        for start, length in places
    )


def cut(
    path: Path,
    rows: list[Place],
    *,
    shape: tuple[int, ...] = KERNEL.shape,
    claimed: list[tuple[Place, ...]] | None = None,
) -> Path:
    """Write a cell whose kernel is in slices of these rows, or claims to be in others."""
    parts = [KERNEL[start : None if size is None else start + size] for start, size in rows]
    places = claimed or [(row, (0, None)) for row in rows]
    told = b"".join(field(7, extents(*place)) for place in places)
    data = BIAS.tobytes()
    entries = {"lstm_cell/bias": entry(data, BIAS.shape)}
    for index, part in enumerate(parts):
        # What follows the name is in the order of the places, and is all that is known of it.
        name = f"\0lstm_cell/kernel\0\1{index}"
        entries[name] = entry(part.tobytes(), part.shape, offset=len(data))
        data += part.tobytes()
    entries["lstm_cell/kernel"] = entry(b"", shape, more=told)
    path.with_name(f"{path.name}.json").write_text('{"forget_bias": 0}')
    return bundle(path, entries, data)


def test_slices_in_any_order(tmp_path):
    """They are told in any order, and lie in that of their places."""
    rows: list[Place] = [(0, 2), (2, 2), (4, 1)]
    told: list[tuple[Place, ...]] = [(row, (0, None)) for row in (rows[1], rows[2], rows[0])]
    (layer,) = read_network(cut(tmp_path / "model", rows, claimed=told)).recurrent
    whole = np.concatenate([layer.weights.kernel, layer.weights.recurrent_kernel])
    np.testing.assert_array_equal(np.sort(whole.ravel()), KERNEL.ravel())
    np.testing.assert_array_equal(whole[:, 0], KERNEL[:, 0])


ALL: Place = (0, None)
HUGE = 1 << 40

REFUSALS: dict[str, tuple[list[Place], tuple[int, ...], list[tuple[Place, ...]] | None, str]] = {
    "too few": ([(0, 2), (2, 2)], KERNEL.shape, None, "that are not all of its shape"),
    "twice": ([(0, 3), (0, 2)], KERNEL.shape, None, "over each other"),
    "missing": ([(0, 5)], KERNEL.shape, [((0, 3), ALL), ((3, 2), ALL)], "has 1 of its 2 slices"),
    "outside": ([(0, 5)], KERNEL.shape, [((1, 5), ALL)], "lies outside its shape"),
    "negative": ([(0, 5)], KERNEL.shape, [((-1, 5), ALL)], "lies outside its shape"),
    "negative length": ([(0, 5)], KERNEL.shape, [((0, -2), ALL)], "lies outside its shape"),
    "axes": ([(0, 5)], KERNEL.shape, [((0, 5),)], "has a slice of 1 axes"),
    "other sizes": ([(0, 4), (4, 1)], KERNEL.shape, [((0, 3), ALL), ((3, 2), ALL)], "another size"),
    "huge": ([(0, 5)], (HUGE, 8), [(ALL, ALL)], "that are not all of its shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_slices_that_are_not_the_tensor(case, tmp_path):
    """Nothing is left out, read twice, or given memory that the file does not fill."""
    rows, shape, claimed, expected = REFUSALS[case]
    with pytest.raises(FormatError, match=expected):
        read_network(cut(tmp_path / "model", rows, shape=shape, claimed=claimed))


def test_slices_of_the_older_format(tmp_path):
    """One file with its slices in it is checked in the same way."""
    path = tmp_path / "model"
    path.with_name("model.json").write_text('{"forget_bias": 0}')
    shapes = {"lstm_cell/bias": BIAS.shape, "lstm_cell/kernel": KERNEL.shape}
    metas = b"".join(
        field(1, field(1, name.encode()) + field(2, b"".join(field(2, field(1, n)) for n in shape))
              + field(3, 1))
        for name, shape in shapes.items()
    )  # fmt: skip

    def written(rows: list[tuple[int, int]]) -> Path:
        parts = [("lstm_cell/bias", extents(ALL), BIAS)]
        parts += [
            ("lstm_cell/kernel", extents((start, size), ALL), KERNEL[start : start + size])
            for start, size in rows
        ]
        pairs = [(b"", field(1, metas))]
        pairs += [
            (f"\0{name}{index}".encode(),
             field(2, field(1, name.encode()) + field(2, place)
                   + field(3, field(5, array.tobytes()))))
            for index, (name, place, array) in enumerate(parts)
        ]  # fmt: skip
        path.write_bytes(table(pairs))
        return path

    assert read_network(written([(0, 3), (3, 2)])).input_size == 3
    for rows, expected in (([(0, 3)], "not all"), ([(0, 3), (2, 2)], "over each other")):
        with pytest.raises(FormatError, match=expected):
            read_network(written(rows))
