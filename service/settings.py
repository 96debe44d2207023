"""What an operator can set, from the command line or from `LSTM_...` in the environment.

Read once, validated at the start. Components get values, not these settings.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_MODEL_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


class Settings(BaseSettings):
    """Every setting with its default; the field's name is the option's and the variable's."""

    model_config = SettingsConfigDict(env_prefix="LSTM_", extra="forbid", frozen=True)

    model: Annotated[dict[str, Path], NoDecode] = Field(
        default={},
        description="A model as NAME=PATH of a .keras file; may be given several times, or several"
        " joined by commas. The first is the default model. None: the bundled examples.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port to listen on; 0: any.")
    max_sessions: int = Field(
        default=100_000, ge=1, description="Most sessions of all models; then 503 for new ones."
    )
    max_pending: int = Field(
        default=4096, ge=1, description="Most requests of a model waiting or running; then 503."
    )
    max_batch_rows: int = Field(default=1024, ge=1, description="Most sessions in one batch.")
    max_wait_us: int = Field(
        default=0, ge=0, le=1_000_000, description="How long a batch waits for company."
    )
    max_body_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, description="Longest body of a request; then 413."
    )
    max_sequence_steps: int = Field(
        default=20_000, ge=1, description="Most time steps of one request, in all; then 422."
    )
    arena_rows: int = Field(
        default=65_536, ge=3, description="Sessions of a model whose state is kept at hand."
    )
    drain_timeout_s: int = Field(
        default=30, ge=0, description="How long requests in flight may take when stopping."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is logged, to standard error."
    )

    @field_validator("model", mode="before")
    @classmethod
    def _parse_models(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the environment holds
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list):
            return items
        models: dict[str, str] = {}
        for item in items:
            name, equals, path = item.partition("=")
            if not (equals and path and _MODEL_NAME.match(name)):
                raise ValueError(
                    f"expected NAME=PATH, a name of letters, digits, '.', '_' and '-', not {item!r}"
                )
            if name in models:
                raise ValueError(f"two models are called {name!r}")
            models[name] = path
        return models

    @model_validator(mode="after")
    def _check_arena(self) -> Settings:
        if self.arena_rows < 3 * self.max_pending:
            raise ValueError(
                f"arena_rows ({self.arena_rows}) must be at least three times max_pending"
                f" ({self.max_pending})"
            )
        return self


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` an option for each setting."""
    for name, field in Settings.model_fields.items():
        option = "--" + name.replace("_", "-")
        default = "" if name == "model" else f" [{field.default}]"
        parser.add_argument(
            option,
            action="append" if name == "model" else "store",
            metavar="NAME=PATH" if name == "model" else name.split("_")[-1].upper(),
            help=f"{field.description}{default}",
        )


def read_settings(options: argparse.Namespace) -> Settings:
    """Return the settings: an option before its variable, a variable before the default.

    Raises:
        pydantic.ValidationError: A value makes no sense.
    """
    given = {
        name: value
        for name in Settings.model_fields
        if (value := getattr(options, name)) is not None
    }
    return Settings(**given)
