"""What an operator can set, from the command line or from `LSTM_...` in the environment.

Read once, validated at the start. Components get values, not these settings.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, field_serializer, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.domain import TOMBSTONE_S

_ARENA_ROWS = 65_536
_ROWS_BESIDE_MEMORY = 16_384
"""Where the store is memory: it gives the others back within microseconds."""
_ROWS_A_REQUEST = 3
"""A pending request may hold so many: see `EngineLimits`."""
_MODEL_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_STORE = re.compile(r"(memory|embedded|(redis|rediss|unix)(\+cluster)?://.+)\Z")
_METAVARS = {
    "model": "NAME=PATH",
    "model_repository": "DIR",
    "grpc_tls_cert": "FILE",
    "grpc_tls_key": "FILE",
}
"""What the help calls a value, where the last word of the setting's name does not say it."""


def default_data_dir() -> Path:
    """Return where a program keeps its state by the XDG convention."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "lstm-service"


def default_arena_rows(others: Mapping[str, Any]) -> int:
    """Return how many rows are at hand where nobody says it.

    Args:
        others: The settings before that one, as far as they make sense.
    """
    rows = _ROWS_BESIDE_MEMORY if others.get("store") == "memory" else _ARENA_ROWS
    return max(rows, _ROWS_A_REQUEST * others.get("max_pending", 0))


class SettingError(Exception):
    """A setting asks for what cannot be had here. The message says which, and why."""


class Settings(BaseSettings):
    """Every setting with its default; the field's name is the option's and the variable's."""

    model_config = SettingsConfigDict(env_prefix="LSTM_", extra="forbid", frozen=True)

    model: Annotated[dict[str, tuple[Path, ...]], NoDecode] = Field(
        default={},
        description="A model as NAME=PATH of a file of any format; may be given several times, or"
        " several joined by commas. The first is the default model. Files given later under the"
        " same name are earlier versions, for the sessions that belong to them. None, and no"
        " repository: the bundled examples.",
    )
    model_repository: Path | None = Field(
        default=None,
        description="A directory of models, NAME/VERSION/model.*, beside or in place of --model.",
    )
    repository_poll_s: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds between looks for versions that come and go; 0: never.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port to listen on; 0: any.")
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="The port to listen on for gRPC; 0: any. Without it there is no gRPC.",
    )
    grpc_tls_cert: Path | None = Field(
        default=None,
        description="Serve gRPC under TLS with this certificate and those that lead to its root: a"
        " file in PEM.",
    )
    grpc_tls_key: Path | None = Field(
        default=None, description="The certificate's private key: a file in PEM."
    )
    runtime: Literal["auto", "cpu", "tensorflow"] = Field(
        default="auto",
        description="What computes: cpu, tensorflow (on a GPU if there is one), or auto: the CPU"
        " unless it cannot take a model, or a GPU is faster.",
    )
    keras_modules: str = Field(
        default="",
        pattern=r"^([A-Za-z_][\w.]*(,[A-Za-z_][\w.]*)*)?$",
        description="Python modules, joined by commas, that register Keras layers of your own;"
        " imported before TensorFlow reads a model.",
    )
    tf32: bool = Field(
        default=False,
        description="Let TensorFlow round the factors of products on a GPU (about 1e-3 off).",
    )
    store: str = Field(
        default="embedded",
        description="Where sessions are kept: memory, embedded (files in --data-dir), or the"
        " redis:// or rediss:// address of a Redis that all replicas share.",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir, description="Where the embedded store keeps its files."
    )
    fsync: bool = Field(
        default=False, description="The embedded store's commits survive a loss of power."
    )
    store_timeout_ms: int = Field(
        default=1000, ge=1, description="How long a Redis may take to answer; then 503."
    )
    store_min_replicas: int = Field(
        default=0,
        ge=0,
        description="How many replicas of Redis must have a commit before it counts; else 503.",
    )
    durability: Literal["sync", "async"] = Field(
        default="sync",
        description="sync: a step is answered once it is in the store. async: before that.",
    )
    async_max_steps: int = Field(
        default=10_000, ge=1, description="Most time steps that async may lose."
    )
    async_max_ms: int = Field(
        default=1000, ge=1, description="Longest time for which async may lose what it answered."
    )
    default_ttl_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="How long after its last request a session ends, if its reset does not say.",
    )
    tombstone_s: float = Field(
        default=TOMBSTONE_S,
        ge=0,
        allow_inf_nan=False,
        description="How long an ended session is answered with 410 before it is unknown.",
    )
    idle_s: float = Field(
        default=3600.0,
        gt=0,
        allow_inf_nan=False,
        description="How long after its last request a session's state stays at hand in memory.",
    )
    max_sessions: int = Field(
        default=1_000_000,
        ge=1,
        description="Most sessions in memory or in the embedded store; then 503 for new ones.",
    )
    max_pending: int = Field(
        default=4096, ge=1, description="Most requests of a model waiting or running; then 503."
    )
    max_batch_rows: int = Field(default=1024, ge=1, description="Most sessions in one batch.")
    kernel_threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Most threads that the native kernel shares a large batch out over. One process"
        " a core needs no more than 1; the numbers are the same with any.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Precision of LSTMs' products. bfloat16 needs a processor with AVX512-BF16,"
        " takes about half the time, and keeps 8 significant bits of weights and inputs. Sessions"
        " go on under either, with other last digits: give all replicas the same.",
    )
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
        default_factory=default_arena_rows,
        ge=_ROWS_A_REQUEST,
        description="Sessions of a model whose state is kept at hand in memory, at least three"
        " times --max-pending; the others come back from the store on their next step. With the"
        f" memory store, unless set: {_ROWS_BESIDE_MEMORY}.",
    )
    transfer_timeout_s: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a client may take to send a request, or to read on in an answer.",
    )
    shutdown_delay_s: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="How long the service goes on after SIGTERM, saying that it is not ready,"
        " before it drains: as long as a balancer takes to notice. SIGINT does not wait.",
    )
    drain_timeout_s: int = Field(
        default=30, ge=0, description="How long requests in flight may take when stopping."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is logged, to standard error."
    )

    @field_validator("store")
    @classmethod
    def _check_store(cls, store: str) -> str:
        if not _STORE.match(store):
            # What came is not told: it may hold a password.
            raise ValueError(
                "expected memory, embedded, or an address of redis://, rediss:// or unix://"
            )
        return store

    @field_serializer("store")
    def _hide_password(self, store: str) -> str:
        # All before the last @, also where it is no address and will be refused.
        return re.sub(r"password=[^&]*", "password=***", re.sub(r"//.*@", "//***@", store))

    @field_validator("model", mode="before")
    @classmethod
    def _parse_models(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the environment holds
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list):
            return items
        models: dict[str, tuple[str, ...]] = {}
        for item in items:
            name, equals, path = item.partition("=")
            if not (equals and path and _MODEL_NAME.match(name)):
                raise ValueError(
                    f"expected NAME=PATH, a name of letters, digits, '.', '_' and '-', not {item!r}"
                )
            models[name] = (*models.get(name, ()), path)
        return models

    @model_validator(mode="after")
    def _check_arena(self) -> Settings:
        if self.arena_rows < _ROWS_A_REQUEST * self.max_pending:
            raise ValueError(
                f"arena_rows ({self.arena_rows}) must be at least three times max_pending"
                f" ({self.max_pending})"
            )
        return self

    @model_validator(mode="after")
    def _check_repository(self) -> Settings:
        if self.repository_poll_s and self.model_repository is None:
            raise ValueError("repository_poll_s is for a model_repository, and there is none")
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Settings:
        if (self.grpc_tls_cert is None) != (self.grpc_tls_key is None):
            raise ValueError("grpc_tls_cert and grpc_tls_key must be given together")
        if self.grpc_tls_cert is not None and self.grpc_port is None:
            raise ValueError("grpc_tls_cert is for gRPC, which is not served without grpc_port")
        return self


