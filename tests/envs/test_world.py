from __future__ import annotations

from dreamers import write_world

from rnem_world.envs.world import World


def test_a_world_is_called_as_its_run_and_not_as_one_of_its_checkpoints(tmp_path):
    write_world(tmp_path / "mine" / "checkpoints" / "update-000000003")
    write_world(tmp_path / "shared")
    assert World.load(tmp_path / "mine").name == "mine"
    assert World.load(tmp_path / "shared").name == "shared"
