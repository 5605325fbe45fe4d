"""docs/step-inside.md: its code runs and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "step-inside.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)


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
