"""A model repository on disk, with versions of a bundled model, and what is served of it."""

import io
import zipfile

import h5py
import numpy as np

from service.domain import AdvanceRequest, LookRequest, SessionKey
from service.limits import EngineLimits
from service.model_files import bundled_models
from service.models import ModelLoader
from service.opening import Lifetimes
from service.repository import ModelRepository
from service.served import ServedModels
from service.stores.memory import MemoryStore

VOWELS = bundled_models()["vowels"]
X = np.random.default_rng(0).standard_normal((6, 12)).astype(np.float32)
"""Inputs of that model, `(time, 12)`."""


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


class House:
    """A repository, and what is served of it."""

    def __init__(self, directory, **others):
        limits = EngineLimits(arena_rows=90, max_pending=30)
        loader = ModelLoader(store=MemoryStore(100), limits=limits, lifetimes=Lifetimes())
        self.repository = ModelRepository(directory, loader)
        given = loader.engines({name: [path] for name, path in others.items()})
        self.served = ServedModels(given | self.repository.read_all())
        self.repository.attach(self.served)

    async def __aenter__(self):
        for engine in self.served.values():
            await engine.start()
        return self

    async def __aexit__(self, *_):
        for engine in self.served.values():
            await engine.drain()
        await self.repository.close()

    def states(self):
        """Return the state of every version."""
        return {(line.name, line.version): line.state for line in self.repository.index()}


async def step(engine, client, t):
    """Take one step."""
    key = SessionKey("default", "vowels", client)
    return await engine.ask(AdvanceRequest(key=key, inputs=X[t : t + 1], return_sequences=False))


async def version_of(house, client):
    """Return the version of the model that a session belongs to."""
    key = SessionKey("default", "vowels", client)
    fingerprint = (await house.served["vowels"].ask(LookRequest(key=key))).fingerprint
    engine = house.served["vowels"]
    [version] = [
        each.signature.version
        for each in (engine, *engine.earlier)
        if each.signature.fingerprint == fingerprint
    ]
    return version
