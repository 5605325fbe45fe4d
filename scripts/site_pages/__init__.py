"""What the documentation site makes from the program itself, as an extension of Python-Markdown.

A line ``::: made commands`` in a page is replaced by the reference of all commands, and so on for every name in
`PAGES`. mkdocs.yml names the extension; ``scripts/site`` puts this package on the path.
"""

from __future__ import annotations

from collections.abc import Callable

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

from site_pages.commands import commands
from site_pages.options import options
from site_pages.zoo import zoo

MARK = "::: made "
PAGES: dict[str, Callable[[], str]] = {"commands": commands, "options": options, "zoo": zoo}


class MadePreprocessor(Preprocessor):
    """Replaces the lines that ask for something made."""

    def run(self, lines: list[str]) -> list[str]:
        """Replaces them; an unknown name is a KeyError, which ends the build."""
        made = []
        for line in lines:
            made += PAGES[line.removeprefix(MARK).strip()]().splitlines() if line.startswith(MARK) else [line]
        return made


class MadeExtension(Extension):
    """Puts the preprocessor before all others, so that what is made is Markdown like the rest of the page."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Registers it."""
        md.preprocessors.register(MadePreprocessor(md), "made", 200)