def add_options(parser: argparse.ArgumentParser, names: Collection[str] | None = None) -> None:
    """Give `parser` an option for each setting, or for those that are named."""
    for name, field in Settings.model_fields.items():
        if names is not None and name not in names:
            continue
        option = "--" + name.replace("_", "-")
        if field.annotation is bool:
            parser.add_argument(
                option, action="store_true", default=None, help=f"{field.description} [no]"
            )
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "none" if default in (None, "") else default
        parser.add_argument(
            option,
            action="append" if name == "model" else "store",
            metavar=_metavar(name, field.annotation),
            help=f"{field.description}" + ("" if name == "model" else f" [{shown}]"),
        )


def _metavar(name: str, annotation: Any) -> str:  # noqa: ANN401 - a form of typing has no type
    if get_origin(annotation) is Literal:
        return f"{{{','.join(get_args(annotation))}}}"
    return _METAVARS.get(name, name.rpartition("_")[2].upper())


def read_settings(options: argparse.Namespace) -> Settings:
    """Return the settings: an option before its variable, a variable before the default.

    Raises:
        pydantic.ValidationError: A value makes no sense.
    """
    given = {
        name: value
        for name in Settings.model_fields
        if (value := getattr(options, name, None)) is not None
    }
    return Settings(**given)
