"""README.md and the pages of docs/: their fenced blocks, their prose, their command lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]


class Block(NamedTuple):
    """A fenced block."""

    language: str
    line: int
    text: str


def fenced_blocks(text: str) -> list[Block]:
    """Lists a page's blocks; ``line`` is that of a block's first line in the page."""
    return [
        Block(match[1], text[: match.start()].count("\n") + 2, match[2])
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    ]


def blocks_of(page: Path, language: str) -> list[Block]:
    """Lists a page's blocks of one language."""
    return [block for block in fenced_blocks(page.read_text()) if block.language == language]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def spans(page: Path) -> list[str]:
    """What a page's prose sets in code."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def bash_lines(page: Path) -> list[str]:
    """The commands in a page's bash blocks, without comments."""
    lines = (
        line.split("  #")[0].strip() for block in blocks_of(page, "bash") for line in block.text.splitlines()
    )
    return [line for line in lines if line]


def command_lines(page: Path) -> list[str]:
    """What follows ``rnem-world`` in the blocks, and in those lines of the prose that stand there complete."""
    torchrun = "torchrun --nproc-per-node 2 -m rnem_world.cli.main"
    lines = [line.replace(torchrun, "rnem-world") for line in bash_lines(page)]
    lines += [span for span in spans(page) if not re.search(r"\b[A-Z]{4,}\b|\.\.\.", span)]
    return [line.removeprefix("rnem-world ") for line in lines if line.startswith("rnem-world ")]


def quickened(text: str) -> str:
    """The tutorial's text or code, with so little training and data that it runs in seconds."""
    little = {
        "updates = 800\n": "updates = 8\n",
        "steps_of_data=30_000": "steps_of_data=4_000",
        '"population": 64': '"population": 8',
        "num_envs=10": "num_envs=2",
    }
    for usual, quick in little.items():
        text = text.replace(usual, quick)
    return text


def promised(code: str) -> list[str]:
    """What a block says that it prints: comments behind ``print`` that are values, or the shapes in them."""
    found = []
    for comment in re.findall(r"^ *print\(.*\)  # (.*)$", code, flags=re.MULTILINE):
        found += [comment] if re.match(r"[\d({\['\"]", comment) else re.findall(r"\(\[?[\d, ]+\]?\)", comment)
    return found
