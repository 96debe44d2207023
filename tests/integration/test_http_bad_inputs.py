"""Every bad input over HTTP: status, code, what the message says, and that nothing was applied."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.small_service import X, make_app

SESSION = "/v1/sessions/alice"
STEP_CASES = {
    "too short": ('{"inputs": [1, 2]}', "inputs: expected 3 numbers, got 2"),
    "too long": ('{"inputs": [1, 2, 3, 4]}', "inputs: expected 3 numbers, got 4"),
    "empty": ('{"inputs": []}', "inputs: expected 3 numbers, got 0"),
    "rank 0": ('{"inputs": 1}', "inputs: expected an array, got 1"),
    "rank 2": ('{"inputs": [[1, 2, 3]]}', "inputs.0: expected a number, got an array of 3"),
    "object": ('{"inputs": {"0": 1}}', "inputs: expected an array, got an object"),
    "string": ('{"inputs": [1, 2, "1.5"]}', 'inputs.2: expected a number, got the string "1.5"'),
    "boolean": ('{"inputs": [1, true, 3]}', "inputs.1: expected a number, got true"),
    "null": ('{"inputs": [1, null, 3]}', "inputs.1: expected a number, got null"),
    "null inputs": ('{"inputs": null}', "inputs: expected an array, got null"),
    "NaN": ('{"inputs": [NaN, 2, 3]}', "inputs.0: expected a finite number within float32"),
    "infinity": ('{"inputs": [1, -Infinity, 3]}', "got -Infinity"),
    "1e999": ('{"inputs": [1, 2, 1e999]}', "expected a finite number within float32"),
    "1e39": ('{"inputs": [1, 2, 1e39]}', "inputs.2: expected a number within float32, got 1e+39"),
    "-1e39": ('{"inputs": [1, 2, -1e39]}', "within float32, got -1e+39"),
    "rounds up": ('{"inputs": [1, 2, 3.4028235677973366e38]}', "within float32"),
    "huge integer": ('{"inputs": [1, 2, 1%s]}' % ("0" * 400), "inputs.2: expected a"),
    "position string": ('{"inputs": [1, 2, 3], "position": "3"}', "position: expected an integer"),
    "position 3.5": ('{"inputs": [1, 2, 3], "position": 3.5}', "expected an integer, got 3.5"),
    "position 3.0": ('{"inputs": [1, 2, 3], "position": 3.0}', "expected an integer, got 3.0"),
    "position true": ('{"inputs": [1, 2, 3], "position": true}', "expected an integer, got true"),
    "position -1": ('{"inputs": [1, 2, 3], "position": -1}', "expected an integer from 0, got -1"),
    "position 2**53": (
        '{"inputs": [1, 2, 3], "position": 9007199254740992}',
        "expected an integer below 9007199254740992",
    ),
    "epoch string": ('{"inputs": [1, 2, 3], "epoch": "x"}', "epoch: expected an integer"),
    "flag": ('{"inputs": [1, 2, 3], "return_state": 1}', "return_state: expected true or false"),
    "unknown field": ('{"inputs": [1, 2, 3], "mask": [true]}', "mask: unknown field; known are"),
    "missing": ("{}", "inputs: missing"),
    "twice": ('{"inputs": [1, 2, 3], "inputs": [1, 2, 3]}', "inputs: given twice"),
    "array": ("[1, 2, 3]", "expected an object, got an array of 3"),
    "string body": ('"x"', "expected an object, got the string"),
    "null body": ("null", "expected an object, got null"),
    "no body": ("", "not valid JSON: EOF"),
    "not JSON": ("{inputs: 1}", "not valid JSON"),
    "trailing comma": ('{"inputs": [1, 2, 3,]}', "not valid JSON: trailing comma"),
    "trailing text": ('{"inputs": [1, 2, 3]} x', "not valid JSON: trailing characters"),
    "cut off": ('{"inputs": [1, 2', "not valid JSON: EOF"),
    "not UTF-8": (b'{"inputs": "\xff\xfe"}', ""),
    "UTF-16": ('{"inputs": [1, 2, 3]}'.encode("utf-16"), "not valid JSON"),
    "deep": ("[" * 10_000, "not valid JSON: recursion limit"),
    "deeper": ("[" * 100_000, "got 100000 arrays, objects and strings"),
    "deep inputs": ('{"inputs": ' + "[" * 10_000 + "]" * 10_000 + "}", "recursion limit"),
    "many": ('{"inputs": [' + '"x", ' * 10_000 + "1]}", "inputs.0: expected a number"),
    "megabytes": (
        '{"inputs": [' + '"x", ' * 500_000 + "1]}",
        "expected a body of few arrays and strings, got 500003 arrays, objects and strings",
    ),
}
SEQUENCE_CASES = {
    "empty": ('{"inputs": []}', "inputs: expected at least one time step, got an empty array"),
    "rank 1": ('{"inputs": [1, 2, 3]}', "inputs.0: expected an array, got 1"),
    "rank 3": ('{"inputs": [[[1, 2, 3]]]}', "inputs.0.0: expected a number, got an array of 3"),
    "ragged": ('{"inputs": [[1, 2, 3], [1, 2]]}', "inputs.1: expected 3 numbers, got 2"),
    "empty step": ('{"inputs": [[]]}', "inputs.0: expected 3 numbers, got 0"),
    "string": ('{"inputs": [[1, 2, 3], [1, "1.5", 3]]}', "inputs.1.1: expected a number"),
    "NaN late": ('{"inputs": [[1, 2, 3], [4, 5, NaN]]}', "inputs.1.2: expected a finite number"),
    "too many": (json.dumps({"inputs": [X[0]] * 51}), "expected at most 50 time steps, got 51"),
    "long mask": (
        '{"inputs": [[1, 2, 3]], "mask": [true, false]}',
        "mask: expected 1 values, one a time step, got 2",
    ),
    "short mask": ('{"inputs": [[1, 2, 3]], "mask": []}', "mask: expected 1 values"),
    "mask numbers": ('{"inputs": [[1, 2, 3]], "mask": [1]}', "mask.0: expected true or false"),
    "mask null": ('{"inputs": [[1, 2, 3]], "mask": [null]}', "mask.0: expected true or false"),
    "mask string": ('{"inputs": [[1, 2, 3]], "mask": "yes"}', "mask: expected an array"),
    "mask rank": ('{"inputs": [[1, 2, 3]], "mask": [[true]]}', "mask.0: expected true or false"),
}
RESET_CASES = {
    "too few": ('{"states": [[1, 2, 3, 4, 5]]}', "states: expected 2 vectors (h of lstm, c of"),
    "length": ('{"states": [[1], [1, 2, 3, 4, 5]]}', "states.0: expected 5 numbers, got 1"),
    "NaN": ('{"states": [[NaN, 2, 3, 4, 5], [1, 2, 3, 4, 5]]}', "states.0.0: expected a finite"),
    "flat": ('{"states": [1, 2]}', "states.0: expected an array"),
    "ttl 0": ('{"ttl_s": 0}', "ttl_s: expected a number over 0, got 0"),
    "ttl -1": ('{"ttl_s": -1.5}', "ttl_s: expected a number over 0, got -1.5"),
    "ttl forever": ('{"ttl_s": 1e10}', "ttl_s: expected a number of at most 315360000, got 1"),
    "ttl infinity": ('{"ttl_s": 1e999}', "ttl_s: expected a finite number"),
    "ttl NaN": ('{"ttl_s": NaN}', "ttl_s: expected a finite number"),
    "ttl string": ('{"ttl_s": "5"}', "ttl_s: expected a number, got the string"),
    "ttl flag": ('{"ttl_s": true}', "ttl_s: expected a number, got true"),
    "array": ("[]", "expected an object"),
}
GOOD_STATES = '"states": [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]'
IMPORT_CASES = {
    "no position": (f"{{{GOOD_STATES}}}", "position: missing"),
    "no states": ('{"position": 1}', "states: missing"),
    "position": (f'{{"position": -1, {GOOD_STATES}}}', "position: expected an integer from 0"),
    "flags": (
        f'{{"position": 1, "has_output": [true, true], {GOOD_STATES}}}',
        "has_output: expected 1 values, one a recurrent layer, got 2",
    ),
    "flag": (f'{{"position": 1, "has_output": [1], {GOOD_STATES}}}', "has_output.0: expected true"),
    "fingerprint": (f'{{"position": 1, "fingerprint": 5, {GOOD_STATES}}}', "expected a string"),
    "twice beside a null": (
        f'{{"position": 1, "position": 2, "fingerprint": null, {GOOD_STATES}}}',
        "position: given twice",
    ),
    "beyond float32": ('{"position": 1, "states": [[1e39], [1]]}', "within float32"),
}
FORK_CASES = {
    "empty": ("{}", "client_id: missing"),
    "no body": ("", "not valid JSON: EOF"),
    "number": ('{"client_id": 5}', "client_id: expected a string, got 5"),
    "name": ('{"client_id": "a/b"}', "client_id: expected 1 to 128 characters"),
    "empty name": ('{"client_id": ""}', "got an empty one"),
    "dots": ('{"client_id": ".."}', "not . or .."),
    "position": ('{"client_id": "bob", "position": 1}', "position: unknown field"),
    "twice": ('{"client_id": "bob", "client_id": "eve"}', "client_id: given twice"),
}
CASES = [
    (method, path, name, body, expected)
    for method, path, cases in (
        ("POST", "step", STEP_CASES),
        ("POST", "sequence", SEQUENCE_CASES),
        ("POST", "reset_states", RESET_CASES),
        ("PUT", "state", IMPORT_CASES),
        ("POST", "fork", FORK_CASES),
    )
    for name, (body, expected) in cases.items()
]


class Service:
    """A running service with one session, in an event loop that tests share."""

    def __init__(self, serving):
        self.runner = asyncio.Runner()
        self.app = make_app(max_sequence_steps=50, max_body_bytes=4_000_000)
        self.context = serving(self.app)
        self.client = self.runner.run(self.context.__aenter__())
        self.request("POST", f"{SESSION}/step", json={"inputs": X[0]})
        self.exported = self.state()

    def request(self, method, path, **options):
        """Send a request and return the answer."""
        return self.runner.run(self.client.request(method, path, **options))

    def state(self):
        """Return the session's export, as bytes."""
        return self.request("GET", f"{SESSION}/state").content

    def close(self):
        """Stop."""
        self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def service(serving):
    """One service for all: a bad input must not change it."""
    service = Service(serving)
    yield service
    service.close()


