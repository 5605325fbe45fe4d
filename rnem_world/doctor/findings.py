"""What was looked at, how it is, and what to do about it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "note", "bad"]

_SIGNS: dict[Verdict, str] = {"good": "ok  ", "note": "note", "bad": "BAD "}

WIDTH = 120
_INDENT = " " * 21


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        verdict: ``good``; ``bad`` if something that should work doesn't; ``note`` if something isn't there, isn't
            known yet, or could be better.
        text: What was found.
        advice: What to do about it; empty if there is nothing to do.
    """

    name: str
    verdict: Verdict
    text: str
    advice: str = ""


def as_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Lays findings out as lines of text, the advice on lines of its own."""
    for finding in findings:
        text = f"{_SIGNS[finding.verdict]}  {finding.name:<14} {finding.text}"
        yield from textwrap.wrap(text, WIDTH, subsequent_indent=_INDENT)
        if finding.advice:
            yield from textwrap.wrap(
                f"-> {finding.advice}", WIDTH, initial_indent=_INDENT, subsequent_indent=f"{_INDENT}   "
            )
