"""README.md and docs/: their code runs and prints what it says, their commands exist, nothing is left out."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import chdir
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from command_lines import parse
from documents import (
    DOCS,
    PAGES,
    README,
    ROOT,
    bash_lines,
    blocks_of,
    command_lines,
    fenced_blocks,
    promised,
    prose,
    quickened,
    spans,
)

from rnem_world.cli.main import COMMANDS, group
from rnem_world.config import build
from rnem_world.data.schema import ARRAYS
from rnem_world.models.config import ARCHITECTURES, MODELS
from rnem_world.physics.rules import PRESETS
from rnem_world.training.config import RunConfig

WITH_PYTHON = [page for page in PAGES if blocks_of(page, "python")]
TABLES = "\n".join(page.read_text() for page in PAGES)


def all_commands(command: click.Command = group) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    context = click.Context(command)
    children = [command.get_command(context, name) for name in command.list_commands(context)]
    return [command, *(each for child in children if child is not None for each in all_commands(child))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with small data and a tiny run where pages expect them; not to be changed."""
    folder = tmp_path_factory.mktemp("documents")

    def rnem_world(line: str) -> None:
        with chdir(folder):
            result = CliRunner().invoke(group, line.split())
        assert result.exit_code == 0, result.output

    for preset in ("balls4mass64", "balls678mass64"):
        rnem_world(f"collect --preset {preset} --num-train 4 --num-valid 2 --num-test 3")
    rnem_world(
        "train --data balls4mass64 --hidden-size 16 --slots 3 --steps 10 --batch-size 4 --max-updates 1 --threads 1"
        " --out runs/r_nem-balls4mass64"
    )
    return folder


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_runs_and_prints_what_it_says(page, folder, monkeypatch, capsys):
    """A block that begins with an import stands by itself, so that it can be copied; others go on."""
    monkeypatch.chdir(folder)
    blocks = fenced_blocks(quickened(page.read_text()))
    namespace: dict[str, object] = {}
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language != "python":
            continue
        if block.text.startswith(("import ", "from ")):
            namespace = {"__name__": "document"}
        code = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's line
        exec(compile(code, str(page), "exec"), namespace)
        printed = capsys.readouterr().out
        if following is not None and following.language == "text":
            assert following.text in printed
        for text in promised(block.text):
            assert text in printed, f"{page.name}, block at line {block.line}: {text!r} isn't in {printed!r}"


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in command_lines(page)}), ids=lambda line: line[:60]
)
def test_commands_are_accepted(line):
    assert parse(shlex.split(line)) != {} or line == "env list"  # which takes no arguments


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks_of(page, "yaml")], ids=lambda page: page.name
)
def test_yaml_blocks_are_options(page):
    for block in blocks_of(page, "yaml"):
        build(RunConfig, yaml.safe_load(block.text))


def test_every_command_is_shown():
    shown = {shlex.split(line)[0] for page in PAGES for line in command_lines(page)}
    assert shown == set(COMMANDS)


def test_scripts_and_modules_in_bash_blocks_can_be_run():
    words = [word for page in PAGES for line in bash_lines(page) for word in line.split()]
    scripts = {word for word in words if word.startswith("scripts/")}
    assert {"scripts/demo", "scripts/test"} <= scripts
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK), script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_and_files_in_the_prose_exist(page):
    options = {name for command in all_commands() for parameter in command.params for name in parameter.opts}
    options |= {name for command in all_commands() for each in command.params for name in each.secondary_opts}
    options |= {"--help", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--shutdown-timeout", "--kills"}
    flags = {flag for span in spans(page) for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
    assert flags - options == set()
    for span in spans(page):
        if re.match(r"(scripts|tests|rnem_world|envs|agents|docs|benchmarks)/\S*$", span):
            assert (ROOT / span).exists(), span


@pytest.mark.parametrize(
    "names", [MODELS, ARCHITECTURES, PRESETS, ARRAYS], ids=lambda names: next(iter(names))
)
def test_tables_are_complete(names):
    rows = re.findall(r"^\| `(\w+)` \|", TABLES, flags=re.MULTILINE)
    assert set(names) - set(rows) == set()


def test_the_table_of_models_gives_their_slots():
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d) \|", TABLES, flags=re.MULTILINE))
    assert {name: rows.get(name) for name in MODELS} == {
        name: str(slots) for name, (_, slots) in MODELS.items()
    }


def test_the_tutorial_of_a_world_has_40_lines():
    first = blocks_of(DOCS / "step-inside.md", "python")[0]
    assert len([line for line in first.text.splitlines() if line.strip()]) <= 40


def test_the_tutorial_of_an_environment_has_40_lines():
    code = "".join(block.text for block in blocks_of(DOCS / "own-environment.md", "python"))
    assert len([line for line in code[code.index("class ") :].splitlines() if line.strip()]) <= 40


def test_the_tutorials_environment_is_the_demos():
    module, block = (
        (DOCS / "examples" / "tag.py").read_text(),
        blocks_of(DOCS / "own-environment.md", "python")[0].text,
    )
    assert module[module.index("class ") :] == block[block.index("class ") :]


def test_every_option_that_says_what_data_means_is_explained():
    text = (DOCS / "data.md").read_text()
    for option in ("--axes", "--range", "--invert", "--matte", "--binarise", "--actions", "--overwrite"):
        assert option in text


def test_the_readme_is_short_and_its_links_lead_somewhere():
    assert len(README.read_text().splitlines()) <= 170
    links = [
        link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose(README)) if "://" not in link
    ]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
