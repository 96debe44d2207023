"""A directory of models: what is served of it, whose sessions stay where, what breaks nothing."""

import asyncio
import gc
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.domain import AdvanceRequest, LookRequest, ResetRequest, SessionKey
from service.errors import FingerprintMismatchError, ModelNotLoadedError, ModelUnknownError
from service.limits import EngineLimits
from service.model_files import ModelFileError, bundled_models
from service.models import ModelLoader
from service.opening import Lifetimes
from service.repository import ModelRepository
from service.served import ServedModels
from service.stores.memory import MemoryStore
from service.stores.watched import WatchedStore
from service.telemetry import Telemetry
from service.transport.v2.catalog import ServedModel
from service.transport.v2.metadata import model_statistics
from service.transport.v2.statistics import Statistics
from tests.unit.model_directory import VOWELS, write

FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
X = np.random.default_rng(0).standard_normal((6, 12)).astype(np.float32)


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


async def test_a_new_version_takes_the_new_sessions_and_live_ones_stay(tmp_path):
    """Also for whoever still holds what served the model before."""
    write(tmp_path, 1)
    async with House(tmp_path) as house:
        before = house.served["vowels"]
        first = await step(before, "alice", 0)
        write(tmp_path, 2, shift=1.0)
        await house.repository.follow()
        now = house.served["vowels"]

        replies = [await step(engine, "alice", 1 + i) for i, engine in enumerate((before, now))]
        fresh = [await step(engine, name, 0) for engine, name in ((before, "bob"), (now, "carol"))]

        assert ("1", "2") == (before.signature.version, now.signature.version)
        assert [2, 3] == [reply.position for reply in replies]
        assert first.epoch == replies[1].epoch
        assert ["1", "2", "2"] == [
            await version_of(house, who) for who in ("alice", "bob", "carol")
        ]
        assert np.array_equal(fresh[0].outputs, fresh[1].outputs)
        assert not np.allclose(first.outputs, fresh[0].outputs)


async def test_steps_in_flight_while_versions_change_are_applied_once(tmp_path):
    """Whatever comes between: every session takes each of its steps once, in their order."""
    write(tmp_path, 1)
    async with House(tmp_path) as house:
        is_over = asyncio.Event()

        async def run(client):
            last = 0
            while not is_over.is_set() or last < 50:
                reply = await step(house.served["vowels"], client, last % 6)
                assert last + 1 == reply.position
                last += 1

        clients = [asyncio.create_task(run(f"c{i}")) for i in range(8)]
        for version in (2, 3, 4):
            write(tmp_path, version, shift=float(version))
            await house.repository.follow()
        shutil.rmtree(tmp_path / "vowels" / "3")
        await house.repository.follow()
        is_over.set()
        await asyncio.gather(*clients)

        assert {"1"} == {await version_of(house, f"c{i}") for i in range(8)}
        assert ["1", "2"] == sorted(e.signature.version for e in house.served["vowels"].earlier)


async def test_what_was_counted_of_a_version_stays_when_it_goes(tmp_path):
    """Counters that fall look like a restart, and like steps that nobody took."""
    write(tmp_path, 1)
    async with House(tmp_path) as house:
        telemetry = Telemetry(house.served, WatchedStore(MemoryStore(1)))

        def told(name):
            [line] = [
                line
                for line in telemetry.render()[0].decode().splitlines()
                if line.startswith(f'{name}{{model="vowels"}}')
            ]
            return float(line.split()[-1])

        def num_executions():
            model = ServedModel(house.served["vowels"], Statistics())
            return model_statistics([model])["model_stats"][0]["execution_count"]

        for version in (2, 3, 4):
            await step(house.served["vowels"], f"c{version}", 0)
            write(tmp_path, version, shift=float(version))
            await house.repository.follow()
        assert 3 == told("lstm_live_sessions")
        for gone in ("1", "4", "2"):
            shutil.rmtree(tmp_path / "vowels" / gone)
            await house.repository.follow()
            await house.repository.close()
            assert (3, 3) == (told("lstm_steps_total"), num_executions())
            assert 3 == told("lstm_batch_size_count")
        assert 1 == told("lstm_live_sessions")


