"""`lstm-service sessions` and `lstm-service store` on an embedded store, and on one with damage."""

import asyncio
import io
import json
import time

import pytest

from service.__main__ import main
from service.commands import run as run_module
from service.stores.embedded import EmbeddedStore
from tests.integration.small_service import StoreWithDamage
from tests.integration.stores_on_disk import Commands, commit, fill, key, record


@pytest.fixture
def directory(tmp_path):
    """A data directory with three sessions of two models, one of which has ended."""
    directory = tmp_path / "data"
    ended = record(8, epoch=11, ttl_s=5.0, touched_at=time.time() - 60)
    sessions = {key("alice"): record(6, ttl_s=3600.0), key("bob"): record(7), key("eve"): ended}
    fill(directory, sessions | {key("alice", "words"): record(9, epoch=12)})
    return directory


@pytest.fixture
def command(directory, capsys):
    """The command line on that directory."""
    return Commands(directory, capsys)


@pytest.fixture
def damaged(monkeypatch, capsys):
    """The command line on a store with a good and a damaged session."""
    store = StoreWithDamage(key("broken"))
    asyncio.run(commit(store, {key("alice"): record()}))
    monkeypatch.setattr(run_module, "build_store", lambda *_, **__: store)
    return Commands("/", capsys)


def test_list_tells_where_sessions_are_and_when_they_end(command):
    """For people a table, with what has ended marked."""
    status, out, _ = command("sessions", "list")

    lines = out.splitlines()
    assert (0, 5) == (status, len(lines))
    assert ["MODEL", "CLIENT", "ID", "POSITION"] == lines[0].split()[:4]
    (eve,) = [line for line in lines if "eve" in line]
    assert ["net", "eve", "8", "11"] == eve.split()[:4]
    assert eve.endswith("ended")
    (alice,) = [line for line in lines if line.startswith("net") and "alice" in line]
    assert "live, until 20" in alice


def test_list_writes_json_lines_for_programs(command):
    """One object a session, of one model if asked for, and no more than asked for."""
    status, out, _ = command("sessions", "list", "--json", "--model", "words")
    assert 0 == status
    (line,) = out.splitlines()
    session = json.loads(line)
    assert ("words", "alice", 9, 12, None, "live") == tuple(
        session[name] for name in ("model", "client_id", "position", "epoch", "ttl_s", "state")
    )
    assert 2 == len(command("sessions", "list", "--json", "--limit", "2")[1].splitlines())


def test_show_tells_all_of_a_session(command):
    """Its life, its end, and how large its state is."""
    status, out, _ = command("sessions", "show", "net", "alice")
    shown = dict(line.split(":", 1) for line in out.splitlines())
    assert (0, "6", "9", "3600.0") == (
        status,
        *(shown[name].strip() for name in ("position", "epoch", "ttl_s")),
    )
    shown = json.loads(command("sessions", "show", "net", "bob", "--json")[1])
    assert ("live", 8, 2, [True], None) == tuple(
        shown[name] for name in ("state", "state_size", "replays", "has_output", "expires_at")
    )
    assert 11.83 == pytest.approx(shown["state_norm"], abs=0.01)


def test_show_of_nothing_is_a_failure(command):
    """With the name of what is not there."""
    status, out, err = command("sessions", "show", "net", "nobody")
    assert (1, "") == (status, out)
    assert "net has no session 'nobody'" in err


def test_an_export_is_imported_to_the_byte(command, tmp_path, capsys):
    """Epoch, position, replays and time to live survive; again, it changes nothing."""
    file, again = tmp_path / "backup.jsonl", tmp_path / "again.jsonl"
    status, _, err = command("sessions", "export", file)
    assert (0, "exported 4 sessions, 0 of them damaged\n") == (status, err)
    assert 0o600 == file.stat().st_mode & 0o777
    other = Commands(tmp_path / "other", capsys)
    status, _, err = other("sessions", "import", file)
    assert (0, "imported 4 sessions; there just so: 0; not taken: 0\n") == (status, err)
    assert 0 == other("sessions", "export", again)[0]
    assert sorted(file.read_bytes().splitlines()) == sorted(again.read_bytes().splitlines())
    status, _, err = other("sessions", "import", file)
    assert (0, "imported 0 sessions; there just so: 4; not taken: 0\n") == (status, err)
    assert {"backup.jsonl", "again.jsonl", "data", "other"} == {p.name for p in tmp_path.iterdir()}


