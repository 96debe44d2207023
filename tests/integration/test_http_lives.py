"""How sessions begin and end over HTTP: times to live, forks, and what cannot be read."""

import json

import pytest
from websockets.exceptions import ConnectionClosed

from lstm_core.network import Network
from service.domain import SessionKey
from service.errors import (
    LostUpdateError,
    ModelUnknownError,
    StoreLostError,
    StoreUnavailableError,
)
from service.opening import Lifetimes
from service.served import ServedModels
from service.stores.memory import MemoryStore
from service.transport import replies
from tests.integration.small_service import (
    StoreWithDamage,
    X,
    lstm,
    make_app,
    make_engine,
    make_engines,
    streaming,
)
from tests.integration.stream_service import serving_live

ALICE = "/v1/sessions/alice"
STEP = {"inputs": X[0]}


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        """Return the seconds since 1970."""
        return self.now


@pytest.fixture
def clock():
    """The service's clock."""
    return Clock()


def app_with(clock, store=None, **lifetimes):
    """Return an application whose one model's sessions are in `store`."""
    lives = Lifetimes(**lifetimes)
    store = store or MemoryStore(50, clock=clock)
    engine = make_engine("net", streaming(), store=store, lifetimes=lives, clock=clock)
    return make_app({"net": engine})


@pytest.fixture
async def client(clock, serving):
    """A client of a running service."""
    async with serving(app_with(clock)) as client:
        yield client


def problem(answer):
    """Return the status and the code of a problem document."""
    replies.ProblemDocument.model_validate_json(answer.content)
    return answer.status_code, answer.json()["code"]


async def test_a_reset_may_say_how_long_the_session_lives(client):
    """The session document shows it, as it shows that there is no end."""
    await client.post(f"{ALICE}/step", json=STEP)
    assert (await client.get(ALICE)).json()["ttl_s"] is None
    await client.post(f"{ALICE}/reset_states", json={"ttl_s": 60})
    session = await client.get(ALICE)
    assert 60 == replies.SessionDocument.model_validate_json(session.content).ttl_s


async def test_a_default_time_to_live_is_shown(clock, serving):
    """By GET, and by the answer to an import, which begins a life of the default length."""
    async with serving(app_with(clock, ttl_s=120.0)) as client:
        await client.post(f"{ALICE}/reset_states", json={"ttl_s": 60})
        export = (await client.get(f"{ALICE}/state")).content
        put = await client.put(f"{ALICE}/state", content=export)
        assert [120, 120] == [put.json()["ttl_s"], (await client.get(ALICE)).json()["ttl_s"]]


async def test_a_session_whose_time_is_over_says_so(client, clock):
    """410 to whatever needs its state, until it begins anew."""
    await client.post(f"{ALICE}/reset_states", json={"ttl_s": 60})
    clock.now += 59
    assert 200 == (await client.post(f"{ALICE}/step", json=STEP)).status_code
    clock.now += 61
    for answer in (
        await client.post(f"{ALICE}/step", json=STEP),
        await client.post(f"{ALICE}/step", json=STEP | {"position": 0}),
        await client.post(f"{ALICE}/sequence", json={"inputs": X}),
        await client.post(f"{ALICE}/fork", json={"client_id": "bob"}),
        await client.get(ALICE),
        await client.get(f"{ALICE}/state"),
    ):
        assert (410, "session_expired") == problem(answer)
        assert "60 s" in answer.json()["detail"]
    row = {"client_ids": ["alice"], "inputs": [X[0]]}
    errors = (await client.post("/v1/steps", json=row)).json()["errors"]
    assert "session_expired" == errors[0]["code"]
    assert [] == (await client.get("/v1/sessions")).json()["sessions"]
    assert 200 == (await client.post(f"{ALICE}/reset_states")).status_code
    assert 200 == (await client.post(f"{ALICE}/step", json=STEP)).status_code


async def test_a_stream_of_a_session_whose_time_is_over_is_closed_with_4410(clock):
    """After an error frame with the same code as over HTTP."""
    async with serving_live(app_with(clock)) as live:
        await live.http.post(f"{ALICE}/reset_states", json={"ttl_s": 60})
        clock.now += 61
        async with live.stream() as stream:
            assert "session_expired" == json.loads(await stream.recv())["code"]
            with pytest.raises(ConnectionClosed) as closed:
                await stream.recv()
    assert closed.value.rcvd is not None
    assert 4410 == closed.value.rcvd.code


