"""The JSON documents of the REST API and the WebSocket stream: one pydantic model each.

They validate requests and feed the OpenAPI document. What depends on the loaded model (lengths, the
vocabulary) is checked in `parse`; replies are written by `render`, in the shape documented here.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.domain import CLIENT_ID_PATTERN, MAX_POSITION

FLOAT32_ROUNDING_LIMIT = 3.4028235677973366e38
"""The first real number that would become infinity as a float32."""
MAX_STEPS_ROWS = 1024
"""Most rows of one `StepsBody`."""
MAX_TTL_S = 10 * 365 * 24 * 3600.0
"""The longest time to live, ten years, in seconds."""

Real = Annotated[
    float,
    Field(gt=-FLOAT32_ROUNDING_LIMIT, lt=FLOAT32_ROUNDING_LIMIT, allow_inf_nan=False),
]
Token = Annotated[int, Field(ge=0, lt=2**24, description="An embedding's row.")]
FAIL_FAST = Field(fail_fast=True)
"""A body of a million bad numbers costs one error, not a million."""
FEW_ROWS = Field(max_length=MAX_STEPS_ROWS)
RealVector = Annotated[list[Real], FAIL_FAST]
RealMatrix = Annotated[list[RealVector], FAIL_FAST]
TokenVector = Annotated[list[Token], FAIL_FAST]
TokenMatrix = Annotated[list[TokenVector], FAIL_FAST]
BoolVector = Annotated[list[bool], FAIL_FAST]

Position = Annotated[
    int,
    Field(ge=0, lt=MAX_POSITION + 1, description="Time steps consumed in this epoch."),
]
Epoch = Annotated[
    int,
    Field(ge=0, lt=MAX_POSITION + 1, description="A random number: one life of the session."),
]
ExpectedPosition = Annotated[
    Position | None,
    Field(
        description="Where the session is expected to be. Elsewhere: 409, or the stored answer if"
        " this is a retry. Left out: anywhere."
    ),
]
ExpectedEpoch = Annotated[
    Epoch | None,
    Field(description="The life of the session that is expected; another one: 409."),
]
ReturnState = Annotated[bool, Field(description="Answer with the state after the last step too.")]
OutputIndex = Annotated[int, Field(ge=0, lt=2**31, description="Of an output.")]
ClientId = Annotated[str, Field(json_schema_extra={"pattern": CLIENT_ID_PATTERN})]
TimeToLive = Annotated[float, Field(gt=0, le=MAX_TTL_S, allow_inf_nan=False)]
Fingerprint = Annotated[
    str,
    Field(max_length=128, description="SHA-256 of the model's configuration and weights."),
]


def _strict(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(strict=True, extra="forbid", json_schema_extra={"examples": list(examples)})


class StepBody(BaseModel):
    """One time step of a session."""

    model_config = _strict(
        {"inputs": [0.12, -0.5, 0.98]},
        {"inputs": [0.12, -0.5, 0.98], "position": 41, "return_state": True},
    )
    inputs: RealVector = Field(description="`[features]`, the model's `input_size` numbers.")
    position: ExpectedPosition = None
    epoch: ExpectedEpoch = None
    return_state: ReturnState = False


class TokenStepBody(StepBody):
    """One time step of a session, for a model that begins with an embedding."""

    model_config = _strict({"inputs": [5]})
    inputs: TokenVector = Field(  # type: ignore[assignment]
        description="One integer, from 0 to the vocabulary's size."
    )


class SequenceBody(BaseModel):
    """Many time steps of a session at once."""

    model_config = _strict(
        {"inputs": [[0.12, -0.5], [0.1, -0.4]]},
        {
            "inputs": [[0.12, -0.5], [0.0, 0.0]],
            "mask": [True, False],
            "position": 0,
            "return_sequences": False,
        },
    )
    inputs: RealMatrix = Field(description="`[time][features]`, at least one time step.")
    mask: BoolVector | None = Field(
        None, description="`[time]`, false where a step keeps the state and repeats the output."
    )
    position: ExpectedPosition = None
    epoch: ExpectedEpoch = None
    return_sequences: bool = Field(
        default=True, description="Answer with every step's output, or with the last one's only."
    )
    return_state: ReturnState = False


class TokenSequenceBody(SequenceBody):
    """Many time steps of a session at once, for a model that begins with an embedding."""

    model_config = _strict({"inputs": [[5], [9], [2]]})
    inputs: TokenMatrix = Field(  # type: ignore[assignment]
        description="`[time][1]`, one integer a step."
    )


class PredictBody(BaseModel):
    """Whole sequences from zero states, without a session."""

    model_config = _strict({"inputs": [[[0.12, -0.5], [0.1, -0.4]]]})
    inputs: Annotated[list[RealMatrix], FAIL_FAST] = Field(
        description="`[batch][time][features]`; pad shorter sequences and mask the padding."
    )
    mask: Annotated[list[BoolVector], FAIL_FAST] | None = Field(
        None, description="`[batch][time]`, false where a step is padding."
    )


class TokenPredictBody(PredictBody):
    """Whole sequences from zero states, for a model that begins with an embedding."""

    model_config = _strict({"inputs": [[[5], [9], [2]]]})
    inputs: Annotated[list[TokenMatrix], FAIL_FAST] = Field(  # type: ignore[assignment]
        description="`[batch][time][1]`, one integer a step."
    )


class StepsBody(BaseModel):
    """One time step of many sessions. A bad row fails alone."""

    model_config = _strict(
        {"client_ids": ["pump-1", "pump-2"], "inputs": [[0.1, 0.2], [0.3, 0.4]]},
        {"client_ids": ["pump-1"], "inputs": [[0.1, 0.2]], "positions": [7]},
    )
    client_ids: Annotated[list[ClientId], FAIL_FAST, FEW_ROWS] = Field(
        description="`[rows]`, all different; the later of two equal ones fails."
    )
    inputs: Annotated[RealMatrix, FEW_ROWS] = Field(description="`[rows][features]`.")
    positions: Annotated[list[Position | None], FAIL_FAST, FEW_ROWS] | None = Field(
        None, description="`[rows]`, where each session is expected to be; null: anywhere."
    )


class TokenStepsBody(StepsBody):
    """One time step of many sessions, for a model that begins with an embedding."""

    model_config = _strict({"client_ids": ["reader-1", "reader-2"], "inputs": [[5], [9]]})
    inputs: Annotated[TokenMatrix, FEW_ROWS] = Field(  # type: ignore[assignment]
        description="`[rows][1]`."
    )


class ResetBody(BaseModel):
    """A new life of a session at position 0. The body may be left out."""

    model_config = _strict(
        {}, {"states": [[0.0, 0.1], [0.0, 0.2]]}, {"position": 41}, {"ttl_s": 3600}
    )
    states: RealMatrix | None = Field(
        None, description="h and c of every recurrent layer, in Keras's order; none means zeros."
    )
    ttl_s: TimeToLive | None = Field(
        None,
        description="How long after its last applied request the session ends, in seconds. Left"
        " out: as the service is set up, by default never.",
    )
    position: ExpectedPosition = None
    epoch: ExpectedEpoch = None


class StateMetadata(BaseModel):
    """What belongs to a state that is put back, except its numbers."""

    model_config = ConfigDict(strict=True, extra="forbid")
    position: Position
    epoch: ExpectedEpoch = Field(
        None, description="Of the exported session, for information: an import begins a new life."
    )
    fingerprint: Fingerprint | None = Field(
        None, description="Must be the model's. Left out: the state is taken if its shapes fit."
    )
    has_output: BoolVector | None = Field(
        None,
        description="For each recurrent layer, whether it has had a live step, so that a masked"
        " step repeats its output. Left out: where the position is over 0.",
    )


class ImportBody(StateMetadata):
    """A state to put back: an export as it is, or one of another origin."""

    model_config = _strict(
        {"position": 41, "states": [[0.0, 0.1], [0.0, 0.2]]},
        {
            "position": 41,
            "epoch": 5102375120932,
            "fingerprint": "9f2c…",
            "states": [[0.0, 0.1], [0.0, 0.2]],
            "has_output": [True],
        },
    )
    states: RealMatrix = Field(description="h and c of every recurrent layer, in Keras's order.")


class ForecastBody(BaseModel):
    """Time steps whose inputs are the outputs of the ones before."""

    model_config = _strict(
        {"steps": 24},
        {"steps": 24, "inputs": [0.12, -0.5, 0.98], "feedback": [1, None, 0], "position": 41},
    )
    steps: int = Field(ge=1, lt=MAX_POSITION + 1, description="How many time steps.")
    inputs: RealVector | None = Field(
        None,
        description="`[features]`, of the first step. Left out: what the session's last output"
        " feeds.",
    )
    feedback: Annotated[list[OutputIndex | None], FAIL_FAST] | None = Field(
        None,
        description="`[features]`, for each input the index of the output that feeds it in the"
        " next step; null: it keeps its value of `inputs`. Left out: output i feeds input i,"
        " where the model has as many outputs as inputs.",
    )
    position: ExpectedPosition = None
    epoch: ExpectedEpoch = None


class ForkBody(BaseModel):
    """A second session from the state of one."""

    model_config = _strict({"client_id": "pump-1-what-if"})
    client_id: ClientId = Field(description="Of the second session, which must not exist.")
