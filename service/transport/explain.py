"""What is wrong with a document, in words of bounded length: from pydantic's errors to ours."""

from __future__ import annotations

import json

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from service.errors import InvalidRequestError, Problem

Location = tuple[str | int, ...]

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
    "int_type": "an integer",
    "int_from_float": "an integer",
    "bool_type": "true or false",
    "list_type": "an array",
    "string_type": "a string",
}


def describe(value: object) -> str:
    """Say what a JSON value is, shortly."""
    if isinstance(value, str):
        return f"the string {shorten(json.dumps(value[: _MAX_TEXT + 1]))}"
    if isinstance(value, list | tuple):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    # As JSON writes it: null, true, NaN, 1e+39.
    return shorten(json.dumps(value))


def shorten(text: str) -> str:
    """Cut a text to a length that may be shown."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def wrong(where: Location, message: str) -> InvalidRequestError:
    """Return the error of one problem."""
    return InvalidRequestError([Problem(where, message)])


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


def _location(location: Location) -> Location:
    return tuple(shorten(part) if isinstance(part, str) else part for part in location)


def _message(details: ErrorDetails, known: str) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "json_invalid":
        return f"not valid JSON: {shorten(str(context['error']))}"
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        return f"unknown field; known are: {known}"
    if kind == "string_too_long":
        return f"expected at most {context['max_length']} characters, got {len(str(value))}"
    if kind == "too_long":
        return f"expected at most {context['max_length']} values, got {context['actual_length']}"
    if kind == "less_than" and isinstance(value, int):
        expected: str | None = f"an integer below {context['lt']}"
    elif kind == "greater_than_equal":
        expected = f"an integer from {context['ge']}"
    elif kind == "greater_than" and context["gt"] == 0:
        expected = "a number over 0"
    elif kind == "less_than_equal":
        expected = f"a number of at most {context['le']:.0f}"
    else:
        expected = _EXPECTED.get(kind)
    return f"expected {expected or details['msg']}, got {describe(value)}"
