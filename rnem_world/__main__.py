"""``python -m rnem_world`` is ``rnem-world``."""

from rnem_world.cli.main import main

main()