def test_an_export_goes_through_a_pipe(directory, tmp_path, capfdbinary, monkeypatch):
    """Standard output to standard input, of one model."""
    assert 0 == main(["sessions", "export", "--model", "words", "--data-dir", str(directory)])
    exported = capfdbinary.readouterr().out
    (line,) = exported.splitlines()
    assert ("words", "alice", 9, 12) == tuple(
        json.loads(line)[name] for name in ("model", "client_id", "position", "epoch")
    )
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(exported)))
    assert 0 == main(["sessions", "import", "-", "--data-dir", str(tmp_path / "other")])


def test_an_import_takes_nobodys_place_unless_told_to(command, tmp_path):
    """What is there is reported, one by one, and the others are taken."""
    file = tmp_path / "backup.jsonl"
    command("sessions", "export", file)
    command("sessions", "delete", "net", "bob")
    fill(command.directory, {key("bob"): record(50, epoch=77)})
    status, _, err = command("sessions", "import", file)
    assert 1 == status
    assert "net/bob: there is one already; see --replace" in err
    assert "imported 0 sessions; there just so: 3; not taken: 1" in err
    assert 50 == json.loads(command("sessions", "show", "net", "bob", "--json")[1])["position"]
    assert 0 == command("sessions", "import", "--replace", file)[0]
    assert 7 == json.loads(command("sessions", "show", "net", "bob", "--json")[1])["position"]


def test_an_ended_session_makes_room(command, tmp_path):
    """There is nothing in it to be lost."""
    file = tmp_path / "backup.jsonl"
    fill(tmp_path / "other", {key("eve"): record(3)})
    assert 0 == main(["sessions", "export", str(file), "--data-dir", str(tmp_path / "other")])
    assert 0 == command("sessions", "import", file)[0]
    assert 3 == json.loads(command("sessions", "show", "net", "eve", "--json")[1])["position"]


