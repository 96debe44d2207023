"""A model repository on disk, with versions of a bundled model."""

import io
import zipfile

import h5py
import numpy as np

from service.model_files import bundled_models

VOWELS = bundled_models()["vowels"]


def write(directory, version, *, shift=0.0, name="vowels", config=None, source=VOWELS):
    """Write a version of a model: the bundled one, with another bias at its end."""
    place = directory / name / str(version)
    place.mkdir(parents=True)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(place / "model.keras", "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith(".h5"):
                file = io.BytesIO(data)
                with h5py.File(file, "r+") as weights:
                    weights["layers/dense/vars/1"][...] += np.arange(9) * shift
                data = file.getvalue()
            new.writestr(entry, data)
    if config is not None:
        (place / "model.yaml").write_text(config)
    return place
