"""``rnem-world push``: a trained model to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import click

from rnem_world.cli import arguments


@click.command()
@click.argument("world", type=arguments.world)
@click.argument("repository", metavar="hf://OWNER/NAME")
@click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Which of a run.",
)
@click.option(
    "--license", "license_name", default="mit", show_default=True, help="Under which others may use it."
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--message", help="What the commit says.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write what would be pushed into this folder instead."
)
def command(
    world: str,
    repository: str,
    checkpoint: str,
    license_name: str,
    private: bool,
    message: str | None,
    out: Path | None,
) -> None:
    """Push WORLD, a run, a checkpoint or a shipped world, to the Hugging Face Hub, with a card.

    The card has the model's description or its README, how to use it, license, tags, and the figures that
    `rnem-world evaluate` left in the run's folder. Paths of this machine are left out. `hf auth login` logs in.

    Afterwards hf://OWNER/NAME is a world wherever one is named: in commands, World.load, gymnasium.make;
    hf://OWNER/NAME@REVISION pins a branch, tag or commit.
    """
    from rnem_world.errors import ConfigError
    from rnem_world.training.hub import parse_repository
    from rnem_world.training.publishing import publish, write_world

    parse_repository(repository)
    if out is not None:
        if private or message is not None:
            raise ConfigError(
                "--private and --message are for a push, and --out pushes nothing: leave them out"
            )
        write_world(world, out, repository, checkpoint, license_name)
        click.echo(f"{out}: {', '.join(sorted(file.name for file in out.iterdir()))}; nothing was pushed")
        return
    address = publish(
        world,
        repository,
        prefer=checkpoint,
        license_name=license_name,
        private=private,
        message=message or "",
    )
    click.echo(f"pushed to {address}; it is {repository} wherever a world is named")
