"""What is wrong with a document, in words: from pydantic's errors to `Problem`s of bounded length."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import BaseModel, ValidationError

from service.errors import InvalidRequestError, Problem

MAX_PROBLEMS = 8
"""A request with more is told the first ones, and how many more there are."""
_MAX_EXPLAINED = 64
_MAX_TEXT = 60

_EXPECTED = {
    "model_type": "an object",
    "float_type": "a number",
    "finite_number": "a finite number within float32",
    "greater_than": "a number within float32",
    "less_than": "a number within float32",
    "greater_than_equal": "an integer from 0",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "bool_type": "true or false",
    "list_type": "an array",
    "string_type": "a string",
}


def describe(value: object) -> str:
    """Say what a JSON value is, shortly."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the string {shorten(json.dumps(value))}"
        case list() | tuple():
            return f"an array of {len(value)}"
        case dict():
            return "an object"
        case float() if not math.isfinite(value):
            return {math.inf: "infinity", -math.inf: "-infinity"}.get(value, "NaN")
        case _:
            return shorten(str(value))


def shorten(text: str) -> str:
    """Cut a text to a length that may be shown."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def invalid(problems: list[Problem]) -> InvalidRequestError:
    """Return the error of these problems, the first few of them."""
    if len(problems) > MAX_PROBLEMS:
        more = Problem((), f"and {len(problems) - MAX_PROBLEMS} more")
        problems = [*problems[:MAX_PROBLEMS], more]
    return InvalidRequestError(problems)


def explain(error: ValidationError, body_class: type[BaseModel]) -> InvalidRequestError:
    """Turn pydantic's error into ours.

    Args:
        error: What the validator of `body_class` raised.
        body_class: Whose fields are named where one is unknown.
    """
    known = ", ".join(body_class.model_fields)
    if error.error_count() > _MAX_EXPLAINED:
        # Building a million errors would take seconds. Only unknown fields can be so many.
        text = f"{error.error_count()} problems, most of them unknown fields; known are: {known}"
        return invalid([Problem((), text)])
    problems = [
        Problem(_location(details["loc"]), _message(details, known))
        for details in error.errors(include_url=False)
    ]
    return invalid(problems)


def _location(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return tuple(shorten(part) if isinstance(part, str) else part for part in location)


def _message(details: Any, known: str) -> str:
    kind = details["type"]
    value = details.get("input")
    if kind == "json_invalid":
        return f"not valid JSON: {shorten(str(details['ctx']['error']))}"
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        return f"unknown field; known are: {known}"
    if kind == "less_than" and isinstance(value, int):
        return f"expected an integer below {details['ctx']['lt']}, got {describe(value)}"
    if kind == "string_too_long":
        limit = details["ctx"]["max_length"]
        return f"expected at most {limit} characters, got {len(value or '')}"
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"{details['msg']}, got {describe(value)}"
    return f"expected {expected}, got {describe(value)}"
