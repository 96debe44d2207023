"""`lstm-service` as it is typed."""

import re

import pytest

from service.__main__ import main
from service.models import bundled_models


def test_models_tells_what_the_bundled_files_hold(capsys):
    """Shapes, state, layers, and which kernel would run and why."""
    assert 0 == main(["models"])

    told = capsys.readouterr().out
    assert "vowels (" in told
    assert "a step takes 12 numbers and gives 9 numbers" in told
    assert re.search(r"state: \w+\.h\[\d+\], \w+\.c\[\d+\]", told)
    assert re.search(r"kernel numpy on cpu: \d+ units run on", told)


def test_models_tells_of_a_file_by_its_path(capsys):
    """A path is read as it is given."""
    assert 0 == main(["models", str(bundled_models()["gait"])])

    assert "a step takes 9 numbers and gives 9 numbers" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["models"], ["serve", "--port", "0", "--model"]])
def test_a_file_that_cannot_be_served_ends_with_one_clear_message(command, tmp_path, capsys):
    """No traceback: the file, and what is wrong with it."""
    path = tmp_path / "broken.keras"
    path.write_bytes(b"not a model")
    argument = f"mine={path}" if "--model" in command else str(path)

    assert 2 == main([*command, argument])

    told = capsys.readouterr().err
    assert told.startswith("lstm-service: ")
    assert str(path) in told
    assert "Traceback" not in told


def test_a_setting_that_makes_no_sense_names_the_option(capsys):
    """The option at fault, and what it wants."""
    assert 2 == main(["serve", "--port", "70000"])

    assert "--port: Input should be less than or equal to 65535" in capsys.readouterr().err
