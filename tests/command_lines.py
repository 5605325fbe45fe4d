"""Checks command lines of documents and scripts against the real commands, without running them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rnem_world.agents.base import BASELINES
from rnem_world.agents.mixture import parse_mixture
from rnem_world.cli import train
from rnem_world.cli.arguments import given_values
from rnem_world.cli.main import group
from rnem_world.config import build, merged, set_path
from rnem_world.models.config import ARCHITECTURES, MODELS
from rnem_world.physics.rules import PRESETS
from rnem_world.training.config import RunConfig

KNOWN = {"model_name": MODELS, "architecture": ARCHITECTURES, "preset": PRESETS, "policy": BASELINES}


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Parses ``rnem-world ARGUMENTS`` as the program does.

    Returns:
        The parameters of the command; empty where the line only asks for help or the version.

    Raises:
        click.ClickException: If the program would refuse the line.
        rnem_world.errors.ConfigError: If it would refuse the values.
    """
    command: click.Command = group
    rest = list(arguments)
    try:
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            child = command.get_command(click.Context(command), rest[0])
            if child is None:
                raise click.UsageError(f"no command {rest[0]!r}")
            command, rest = child, rest[1:]
        parameters = command.make_context("rnem-world", rest).params
    except click.exceptions.Exit:
        return {}
    for name, known in KNOWN.items():
        given = parameters.get(name)
        if name == "policy" and given is not None:  # functions and files may be anybody's
            named = [player.name for player in parse_mixture(given)]
            unknown = [
                each for each in named if ":" not in each and not each.endswith(".zip") and each not in known
            ]
        else:
            unknown = [] if given is None or given in known else [given]
        if unknown:
            raise click.UsageError(f"{name}: {unknown[0]!r} is none of {', '.join(known)}")
    data = parameters.get("data")
    if data is not None and not Path(data).suffix and "/" not in data and data not in PRESETS:
        raise click.UsageError(f"--data {data!r} is neither a path nor a preset")
    if command is train.command and not parameters["resume"]:
        core, slots = MODELS[parameters["model_name"] or "r_nem"]
        flags = given_values([*train.RESUMABLE, *train.FIXED], parameters)
        if parameters["slots"] is not None:
            set_path(flags, "model.slots", parameters["slots"])
        build(RunConfig, merged({"model": {"core": core, "slots": slots}}, flags))
    return parameters
