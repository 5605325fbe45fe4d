"""docs/: the commands of all pages are accepted; the code of step-inside.md runs and prints what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from command_lines import parse
from documents import fenced_blocks

from rnem_world.config import build
from rnem_world.training.config import RunConfig

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "step-inside.md"
BLOCKS = [block.text for block in fenced_blocks(DOCUMENT.read_text()) if block.language == "python"]


def blocks_of(language: str) -> list[tuple[str, str]]:
    """The pages' names and blocks of one language."""
    return [
        (page.name, block.text)
        for page in sorted(DOCUMENT.parent.glob("*.md"))
        for block in fenced_blocks(page.read_text())
        if block.language == language
    ]


def command_lines() -> list[str]:
    lines = (line.split("  #")[0].strip() for _, text in blocks_of("bash") for line in text.splitlines())
    return sorted({line for line in lines if line.startswith("rnem-world ")})


@pytest.mark.parametrize("line", command_lines())
def test_commands_are_accepted(line):
    assert parse(shlex.split(line)[1:]) != {}


@pytest.mark.parametrize(("page", "text"), blocks_of("yaml"))
def test_options_are_accepted(page, text):
    assert isinstance(build(RunConfig, yaml.safe_load(text)), RunConfig)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_tutorial_runs_and_prints_what_it_says(code, capsys):
    exec(compile(code, str(DOCUMENT), "exec"), {"__name__": "document"})
    printed = capsys.readouterr().out
    shapes = re.findall(r"\([\d, ]+\)", " ".join(re.findall(r"^print.*  # (.*)$", code, flags=re.MULTILINE)))
    assert shapes
    for shape in shapes:
        assert shape in printed


def test_the_tutorial_has_40_lines():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) <= 40
