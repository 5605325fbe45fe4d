"""Fenced blocks of Markdown pages."""

from __future__ import annotations

import re
from typing import NamedTuple


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
