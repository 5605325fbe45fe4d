"""The documentation site: it builds without a warning, holds what it should, and asks nobody else for anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from documents import DOCS, ROOT

from rnem_world.cli.main import COMMANDS

pytest.importorskip("zensical", reason='the site is not built: pip install -e ".[docs]"')
PICTURES = sorted(path for path in DOCS.rglob("*") if path.suffix in {".gif", ".webp", ".png", ".svg"})


class Page(HTMLParser):
    """What a built page links to, what it loads, and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif "src" in given:
            self.loads.append(given["src"])
        elif tag == "link" and given.get("rel") in {"stylesheet", "icon", "preload"}:
            self.loads.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    result = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Warning" not in result.stdout + result.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_there_and_in_the_navigation(site):
    def files(entries):
        for entry in entries:
            (value,) = entry.values()
            yield from files(value) if isinstance(value, list) else [value]

    listed = list(files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md"))
    for name in listed:
        assert (site / name.removesuffix("index.md").removesuffix(".md") / "index.html").is_file(), name


def test_all_links_and_pictures_resolve(site, pages):
    missing = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (
                parts.fragment and unquote(parts.fragment) not in pages[target].places
            ):
                missing.append((path.relative_to(site).as_posix(), link))
    assert missing == []


def test_nothing_is_loaded_from_elsewhere(pages):
    foreign = {load for page in pages.values() for load in page.loads if urlsplit(load).netloc}
    assert foreign == set()


def test_every_command_is_in_the_reference(site, pages):
    text = (site / "commands" / "index.html").read_text()
    for name in COMMANDS:
        assert f'id="rnem-world-{name}' in text
    assert "--world-model" in text


def test_every_shipped_world_is_in_the_zoo_with_its_picture(site):
    text = (site / "zoo" / "index.html").read_text()
    worlds = sorted(path.name for path in (ROOT / "rnem_world" / "pretrained").iterdir() if path.is_dir())
    for name in worlds:
        assert f'id="{name}"' in text
        picture = DOCS / "pictures" / "zoo" / f"{name}.webp"
        assert picture.is_file(), f"see scripts/pictures: rnem-world env record {name} --out {picture}"


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_pictures_are_small(path):
    assert path.stat().st_size < 300_000
