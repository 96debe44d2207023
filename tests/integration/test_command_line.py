"""`lstm-service` as it is typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.__main__ import main
from service.model_files import bundled_models
from tests.integration.stores_on_disk import fill, key, record


def test_models_tells_what_the_bundled_files_hold(capsys):
    """Shapes, state, layers, and which kernel would run and why."""
    assert 0 == main(["models"])

    told = capsys.readouterr().out
    assert "vowels (" in told
    assert "a step takes 12 numbers and gives 9 numbers" in told
    assert re.search(r"state: \w+\.h\[\d+\], \w+\.c\[\d+\]", told)
    assert re.search(r"kernel native on cpu: \d+ units run in C on", told)


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
    assert 2 == main(["serve", "--max-pending", "none"])
    [told] = capsys.readouterr().err.splitlines()
    assert "--max-pending: Input should be a valid integer" in told
    assert 2 == main(["serve", "--arena-rows", "9"])
    [told] = capsys.readouterr().err.splitlines()
    assert "lstm-service: settings: arena_rows (9) must be at least three times" in told


@pytest.mark.parametrize("command", [["models"], ["sessions", "list"], ["sessions", "export"]])
def test_a_reader_who_has_read_enough_causes_no_noise(command, tmp_path):
    """`| head` ends the command quietly, but not as if all had been written."""
    fill(tmp_path, {key("alice"): record()})
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [sys.executable, "-m", "service", *command],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=os.environ | {"LSTM_DATA_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=False,
    )
    os.close(writing)

    assert (1, b"") == (done.returncode, done.stderr)


def test_no_standard_output_is_no_fault(monkeypatch, tmp_path, capsys):
    """As a supervisor may start it: what is wrong is told all the same."""
    monkeypatch.setattr(sys, "stdout", None)

    assert 0 == main(["models", str(bundled_models()["gait"])])
    assert 2 == main(["sessions", "list", "--data-dir", str(tmp_path / "nothing")])

    assert "no store" in capsys.readouterr().err


def test_an_action_that_there_is_not_is_an_error_of_usage(capsys):
    """As for every other option."""
    with pytest.raises(SystemExit) as ended:
        main(["sessions", "list", "--limit", "0"])

    assert 2 == ended.value.code
    assert "must be at least 1, not 0" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["safetensors", "redis", "sqlite3"])
def test_the_start_waits_for_nothing_that_is_not_asked_for(module):
    """A format or a store that is not in use is not imported."""
    code = f"import sys, service.__main__, service.app; print({module!r} in sys.modules)"
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)

    assert b"False\n" == told.stdout


FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"


def test_models_tells_the_format_and_what_wrote_it(capsys):
    """Of each file, also behind one that cannot be served, whose obstacle is named."""
    refused = FORMATS / "torch" / "two_heads.json"
    files = [FORMATS / "onnx" / "clip.onnx", refused, FORMATS / "torch" / "words.safetensors"]
    assert 2 == main(["models", *map(str, files)])

    told = capsys.readouterr()
    assert "an ONNX file, written by onnx.helper" in told.out
    assert "kernel native on cpu" in told.out
    assert "a PyTorch safetensors, written by PyTorch" in told.out
    assert "a step takes an integer below 5 and gives 5 numbers" in told.out
    assert f"{refused}: there is no such file" in told.err


def test_convert_writes_both_formats(tmp_path, capsys):
    """What is written is served, is not replaced by accident, and says whether it is the same."""
    source = FORMATS / "torch" / "tagger.pt"
    fingerprints = set()
    for suffix in ("keras", "safetensors"):
        target = tmp_path / f"model.{suffix}"
        assert 0 == main(["convert", str(source), str(target)])
        (told,) = capsys.readouterr().out.splitlines()
        fingerprints.add(told.split()[-1])
        assert 0 == main(["models", str(target)])
        assert told.split()[-1] in capsys.readouterr().out
        assert 2 == main(["convert", str(source), str(target)])
        assert f"{target} is there already; --force replaces it" in capsys.readouterr().err
        assert 0 == main(["convert", str(source), str(target), "--force"])
        capsys.readouterr()
    assert len(fingerprints) == 1
    assert 0 == main(["convert", str(bundled_models()["gait"]), str(tmp_path / "gait.keras")])
    assert "the same within rounding" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["model.pt", "model.keras", "absent/model.safetensors"])
def test_what_cannot_be_converted_says_why(target, tmp_path, capsys):
    """Another suffix, a layer that Keras has not, a directory that is not there."""
    source = FORMATS / "onnx" / "peepholes.onnx"
    assert 2 == main(["convert", str(source), str(tmp_path / target)])
    reason = {
        "model.pt": "the suffix must be .keras or .safetensors",
        "model.keras": "has peepholes, which Keras's LSTM has not",
    }.get(target, "No such file or directory")
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
