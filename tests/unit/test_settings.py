"""What an operator can set, and what comes of nonsense."""

import argparse
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import add_options, read_settings


def settings(*arguments):
    """Return the settings of a command line."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return read_settings(parser.parse_args(arguments))


def test_models_keep_their_order():
    """Options may repeat, and the first model stays first."""
    read = settings("--model", "b=b.keras", "--model", "a=dir/a=1.keras")

    assert [("b", (Path("b.keras"),)), ("a", (Path("dir/a=1.keras"),))] == list(read.model.items())


def test_a_model_may_have_earlier_versions():
    """Files of one name belong together, the current one first."""
    read = settings("--model", "a=new.keras", "--model", "b=b.keras", "--model", "a=old.keras")

    assert (Path("new.keras"), Path("old.keras")) == read.model["a"]
    assert ["a", "b"] == list(read.model)


def test_a_password_is_not_printed():
    """The settings that the log shows hide who talks to Redis, by an address or what is none."""
    for store in (
        "rediss://user:secret@redis:6379/0",
        "rediss://user:sec/secret@redis:6379/0",
        "rediss://redis:6379/0?ssl_keyfile=key.pem&ssl_password=secret&ssl_certfile=cert.pem",
    ):
        read = settings("--store", store)

        assert "secret" not in read.model_dump_json()
        assert "redis:6379/0" in read.model_dump_json()
        assert store == read.store


def test_the_environment_says_the_same(monkeypatch):
    """Each option is a variable too, models joined by commas; the command line goes first."""
    monkeypatch.setenv("LSTM_MODEL", "b=b.keras,a=a.keras")
    monkeypatch.setenv("LSTM_PORT", "9000")

    assert ["b", "a"] == list(settings().model)
    assert 9000 == settings().port
    assert 7000 == settings("--port", "7000").port


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--model", "vowels.keras"], "expected NAME=PATH"),
        (["--model", "a/b=x.keras"], "expected NAME=PATH"),
        (["--store", "mongodb://x"], "expected memory, embedded, or an address of redis://"),
        (["--default-ttl-s", "0"], "greater than 0"),
        (["--port", "70000"], "less than or equal to 65535"),
        (["--max-pending", "none"], "valid integer"),
        (["--arena-rows", "10"], "at least three times max_pending"),
        (["--log-level", "loud"], "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_nonsense_is_refused_with_the_reason(arguments, problem):
    """A setting that makes no sense stops the start, and says what was expected."""
    with pytest.raises(ValidationError, match=problem):
        settings(*arguments)


def test_fewer_rows_are_at_hand_where_the_store_is_as_near():
    """A state that is in memory anyway need not be there twice, unless the operator says so."""
    assert 65_536 == settings().arena_rows
    assert 16_384 == settings("--store", "memory").arena_rows
    assert 20_000 == settings("--store", "memory", "--arena-rows", "20000").arena_rows


def test_there_are_rows_for_all_that_may_be_pending():
    """More requests bring their rows with them; who says both is told where they do not fit."""
    assert 18_000 == settings("--store", "memory", "--max-pending", "6000").arena_rows
    assert 90_000 == settings("--max-pending", "30000").arena_rows
    with pytest.raises(ValidationError, match=r"arena_rows \(17999\) must be at least three"):
        settings("--max-pending", "6000", "--arena-rows", "17999")


def test_how_often_to_look_needs_something_to_look_at():
    """A setting that would do nothing is refused."""
    with pytest.raises(ValidationError, match="model_repository"):
        settings("--repository-poll-s", "2")
    assert 2 == settings("--repository-poll-s", "2", "--model-repository", "m").repository_poll_s