def assert_problem(answer, status, code, expected=""):
    """Check a problem document."""
    assert status == answer.status_code
    assert "application/problem+json" == answer.headers["content-type"]
    problem = answer.json()
    assert (status, code) == (problem["status"], problem["code"])
    assert expected in problem["detail"]
    assert len(answer.content) < 4_000
    assert answer.headers["x-request-id"] == problem["request_id"]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [(method, path, body, expected) for method, path, _, body, expected in CASES],
    ids=[f"{path}-{name}" for _, path, name, _, _ in CASES],
)
def test_a_bad_body_changes_nothing(service, method, path, body, expected):
    """It is a 422 that says what was expected and what came."""
    content = body if isinstance(body, bytes) else body.encode()
    answer = service.request(method, f"{SESSION}/{path}", content=content)
    assert_problem(answer, 422, "invalid_request", expected)
    assert service.exported == service.state()


@pytest.mark.parametrize(
    ("client_id", "expected"),
    [
        ("", "got an empty one"),
        ("%2E", 'got the string "."'),
        ("%2E%2E", 'got the string ".."'),
        ("a%2Fb", 'got the string "a/b"'),
        ("a%20b", 'got the string "a b"'),
        ("x" * 129, "got 129 characters"),
        ("%C3%BC", "got the string"),
        ("%FF", "got the string"),
        ("%00", "got the string"),
        ("a%0A", "got the string"),
        ("%25", 'got the string "%"'),
    ],
)
@pytest.mark.parametrize(
    ("method", "template"),
    [
        ("POST", "/v1/sessions/{}/step"),
        ("POST", "/v1/models/net/sessions/{}/sequence"),
        ("GET", "/v1/sessions/{}"),
        ("PUT", "/v1/sessions/{}/state"),
    ],
)
def test_a_bad_client_id_is_told(service, method, template, client_id, expected):
    """After percent-decoding, and never as a path that leads nowhere."""
    url = service.client.base_url.copy_with(raw_path=template.format(client_id).encode())
    answer = service.request(method, url, json={"inputs": X[0]})
    assert_problem(answer, 422, "invalid_request", expected)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"inputs": []}, "inputs: expected at least one sequence"),
        ({"inputs": [[]]}, "inputs.0: expected at least one time step"),
        ({"inputs": [X, X[:2]]}, "inputs.1: expected 3 time steps as in the first sequence, got 2"),
        ({"inputs": [[[1, 2]]]}, "inputs.0.0: expected 3 numbers, got 2"),
        ({"inputs": [X], "mask": [[True]]}, "mask.0: expected 3 values"),
        ({"inputs": [X], "mask": []}, "mask: expected 1 rows, got 0"),
        ({"inputs": [[X[0]] * 51]}, "at most 50 time steps in all sequences together, got 51"),
        ({"inputs": [X] * 17}, "at most 50 time steps in all sequences together, got 51"),
    ],
)
def test_a_bad_batch_is_told(service, body, expected):
    """Predict is as strict as the sessions are."""
    answer = service.request("POST", "/v1/predict", json=body)
    assert_problem(answer, 422, "invalid_request", expected)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([7], "inputs.0: expected an integer from 0 to 6, got 7"),
        ([1.0], "inputs.0: expected an integer, got 1.0"),
        ([1, 2], "inputs: expected 1 integer, got 2"),
    ],
)
def test_a_bad_word_is_told(service, inputs, expected):
    """An embedding takes one integer of its vocabulary a step."""
    path = "/v1/models/words/sessions/alice/step"
    assert_problem(
        service.request("POST", path, json={"inputs": inputs}), 422, "invalid_request", expected
    )
    assert 200 == service.request("POST", path, json={"inputs": [6]}).status_code


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{SESSION}/step?position=99", {"inputs": X[0]}),
        ("POST", f"{SESSION}/sequence?epoch=1", {"inputs": X}),
        ("POST", f"{SESSION}/reset_states?position=99", None),
        ("POST", "/v1/steps?x", {"client_ids": ["a"], "inputs": [X[0]]}),
        ("GET", f"{SESSION}/state?position=1", None),
        ("GET", "/v1/models?limit=1", None),
    ],
)
def test_a_query_where_none_is_known_is_told(service, method, path, body):
    """A precondition in the wrong place is never silently left out."""
    answer = service.request(method, path, json=body)
    assert_problem(answer, 422, "invalid_request", "nothing is known in the query string here, got")
    assert service.exported == service.state()


JSON_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["inputs", "position", "epoch", "mask", "return_state", "x"]),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
).map(lambda document: json.dumps(document).encode())


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=JSON_DOCUMENTS | st.binary(max_size=50), path=st.sampled_from(["step", "sequence"]))
def test_no_body_is_a_fault_or_a_change(service, body, path):
    """Whatever is sent, it is refused in order: no 500, and the session is where it was."""
    answer = service.request("POST", f"{SESSION}/{path}", content=body)
    assert answer.status_code in (409, 422)
    assert service.exported == service.state()
