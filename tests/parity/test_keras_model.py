"""Reading a `.keras` file with Keras: what is refused, by us or by it."""

from __future__ import annotations

import io
import zipfile

import h5py
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.keras_model import read_keras_model

keras = pytest.importorskip("keras")


def saved(path, *chain):
    """Write a chain over three features."""
    keras.Sequential([keras.Input((None, 3)), *chain]).save(path)
    return path


def with_weights(path, change):
    """Rewrite a file after its HDF5 member was changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = io.BytesIO(members["model.weights.h5"])
    with h5py.File(data, "r+") as file:
        change(file)
    members["model.weights.h5"] = data.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)


def test_code_in_a_file_is_not_run(tmp_path):
    """A layer that carries some is refused by Keras's safe mode."""
    path = saved(tmp_path / "code.keras", keras.layers.Lambda(lambda x: x), keras.layers.GRU(2))
    with pytest.raises(FormatError, match=r"code\.keras \(written by Keras 3.*safe_mode"):
        read_keras_model(path)


@pytest.mark.parametrize(
    "link", [h5py.ExternalLink("elsewhere.h5", "/x"), h5py.SoftLink("/layers")], ids=str
)
def test_weights_that_lead_elsewhere_are_refused(link, tmp_path):
    """Keras would follow the link."""
    path = saved(tmp_path / "linked.keras", keras.layers.GRU(2))

    def change(file):
        place = file["layers/gru/cell/vars"] if "layers/gru" in file else file["layers"]
        name = next(iter(place))
        del place[name]
        place[name] = link

    with_weights(path, change)
    with pytest.raises(FormatError, match="leads elsewhere, which is not followed"):
        read_keras_model(path)


def test_what_is_no_such_file_is_told(tmp_path):
    """As the other reader does."""
    with pytest.raises(FormatError, match="there is no such file"):
        read_keras_model(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(FormatError, match="is not a zip archive"):
        read_keras_model(tmp_path / "text.keras")
