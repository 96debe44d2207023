"""Versions that come and go in a directory of models: whose sessions stay where, in which order."""

import asyncio
import gc
import shutil
import weakref
from typing import Any

import numpy as np
import pytest

from service.domain import AdvanceRequest, ResetRequest, SessionKey
from service.errors import FingerprintMismatchError
from service.models import ModelLoader
from service.repository_files import scan
from service.stores.memory import MemoryStore
from service.stores.watched import WatchedStore
from service.telemetry import Telemetry
from service.transport.v2.catalog import ServedModel
from service.transport.v2.metadata import model_statistics
from service.transport.v2.statistics import Statistics
from tests.unit.model_directory import House, X, step, version_of, write


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


async def test_a_version_that_is_being_copied_is_waited_for(tmp_path):
    """It is loaded once it is as it was at the look before, with everything that belongs to it."""
    write(tmp_path, 1)
    async with House(tmp_path) as house:
        place = write(tmp_path, 2, shift=1.0)
        whole = (place / "model.keras").read_bytes()
        (place / "model.keras").write_bytes(whole[:3000])
        shutil.rmtree(tmp_path / "vowels" / "1")
        await house.repository.follow(settled_only=True)
        (place / "model.keras").write_bytes(whole)
        await house.repository.follow(settled_only=True)
        (place / "model.yaml").write_text("labels: [a, b, c, d, e, f, g, h, i]")
        await house.repository.follow(settled_only=True)

        assert {("vowels", "1"): "READY", ("vowels", "2"): "LOADING"} == house.states()
        assert "1" == house.served["vowels"].signature.version
        await house.repository.follow(settled_only=True)
        assert {("vowels", "2"): "READY"} == house.states()
        assert tuple("abcdefghi") == house.served["vowels"].signature.labels


def test_a_model_behind_a_link_is_seen_to_change(tmp_path):
    """What is still copied to where a directory called model leads is not loaded yet."""
    written = tmp_path / "elsewhere" / "variables"
    written.mkdir(parents=True)
    repository = tmp_path / "repository"
    version = repository / "vowels" / "1"
    version.mkdir(parents=True)
    (version / "model").symlink_to(written.parent)
    before = scan(repository)
    (written / "variables.data").write_bytes(b"half")
    between = scan(repository)
    (written / "variables.data").write_bytes(b"half, and the other half")
    assert 3 == len({str(found) for found in (before, between, scan(repository))})


def test_a_link_that_leads_nowhere_hides_no_model(tmp_path):
    """Nor one to itself."""
    version = write(tmp_path, 1)
    (version / "gone").symlink_to(tmp_path / "gone")
    (version / "itself").symlink_to(version / "itself")
    assert ["1"] == list(scan(tmp_path)["vowels"])


async def test_hidden_directories_are_no_models(tmp_path):
    """A volume of Kubernetes has its files behind one, and a checkout its history."""
    write(tmp_path, 1, name="..2026_11_28")
    (tmp_path / "..data").symlink_to("..2026_11_28")
    (tmp_path / "vowels").symlink_to("..data")
    async with House(tmp_path) as house:
        assert {("vowels", "1"): "READY"} == house.states()