async def test_a_fork_goes_its_own_way_from_the_same_state(client):
    """At the same position, in another epoch, and neither disturbs the other."""
    await client.post(f"{ALICE}/reset_states", json={"ttl_s": 60})
    await client.post(f"{ALICE}/step", json=STEP)
    for base, copy in ((ALICE, "short"), ("/v1/models/net/sessions/alice", "long")):
        fork = await client.post(f"{base}/fork", json={"client_id": copy})
        document = replies.SessionDocument.model_validate_json(fork.content)
        alice = (await client.get(ALICE)).json()
        assert (201, copy, 1, 60) == (
            fork.status_code,
            document.client_id,
            document.position,
            document.ttl_s,
        )
        assert alice["epoch"] != document.epoch
        where = fork.url.join(fork.headers["location"])
        assert fork.content == (await client.get(where)).content
    outputs = [
        (await client.post(f"/v1/sessions/{name}/step", json={"inputs": X[1]})).json()["outputs"]
        for name in ("short", "alice", "long")
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert 2 == (await client.get(ALICE)).json()["position"]


async def test_a_fork_takes_nobodys_place(client):
    """The target must not exist, not even as the session itself; the origin must."""
    await client.post(f"{ALICE}/step", json=STEP)
    await client.post("/v1/sessions/bob/step", json=STEP)
    bob = (await client.get("/v1/sessions/bob/state")).content
    for target in ("bob", "alice"):
        answer = await client.post(f"{ALICE}/fork", json={"client_id": target})
        assert (409, "session_exists") == problem(answer)
    assert bob == (await client.get("/v1/sessions/bob/state")).content
    answer = await client.post("/v1/sessions/nobody/fork", json={"client_id": "copy"})
    assert (404, "session_unknown") == problem(answer)


async def test_a_damaged_session_begins_anew_only_on_purpose(clock, serving):
    """500 that says so, until a reset, an import or its end."""
    keys = [SessionKey("default", "net", name) for name in ("alice", "bob")]
    async with serving(app_with(clock, StoreWithDamage(*keys))) as client:
        for answer in (
            await client.post(f"{ALICE}/step", json=STEP),
            await client.get(ALICE),
            await client.post(f"{ALICE}/fork", json={"client_id": "copy"}),
            await client.post(f"{ALICE}/reset_states", json={"position": 0}),
        ):
            assert (500, "session_damaged") == problem(answer)
            assert "the checksum does not fit" in answer.json()["detail"]
        assert 200 == (await client.post(f"{ALICE}/reset_states")).status_code
        assert 200 == (await client.post(f"{ALICE}/step", json=STEP)).status_code
        assert 204 == (await client.delete("/v1/sessions/bob")).status_code
        assert (404, "session_unknown") == problem(await client.get("/v1/sessions/bob"))


class FailingStore(MemoryStore):
    """A store that fails."""

    def __init__(self, error):
        super().__init__(50)
        self.error = error

    async def load_many(self, *_):
        """Fail."""
        raise self.error

    async def list_sessions(self, *_):
        """Fail."""
        raise self.error


@pytest.mark.parametrize("error", [StoreUnavailableError("no answer"), StoreLostError()])
async def test_a_store_that_fails_is_told_with_a_time_to_come_again(clock, error, serving):
    """503 for one session and for the list, as for every other reason to wait."""
    async with serving(app_with(clock, FailingStore(error))) as client:
        answers = [
            await client.post(f"{ALICE}/step", json=STEP),
            await client.post(f"{ALICE}/reset_states"),
            await client.post(f"{ALICE}/fork", json={"client_id": "bob"}),
            await client.get("/v1/sessions"),
        ]
    for answer in answers:
        assert (503, error.code) == problem(answer)
        assert "1" == answer.headers["retry-after"]


async def test_lost_steps_are_a_conflict(clock, serving):
    """Whatever comes next to the session is told."""
    async with serving(app_with(clock, FailingStore(LostUpdateError("alice")))) as client:
        answer = await client.post(f"{ALICE}/step", json=STEP)
    assert (409, "lost_update") == problem(answer)


@pytest.mark.parametrize("form", ["application/json", "application/x-safetensors"])
async def test_a_state_of_an_earlier_version_has_that_versions_sizes(serving, form):
    """With an answer, in an export, and back again, whoever took the step."""
    store = MemoryStore(50)
    earlier = make_engine("net", streaming(), store=store, is_alone=False)
    network = Network("net", 3, (lstm(seed=3, units=2),))
    current = make_engine("net", network, store=store, version="2", is_alone=False)
    served = ServedModels({"net": earlier})
    async with serving(make_app(served)) as client:
        await client.post(f"{ALICE}/step", json=STEP)
        await current.start()
        served.serve("net", current)

        answer = await client.post(f"{ALICE}/step", json=STEP | {"return_state": True})
        exported = await client.get(f"{ALICE}/state", headers={"accept": form})
        assert 200 == exported.status_code, exported.text
        await client.post(f"{ALICE}/reset_states")
        headers = {"content-type": form}
        back = await client.put(f"{ALICE}/state", content=exported.content, headers=headers)
        state = (await client.get(f"{ALICE}/state")).json()

    assert [5, 5] == [len(vector) for vector in answer.json()["states"]]
    assert (200, earlier.signature.fingerprint) == (back.status_code, back.json()["fingerprint"])
    assert answer.json()["states"] == state["states"]


async def test_the_short_form_of_a_model_that_is_unloaded_is_no_other_models(serving):
    """Nobody's session goes to another model, also over a connection that knew the first one."""
    served = ServedModels(make_engines())
    async with serving(make_app(served)) as client:
        step = f"{ALICE}/step"
        assert [200] * 2 == [(await client.post(step, json=STEP)).status_code for _ in range(2)]
        engine = served.drop("net")
        engine.refuse(ModelUnknownError("net", list(served)))
        await engine.drain()

        paths = (step, f"/v1/models/net{step[3:]}")
        answers = [await client.post(path, json=STEP) for path in paths]
        assert [(404, "model_unknown")] * 2 == [(a.status_code, a.json()["code"]) for a in answers]
        models = (await client.get("/v1/models")).json()
        assert ["both", "words"] == [model["name"] for model in models["models"]]
        assert "net" == models["default"]
        assert 200 == (await client.get("/readyz")).status_code