@pytest.mark.parametrize("is_placed", [True, False], ids=["with positions", "without"])
async def test_steps_sent_ahead_keep_their_order_while_versions_change(tmp_path, is_placed):
    """Those that were taken before a version came run before those that come after it."""
    write(tmp_path, 1)
    async with House(tmp_path) as house:
        is_over = False

        async def run(client):
            waiting: list[asyncio.Future[Any]] = []
            num_sent = num_answered = 0
            while not is_over or waiting:
                while len(waiting) < 8 and not is_over:
                    position = num_sent if is_placed else None
                    request = AdvanceRequest(
                        key=SessionKey("default", "vowels", client),
                        inputs=X[num_sent % 6][None],
                        position=position,
                    )
                    waiting.append(asyncio.get_running_loop().create_future())
                    house.served["vowels"].submit(request, waiting[-1].set_result)
                    num_sent += 1
                num_answered += 1
                reply = await waiting.pop(0)
                assert num_answered == reply.position, reply
            return num_answered

        clients = [asyncio.create_task(run(f"c{i}")) for i in range(3)]
        for version in (2, 3):
            write(tmp_path, version, shift=float(version))
            await house.repository.follow()
            await asyncio.sleep(0.01)
        shutil.rmtree(tmp_path / "vowels" / "3")
        await house.repository.follow()
        is_over = True
        async with asyncio.timeout(10):
            assert min(await asyncio.gather(*clients)) > 10


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_version_that_is_gone_is_gone_from_all(tmp_path, at_once):
    """Also where the one that was in front of it comes to the front again."""
    write(tmp_path, 1)
    async with House(tmp_path) as house:
        await step(house.served["vowels"], "alice", 0)
        for version in (2, 3):
            write(tmp_path, version, shift=float(version))
            await house.repository.follow()
        for gone in ("1", "3"):
            shutil.rmtree(tmp_path / "vowels" / gone)
            if not at_once:
                await house.repository.follow()
                await asyncio.sleep(0)
        await house.repository.follow()

        assert "2" == house.served["vowels"].signature.version
        with pytest.raises(FingerprintMismatchError):
            await step(house.served["vowels"], "alice", 1)


async def test_the_memory_of_what_is_gone_is_given_back_at_once(tmp_path):
    """Whoever holds its engine still, as connections do, and without the garbage collector."""
    write(tmp_path, 1)
    async with House(tmp_path) as house:
        held = house.served["vowels"]
        arena = weakref.ref(held.arena)
        gc.disable()
        try:
            write(tmp_path, 2, shift=1.0)
            await house.repository.follow()
            between = weakref.ref(house.served["vowels"].arena)
            write(tmp_path, 3, shift=2.0)
            await house.repository.follow()
            for version in ("1", "2"):
                shutil.rmtree(tmp_path / "vowels" / version)
                await house.repository.follow()
            await house.repository.close()

            assert (None, None) == (arena(), between())
        finally:
            gc.enable()
        assert 1 == (await step(held, "alice", 0)).position
        assert "3" == await version_of(house, "alice")


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


async def test_a_version_that_is_gone_is_served_no_more(tmp_path):
    """Its sessions say so, until they are reset; the next lower one takes the new sessions."""
    write(tmp_path, 1)
    write(tmp_path, 2, shift=1.0)
    async with House(tmp_path) as house:
        newest = house.served["vowels"]
        await step(newest, "alice", 0)
        shutil.rmtree(tmp_path / "vowels" / "2")
        await house.repository.follow()

        for engine in (house.served["vowels"], newest):
            with pytest.raises(FingerprintMismatchError):
                await step(engine, "alice", 1)
        assert "1" == house.served["vowels"].signature.version
        await step(newest, "bob", 0)
        assert "1" == await version_of(house, "bob")
        key = SessionKey("default", "vowels", "alice")
        assert 0 == (await newest.ask(ResetRequest(key=key))).position
        assert "1" == await version_of(house, "alice")

        shutil.rmtree(tmp_path / "vowels")
        await house.repository.follow()
        assert "vowels" not in house.served
        assert [] == house.repository.index()


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


@pytest.mark.parametrize("is_same", [False, True], ids=["another model", "the same"])
async def test_a_version_in_the_place_of_another(tmp_path, is_same, monkeypatch):
    """What is gone is served while what is new is read; one that was only renamed is, too."""
    write(tmp_path, 1)
    async with House(tmp_path) as house:
        before = house.served["vowels"]
        is_served = []
        prepare = ModelLoader.prepare

        def note_and_prepare(*given):
            is_served.append("vowels" in house.served)
            return prepare(*given)

        monkeypatch.setattr(ModelLoader, "prepare", note_and_prepare)
        shutil.rmtree(tmp_path / "vowels" / "1")
        write(tmp_path, 2, shift=0.0 if is_same else 1.0)
        await house.repository.follow()

        assert is_served[0]
        assert {("vowels", "2"): "READY"} == house.states()
        assert "2" == house.served["vowels"].signature.version
        assert 1 == (await step(before, "alice", 0)).position


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


async def test_a_loaded_version_that_changes_is_served_as_it_was(tmp_path, caplog):
    """What is new needs a new number: sessions would else go on with other weights."""
    place = write(tmp_path, 1)
    async with House(tmp_path) as house:
        before = await step(house.served["vowels"], "alice", 0)
        shutil.rmtree(place)
        write(tmp_path, 1, shift=3.0)
        await house.repository.follow()
        await house.repository.follow()

        after = await step(house.served["vowels"], "bob", 0)
        assert np.array_equal(before.outputs, after.outputs)
        assert 1 == sum("new number" in record.message for record in caplog.records)


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
