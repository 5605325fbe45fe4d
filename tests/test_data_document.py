"""docs/data.md: its code runs and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import fenced_blocks

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "data.md"
TEXT = DOCUMENT.read_text()
BLOCKS = fenced_blocks(TEXT)


@pytest.mark.parametrize(
    "number", [number for number, block in enumerate(BLOCKS) if block.language == "python"]
)
def test_code_runs_and_prints_what_it_says(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = BLOCKS[number].text
    exec(compile(code, str(DOCUMENT), "exec"), {"__name__": "document"})
    printed = capsys.readouterr().out
    expected = re.findall(r"^ *print.*  # (.*)$", code, flags=re.MULTILINE)
    if number + 1 < len(BLOCKS) and BLOCKS[number + 1].language == "text":
        expected.append(BLOCKS[number + 1].text)
    assert expected
    for text in expected:
        assert text in printed


def test_every_option_that_says_what_data_means_is_explained():
    for option in ("--axes", "--range", "--invert", "--matte", "--binarise", "--actions", "--overwrite"):
        assert option in TEXT
