"""The README pages: their links lead somewhere, and their tables leave nothing out."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from service.settings import Settings
from service.transport.status import STATUS

ROOT = Path(__file__).parents[2]
PLACES = (".", "benchmarks", "deploy", "examples/data", "lstm_core", "service", "service/bundled")
PAGES = [ROOT / place / "README.md" for place in PLACES]
READERS: dict[str, Callable[[str], object]] = {
    "python": lambda text: compile(text, "README.md", "exec"),
    "json": json.loads,
    "yaml": yaml.safe_load,
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def prose(page):
    """Return a page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def anchors(page):
    """Return what links into a page may name: its headings, as GitHub calls them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page, heading):
    """Return the cells of the table rows under a heading, down to the next heading."""
    section = prose(page).partition(f"{heading}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Each link names a file that is there, and a heading of it."""
    links = re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]+))?\)", prose(page))
    for path, anchor in links:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_can_be_read(page):
    """Each block of Python, JSON and YAML is one."""
    for language, text in FENCE.findall(page.read_text()):
        if language in READERS:
            READERS[language](text)


def test_every_setting_has_a_row():
    """The table of settings names the options that there are."""
    options = {"--" + name.replace("_", "-") for name in Settings.model_fields}
    table = rows(ROOT / "service/README.md", "## Settings")

    assert options == set(re.findall(r"--[a-z0-9-]+", " ".join(row[0] for row in table)))


def test_every_error_has_its_row():
    """The table of errors says what `status` does."""
    told = {
        code: tuple(cells)
        for codes, *cells, _ in rows(ROOT / "service/README.md", "## Errors")
        for code in re.findall(r"`(\w+)`", codes)
    }
    done = {error.code: tuple(map(str, status)) for error, status in STATUS.items()}

    assert done == told


def test_every_alert_is_in_the_runbook():
    """Whoever is called at night finds the alert's name."""
    alerts = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
    names = {rule["alert"] for group in alerts for rule in group["rules"]}
    told = re.findall(
        r"`(\w+)`", " ".join(r[0] for r in rows(ROOT / "deploy/README.md", "## Runbook"))
    )

    assert names == set(told)
