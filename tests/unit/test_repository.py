"""A directory of models: what is served of it, what is refused, and what breaks nothing."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from service.errors import ModelNotLoadedError, ModelUnknownError
from service.limits import EngineLimits
from service.model_files import ModelFileError, bundled_models
from service.models import ModelLoader
from service.opening import Lifetimes
from service.stores.memory import MemoryStore
from tests.unit.model_directory import VOWELS, House, X, step, write

FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"


@pytest.mark.parametrize(
    "breakage",
    ["truncated", "empty", "no file", "two files", "other sizes", "config", "the same"],
)
async def test_a_broken_version_takes_no_working_one_down(tmp_path, breakage):
    """It is told in the index, and is tried again once it has changed."""
    write(tmp_path, 1)
    async with House(tmp_path) as house:
        place = write(tmp_path, 2, shift=1.0)
        file = place / "model.keras"
        whole = file.read_bytes()
        match breakage:
            case "truncated":
                file.write_bytes(whole[:3000])
            case "empty":
                file.write_bytes(b"")
            case "no file":
                file.unlink()
            case "two files":
                (place / "model.h5").write_bytes(b"x")
            case "other sizes":
                shutil.copy(bundled_models()["gait"], file)
            case "config":
                (place / "model.yaml").write_text("label: [a]")
            case "the same":
                shutil.copy(VOWELS, file)
        await house.repository.follow()

        [_, line] = house.repository.index()
        assert ("UNAVAILABLE", "1") == (line.state, house.served["vowels"].signature.version)
        assert line.reason
        assert str(tmp_path) not in line.reason
        assert 1 == (await step(house.served["vowels"], "alice", 0)).position
        with pytest.raises(ModelNotLoadedError, match="version 2"):
            await house.repository.load("vowels")

        (place / "model.yaml").unlink(missing_ok=True)
        (place / "model.h5").unlink(missing_ok=True)
        file.write_bytes(whole)
        await house.repository.follow()
        assert "2" == house.served["vowels"].signature.version
        assert {"READY"} == set(house.states().values())


async def test_a_model_is_unloaded_and_loaded_again(tmp_path):
    """Its sessions are where they were; the directory alone does not bring it back."""
    write(tmp_path, 1)
    write(tmp_path, 1, name="other")
    async with House(tmp_path) as house:
        engine = house.served["vowels"]
        await step(engine, "alice", 0)
        await house.repository.unload("vowels")
        await house.repository.follow()

        assert ["other"] == list(house.served)
        assert {("vowels", "1"): "UNAVAILABLE", ("other", "1"): "READY"} == house.states()
        with pytest.raises(ModelUnknownError):
            await step(engine, "alice", 1)
        with pytest.raises(ModelUnknownError) as raised:
            await house.repository.load("nothing" * 10_000)
        assert 200 > len(str(raised.value))
        with pytest.raises(ModelUnknownError):
            await house.repository.unload("nothing")

        await house.repository.load("vowels")
        assert {"READY"} == set(house.states().values())
        assert 2 == (await step(house.served["vowels"], "alice", 1)).position
        assert 3 == (await step(engine, "alice", 2)).position, "as a connection holds it"


async def test_a_fault_of_ours_in_a_version_ends_nothing_else(tmp_path, monkeypatch):
    """Nobody knows what files make libraries do; who follows the directory goes on."""
    write(tmp_path, 1)
    async with House(tmp_path) as house:
        watching = asyncio.create_task(house.repository.watch(0.01))
        with monkeypatch.context() as patched:
            patched.setattr("service.models.read_network", lambda _: 1 / 0)
            write(tmp_path, 2, shift=1.0)
            async with asyncio.timeout(5):
                while "UNAVAILABLE" not in house.states().values():
                    await asyncio.sleep(0.01)
        [_, line] = house.repository.index()
        assert "the log" in line.reason
        write(tmp_path, 3, shift=2.0)
        async with asyncio.timeout(5):
            while house.served["vowels"].signature.version != "3":
                await asyncio.sleep(0.01)
        watching.cancel()


async def test_a_model_of_the_command_line_is_nobody_elses(tmp_path, caplog):
    """A directory of its name, which comes and goes, does not touch it."""
    write(tmp_path, 1, name="other")
    async with House(tmp_path, vowels=VOWELS) as house:
        engine = house.served["vowels"]
        write(tmp_path, 7, shift=1.0)
        for _ in range(2):
            await house.repository.follow()
        for change in (house.repository.load, house.repository.unload):
            with pytest.raises(ModelUnknownError):
                await change("vowels")
        shutil.rmtree(tmp_path / "vowels")
        await house.repository.follow()

        assert house.served["vowels"] is engine
        assert () == engine.earlier
        assert ["other"] == [line.name for line in house.repository.index()]
        assert 1 == sum("--model" in record.message for record in caplog.records)


async def test_numbers_in_the_callers_units(tmp_path):
    """Inputs are standardised and outputs brought back, as the training had it."""
    mean, std = np.linspace(-1, 1, 12), np.linspace(0.5, 2, 12)
    config = f"""