def test_bad_lines_are_named_and_the_others_taken(command, tmp_path, capsys):
    """By number, with the reason; nothing of them is taken."""
    file = tmp_path / "backup.jsonl"
    command("sessions", "export", file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    bad = {
        1: b"{",
        2: b"[]",
        3: json.dumps(lines[0] | {"client_id": "a/b"}).encode(),
        4: json.dumps(lines[0] | {"client_id": "mallory"}).encode(),
        5: json.dumps(lines[0] | {"record": "!"}).encode(),
        6: json.dumps(lines[0] | {"record": None}).encode(),
        7: json.dumps(lines[0] | {"position": 5}).encode(),
        8: json.dumps({"tenant": "default", "model": "net"}).encode(),
        9: b"\xff\xfe",
        12: json.dumps(lines[1]).encode()[:-40],
    }
    reasons = {
        1: "not JSON",
        2: "not a JSON object",
        3: "client_id: expected a name",
        4: "net/mallory: record: the checksum does not fit",
        5: "record: ",
        6: "record: expected base64",
        7: "position is 5, but",
        8: "client_id: expected a name",
        9: "not JSON",
        12: "not JSON",
    }
    good = {11: json.dumps(lines[0]).encode()}
    content = [({10: b""} | bad | good)[number] for number in range(1, 13)]
    file.write_bytes(b"\n".join(content))
    status, _, err = Commands(tmp_path / "other", capsys)("sessions", "import", file)
    assert 1 == status
    told = err.splitlines()
    assert "imported 1 session; there just so: 0; not taken: 10" == told[-1]
    for (number, reason), line in zip(reasons.items(), told, strict=False):
        assert line.startswith(f"line {number}: ")
        assert reason in line


def test_delete_ends_sessions(command):
    """Those that are not there are named, and the others end."""
    status, _, err = command("sessions", "delete", "net", "alice", "nobody", "eve", "alice")
    assert 1 == status
    assert "net has no session 'nobody'\nended 2 sessions\n" == err
    left = [json.loads(line) for line in command("sessions", "list", "--json")[1].splitlines()]
    assert {("net", "bob"), ("words", "alice")} == {(s["model"], s["client_id"]) for s in left}


def test_many_sessions_are_more_than_a_page(tmp_path, capsys):
    """Each comes once, there and back."""
    directory, file = tmp_path / "data", tmp_path / "backup.jsonl"
    fill(directory, {key(f"c{index}"): record(index + 2) for index in range(600)})
    assert 0 == Commands(directory, capsys)("sessions", "export", file)[0]
    other = Commands(tmp_path / "other", capsys)
    assert "imported 600 sessions" in other("sessions", "import", file)[2]
    names = [f"c{index}" for index in range(600)]
    assert "ended 600 sessions\n" == other("sessions", "delete", "net", *names)[2]


def test_an_import_is_bounded_as_the_service_is(command, tmp_path, capsys, monkeypatch):
    """What finds no room is told, with the setting."""
    file = tmp_path / "backup.jsonl"
    command("sessions", "export", file)
    monkeypatch.setenv("LSTM_MAX_SESSIONS", "3")
    status, _, err = Commands(tmp_path / "other", capsys)("sessions", "import", file)
    assert 1 == status
    assert "there are as many sessions as may be, see LSTM_MAX_SESSIONS" in err
    assert "imported 3 sessions" in err


def test_damage_is_told_and_exported_as_it_is(damaged, tmp_path):
    """Marked as damage, with its bytes; it cannot be imported, but ended."""
    assert "damaged: the checksum does not fit" in damaged("sessions", "list")[1]
    status, out, _ = damaged("sessions", "show", "net", "broken", "--json")
    assert (1, "damaged", 5) == (status, json.loads(out)["state"], json.loads(out)["bytes"])
    file = tmp_path / "backup.jsonl"
    status, _, err = damaged("sessions", "export", file)
    assert 1 == status
    assert "net/broken: damaged: the checksum does not fit" in err
    assert "exported 2 sessions, 1 of them damaged" in err
    line = json.loads(file.read_text().splitlines()[1])
    assert ("the checksum does not fit", "TFNUTT8=") == (line["damaged"], line["record"])
    status, _, err = damaged("sessions", "import", file)
    assert 1 == status
    assert "line 2: net/broken was damaged when it was exported" in err
    assert 0 == damaged("sessions", "delete", "net", "broken")[0]
    assert 0 == damaged("sessions", "export", file)[0]


def test_an_export_that_fails_leaves_the_last_one(damaged, tmp_path, monkeypatch):
    """A file is whole, or as it was."""
    file = tmp_path / "backup.jsonl"
    file.write_text("the last one")

    async def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(StoreWithDamage, "load_many", fail)
    assert (2, "", "lstm-service: the disk is gone\n") == damaged("sessions", "export", file)
    assert ["the last one"] == [path.read_text() for path in tmp_path.iterdir()]


def test_a_store_in_use_is_told(command, directory):
    """The embedded store belongs to one process at a time."""
    store = EmbeddedStore(directory, max_sessions=10)
    with asyncio.Runner() as runner:
        runner.run(store.open())
        status, _, err = command("sessions", "list")
        runner.run(store.close())
    assert 2 == status
    assert "is in use by process" in err
    assert 0 == command("sessions", "list")[0]


def test_a_directory_without_a_store_is_not_made(tmp_path, capsys):
    """A mistyped name is no empty store; an import may make one."""
    directory = tmp_path / "typo"
    status, _, err = Commands(directory, capsys)("sessions", "list")
    assert 2 == status
    assert f"there is no store in {directory}" in err
    assert not directory.exists()


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("memory", "its sessions are in their server's process only"),
        ("nonsense", "--store: "),
        ("redis://127.0.0.1:1", "the session store is not available"),
    ],
)
def test_a_store_that_cannot_be_used_is_told(command, store, expected):
    """With the reason, and the status of an error of usage."""
    status, out, err = command("sessions", "list", "--json", "--store", store)
    assert (2, "") == (status, out)
    assert expected in err
    assert "Traceback" not in err


def test_the_embedded_store_needs_no_setting_up(command):
    """It is said, and nothing is done."""
    status, out, _ = command("store", "init")
    assert (0, "there is nothing to do: only a Redis needs to be set up\n") == (status, out)


class LosableStore(StoreWithDamage):
    """A store that has lost its sessions, until somebody says that it is so."""

    is_lost = True

    async def initialise(self):
        """Accept the loss."""
        was_lost, self.is_lost = self.is_lost, False
        return was_lost


def test_a_loss_is_accepted_once(monkeypatch, capsys):
    """The second time there is nothing to do."""
    store = LosableStore()
    monkeypatch.setattr(run_module, "build_store", lambda *_, **__: store)
    command = Commands("/", capsys)
    assert (
        "the store is set up; if it had lost sessions, that is accepted\n"
        == command("store", "init")[1]
    )
    assert "there is nothing to do: the store is set up" in command("store", "init")[1]
