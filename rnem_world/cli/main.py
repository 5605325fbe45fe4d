"""The ``rnem-world`` command: finds the subcommand, and turns our errors into one line and exit code 2."""

from __future__ import annotations

import importlib
import os
import sys

import click

from rnem_world.distributed import from_torchrun
from rnem_world.errors import RnemWorldError, suggest

COMMANDS = {
    "collect": "Collect video sequences from an environment into an HDF5 dataset.",
    "data": "Look into, check or import a dataset.",
    "train": "Train R-NEM or one of its baselines.",
    "evaluate": "Evaluate a trained model on a dataset.",
    "rollout": "Let a trained model imagine, and write the video.",
    "import-tf": "Turn a checkpoint of the original TensorFlow program into one of ours.",
    "export": "Write a trained model as a small folder to ship.",
    "push": "Push a trained model to the Hugging Face Hub, with a card.",
    "agent": "Train, evaluate and improve agents, in dreams and in reality.",
    "play": "Play in a learned world in the browser.",
    "env": "Look at learned worlds as environments, measure them, film them.",
    "doctor": "Say what works here, or how a run fares, with advice.",
    "reproduce": "Show which claims of the R-NEM paper hold.",
    "bench": "Measure how fast this machine runs the model.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that ``--help`` needs no torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Lists the commands in the order of a project's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's module in ``rnem_world.cli`` and returns its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        module = f"rnem_world.cli.{cmd_name.replace('-', '_')}"
        command = importlib.import_module(module).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.command is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command, or says which is the nearest to what was written."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"no command {args[0]!r}: {suggest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rnem-world")
def group() -> None:
    """Learned worlds made of objects: collect, train, evaluate, imagine."""


def main() -> None:
    """Runs the command line; the entry point of ``rnem-world``."""
    # Modules of a user's own, which ids and policies may name, are found here too, after all that is installed.
    sys.path.append(os.getcwd())
    try:
        group(prog_name="rnem-world")
    except RnemWorldError as error:
        message = " ".join(str(error).split())
        rank = from_torchrun().rank
        who = f" in process {rank}" if rank else ""
        click.echo(f"rnem-world: error{who}: {message}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # What no part of the program foresaw: a full disk below the standard output, for example.
        place = f"{error.filename}: " if error.filename else ""
        click.echo(f"rnem-world: error: {place}{error.strerror or error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