normalisation:
  inputs: {{mean: {mean.tolist()}, std: {std.tolist()}}}
  outputs: {{mean: {[10.0] * 9}, std: {[2.0] * 9}}}
labels: [a, b, c, d, e, f, g, h, i]
limits: {{max_pending: 7, max_batch_rows: 5}}
warm_up: {{rows: [3], steps: 1}}
"""
    write(tmp_path, 1, config=config)
    write(tmp_path, 1, name="plain")
    async with House(tmp_path) as house:
        given = (X * std + mean).astype(np.float32)
        outputs = await house.served["vowels"].predict(given[None])
        plain = await house.served["plain"].predict(X[None])

        np.testing.assert_allclose(outputs, plain * 2 + 10, rtol=1e-5, atol=1e-5)
        assert tuple("abcdefghi") == house.served["vowels"].signature.labels
        assert house.served["plain"].signature.labels is None
        assert "normalisation" in house.served["vowels"].signature.runtime_reason
        assert "normalisation" not in house.served["plain"].signature.runtime_reason


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("labels: [a, b]", "labels: expected 9 values, got 2"),
        ("feedback: [0]", "feedback: expected 12 values, got 1"),
        (f"feedback: {[9] * 12}", "there is no output 9"),
        ("normalisation: {inputs: {mean: [1], std: [1]}}", "expected 12 values, got 1"),
        ("normalisation: {inputs: {mean: [1], std: [0]}}", "greater than 0"),
        ("normalisation: {inputs: {mean: [1, 2], std: [1]}}", "2 means"),
        ("normalisation: {inputs: {mean: ['1'], std: [1]}}", "valid number"),
        ("limits: {max_pending: 1000}", "three times max_pending"),
        ("limits: {max_pendig: 10}", "max_pendig"),
        ("- a", "the file"),
        ("a: [", "cannot be read"),
        ("labels: &a [*a]", "aliases"),
        ("a: &a [1]\nb: [*a, *a]", "aliases"),
        ("2020-01-01: 1", "cannot be read"),
        ("a: !!int x", "cannot be read"),
    ],
)
def test_a_configuration_that_does_not_fit_says_what(tmp_path, config, said):
    """By the name of what is wrong, at the start."""
    write(tmp_path, 1, config=config)

    with pytest.raises(ModelFileError, match="vowels 1: ") as raised:
        House(tmp_path)

    assert said in str(raised.value)


@pytest.mark.parametrize(
    "files",
    [
        {"keras3/chain.weights.h5": "model.weights.h5", "keras3/chain.json": "model.json"},
        {"keras3/export": "model", "keras3/export/config.json": "model/config.json"},
        {
            "tf1/stack.index": "model.index",
            "tf1/stack.data-00000-of-00001": "model.data-00000-of-00001",
            "tf1/stack.json": "model.json",
        },
    ],
    ids=["weights", "directory", "checkpoint"],
)
def test_models_of_several_files(tmp_path, files):
    """Weights beside their configuration, a directory, a checkpoint's parts."""
    place = tmp_path / "m" / "1"
    place.mkdir(parents=True)
    for source, target in files.items():
        copy = shutil.copytree if (FORMATS / source).is_dir() else shutil.copy
        copy(FORMATS / source, place / target)

    assert ["m"] == list(House(tmp_path).served)


def test_a_repository_without_models_is_refused(tmp_path):
    """Also one that is not there, and one whose only directories are none of models."""
    (tmp_path / "vowels" / "latest").mkdir(parents=True)
    (tmp_path / "two words" / "1").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    for directory in (tmp_path, tmp_path / "missing", Path(__file__)):
        with pytest.raises(ModelFileError):
            House(directory)


def test_files_of_one_name_are_versions_that_differ(tmp_path):
    """The one given first is the newest; the same model twice is a mistake, wherever it stands."""
    newest, older = (write(tmp_path, n, shift=float(n)) / "model.keras" for n in (2, 1))
    loader = ModelLoader(
        store=MemoryStore(9),
        limits=EngineLimits(arena_rows=90, max_pending=30),
        lifetimes=Lifetimes(),
    )

    engine = loader.engines({"m": [newest, older, VOWELS]})["m"]
    assert ["3", "1", "2"] == [e.signature.version for e in (engine, *engine.earlier)]
    with pytest.raises(ModelFileError, match="versions 1 and 2"):
        loader.engines({"m": [newest, older, older]})


def test_an_arena_that_does_not_fit_into_memory_is_refused():
    """The message says how many rows were asked for, and what to do."""
    limits = EngineLimits(arena_rows=2**45)
    loader = ModelLoader(store=MemoryStore(1), limits=limits, lifetimes=Lifetimes())

    with pytest.raises(ModelFileError, match=f"{2**45} states at hand .* lower --arena-rows"):
        loader.prepare("vowels", VOWELS)
