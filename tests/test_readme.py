"""README.md: its code runs, its commands are accepted, its files are there, its tables are complete."""

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
from documents import Block, fenced_blocks

from rnem_world.cli.main import COMMANDS, group
from rnem_world.config import build
from rnem_world.data.schema import ARRAYS
from rnem_world.models.config import ARCHITECTURES, MODELS
from rnem_world.physics.rules import PRESETS
from rnem_world.training.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PICTURE = "docs/rollout.gif"


BLOCKS = fenced_blocks(README)
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
SPANS = re.findall(r"`([^`\n]+)`", PROSE)


def of_language(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def bash_lines() -> list[str]:
    lines = (
        line.split("  #")[0].strip() for block in of_language("bash") for line in block.text.splitlines()
    )
    return [line for line in lines if line]


def command_lines() -> list[str]:
    """The ``rnem-world`` lines of the blocks, and those in the text that stand there complete."""
    lines = [*bash_lines(), *SPANS]
    return [
        line for line in lines if line.startswith("rnem-world ") and not re.search(r"\b[A-Z]{4,}\b", line)
    ]


def all_commands(command: click.Command = group) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    context = click.Context(command)
    children = [command.get_command(context, name) for name in command.list_commands(context)]
    return [command, *(each for child in children if child is not None for each in all_commands(child))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with small data and a tiny run where the README expects them; not to be changed."""
    folder = tmp_path_factory.mktemp("readme")

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


@pytest.mark.parametrize("block", of_language("python"), ids=lambda block: f"line {block.line}")
def test_python_runs_and_prints_what_it_says(block, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code = "\n" * (block.line - 1) + block.text  # so that a traceback names the README's line
    exec(compile(code, str(ROOT / "README.md"), "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    for line in block.text.splitlines():
        comment = line.partition("  # ")[2]
        if line.startswith("print(") and (shapes := re.findall(r"\(\[?[\d, ]+\]?\)", comment)):
            for shape in shapes:
                assert shape in printed, f"{line!r} printed {printed!r}"


@pytest.mark.parametrize("line", command_lines())
def test_commands_are_accepted(line):
    assert parse(shlex.split(line)[1:]) != {}


def test_every_command_is_shown():
    shown = {tuple(shlex.split(line)[1:2]) for line in command_lines()}
    assert shown == {(name,) for name in COMMANDS}


def test_scripts_in_bash_blocks_can_be_run():
    scripts = {word for line in bash_lines() for word in line.split() if word.startswith("scripts/")}
    assert {"scripts/demo", "scripts/test"} <= scripts
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK), script


def test_flags_in_the_text_exist():
    options = {
        option for command in all_commands() for parameter in command.params for option in parameter.opts
    } | {"--help"}
    flags = {flag for span in SPANS for flag in re.findall(r"(?<![\w-])--[\w-]+", span)}
    assert len(flags) > 30
    assert flags - options == set()


def test_files_in_the_text_exist():
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", PROSE) if "://" not in link]
    spans = [
        span
        for span in SPANS
        if re.match(r"(scripts|tests|rnem_world|envs|agents|docs|benchmarks)/\S*$", span)
    ]
    assert links
    assert spans
    for path in {*links, *spans} - {PICTURE, ""}:
        assert (ROOT / path).exists(), path


def test_the_picture_is_there_and_its_command_too():
    assert f"]({PICTURE})" in README
    assert any(line.startswith("rnem-world rollout") and PICTURE in line for line in bash_lines())
    assert (ROOT / PICTURE).read_bytes()[:4] == b"GIF8"


def test_yaml_blocks_are_options():
    blocks = of_language("yaml")
    assert blocks
    for block in blocks:
        build(RunConfig, yaml.safe_load(block.text))


@pytest.mark.parametrize(
    "names", [MODELS, ARCHITECTURES, PRESETS, ARRAYS], ids=lambda names: next(iter(names))
)
def test_tables_are_complete(names):
    rows = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    assert set(names) - set(rows) == set()


def test_the_table_of_models_gives_their_slots():
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d) \|", README, flags=re.MULTILINE))
    assert rows == {name: str(slots) for name, (_, slots) in MODELS.items()}
