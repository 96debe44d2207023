"""`model.yaml`: what stands beside a model file in a repository, all of it optional."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

FILE_NAME = "model.yaml"
_MAX_BYTES = 1 << 20


class ModelConfigError(Exception):
    """A `model.yaml` cannot be used. The message says what is wrong in it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Scaling(_Strict):
    """How numbers were standardised for the training: `(x - mean) / std`.

    Attributes:
        mean: One for each feature.
        std: Likewise, none of them 0.
    """

    mean: tuple[FiniteFloat, ...]
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means, but {len(self.std)} standard deviations")
        return self


class Normalisation(_Strict):
    """What callers are spared: they send and get numbers in their own units.

    Attributes:
        inputs: What is done to every input of real numbers; None: nothing.
        outputs: What was done to the outputs in training, and is undone; None: nothing.
    """

    inputs: Scaling | None = None
    outputs: Scaling | None = None


class Limits(_Strict):
    """What the model may take on, in the place of the service's own limits.

    Attributes:
        max_pending: Most requests waiting or running.
        max_batch_rows: Most sessions in one batch.
    """

    max_pending: PositiveInt | None = None
    max_batch_rows: PositiveInt | None = None


class WarmUp(_Strict):
    """What runs before the model is ready, on zeros.

    Attributes:
        rows: Batches of so many sessions.
        steps: So many time steps each.
    """

    rows: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = (1, 64)
    steps: Annotated[int, Field(ge=1, le=1024)] = 2


class ModelConfig(_Strict):
    """What a `model.yaml` may say.

    Attributes:
        labels: A name for each output.
        normalisation: Of inputs and outputs.
        feedback: For each input the index of the output that feeds it in a forecast, or None, which
            keeps its first value; where a request does not say.
        limits: Of the model.
        warm_up: Before it is ready.
    """

    labels: tuple[str, ...] | None = None
    normalisation: Normalisation = Normalisation()
    feedback: tuple[NonNegativeInt | None, ...] | None = None
    limits: Limits = Limits()
    warm_up: WarmUp = WarmUp()


def read_model_config(path: Path) -> ModelConfig:
    """Read a `model.yaml`; one that is not there says nothing.

    Raises:
        ModelConfigError: It is not one.
    """
    if not path.exists():
        return ModelConfig()
    import yaml  # noqa: PLC0415 - it takes longer than a start may, and few models have the file

    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ModelConfigError(f"{path} has {size} bytes; at most {_MAX_BYTES} are read")
        text = path.read_bytes()
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            # A few lines of those stand for more than memory holds.
            raise ModelConfigError(f"{path} has aliases (*name), which are not read")
        document = yaml.safe_load(text)
        if document is None:
            return ModelConfig()
        # As JSON, where a list is what a tuple is written as, and a text is no number.
        return ModelConfig.model_validate_json(json.dumps(document, default=str))
    except (OSError, yaml.YAMLError, RecursionError) as error:
        raise ModelConfigError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()
        )
        raise ModelConfigError(f"{path}: {problems}") from error
    except (TypeError, ValueError) as error:  # such as keys that JSON does not have
        raise ModelConfigError(f"{path} cannot be read: {error}") from error
