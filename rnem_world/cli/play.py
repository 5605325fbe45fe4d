"""``rnem-world play``: a learned world in the browser."""

from __future__ import annotations

import click

from rnem_world.cli import arguments
from rnem_world.cli.arguments import resolve_device
from rnem_world.errors import DependencyError


@click.command()
@click.argument("world", type=arguments.world, default="balls")
@click.option("--port", type=int, default=0, help="Port on 127.0.0.1. [any free one]")
@click.option("--no-browser", is_flag=True, help="Print the address, and open nothing.")
@click.option(
    "--visitors",
    type=int,
    default=32,
    show_default=True,
    help="Pages that may be open at once, a dream each.",
)
@click.option("--fps", type=int, help="Frames a second at first. [30; for games 15, their own]")
@click.option("--slots", type=int, help="Slots of a dream: more leave room for copies. [the model's own]")
@click.option("--imagination", help="latent or pixels. [latent where the model can]")
@click.option("--starts", help="Where to begin: a dataset, a file of starts, real, real:PRESET or :GAME.")
@arguments.seed_option("Of the first page's dreams; each further page has one more.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 ...")
@click.option("--threads", type=int, default=1, show_default=True, help="CPU threads that dream.")
def command(
    world: str,
    port: int,
    no_browser: bool,
    visitors: int,
    fps: int | None,
    slots: int | None,
    imagination: str | None,
    starts: str | None,
    seed: int,
    device: str,
    threads: int,
) -> None:
    """Play in a learned WORLD in the browser: act, go back in time, touch objects, compare futures.

    The page is for this machine alone: it is served on 127.0.0.1, and its address holds a secret. Ctrl-C ends it.
    """
    try:
        from rnem_world.play.server import PlayOptions, PlayServer
    except ImportError as error:
        raise DependencyError(
            f'playing needs {error.name or error}, which is missing: pip install "rnem-world[play]"'
        ) from error
    import webbrowser

    from rnem_world.envs.world import World
    from rnem_world.play.imagining import Imagining

    options = PlayOptions(port, visitors, fps, seed)
    resolve_device(device, threads)
    imagining = Imagining(World.load(world, device), slots, imagination, starts)
    imagining.begin(seed)  # what makes the first dream slow is done before a page waits for it
    server = PlayServer(imagining, options)

    def ready() -> None:
        click.echo(f"{world} can be played at {server.address} (Ctrl-C ends it)")
        if not no_browser:
            webbrowser.open(server.address)

    server.run(ready)
