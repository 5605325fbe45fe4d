"""Worlds go to the Hub and come back, by the Hub's own client and a server of its protocol on this machine."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from hub_server import TOKEN, commit_name, hub_server

from rnem_world.errors import CheckpointError, ConfigError, OutputError
from rnem_world.training.card import Figure, make_card, read_figures, without_head
from rnem_world.training.checkpoint import PRETRAINED, load_model, read_config
from rnem_world.training.hub import parse_repository
from rnem_world.training.publishing import write_world

pytest.importorskip("huggingface_hub")


def python(*arguments: str, address: str, home, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """Runs Python as a user with a Hub at an address; the client reads it when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_TOKEN": token}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def rnem(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return python("-m", "rnem_world.cli.main", *arguments, **options)


LOAD = """
from rnem_world import Trained, World
world = World.load("hf://me/balls")
print(world.fingerprint, len(list(world.folder.iterdir())))
print(Trained.load("hf://me/balls@{revision}", "cpu").config.data)
print((world.folder / "starts.npz").stat().st_size)
"""


def test_a_world_is_pushed_and_is_a_world_wherever_one_is_named(tmp_path):
    shipped = PRETRAINED / "balls"
    with hub_server() as hub:
        pushed = rnem(
            "push", "balls", "hf://me/balls", "--message", "First", address=hub.address, home=tmp_path
        )
        assert pushed.returncode == 0, pushed.stderr
        assert f"pushed to {hub.address}/me/balls/commit/{commit_name(1)}" in pushed.stdout
        files = hub.files("me/balls")
        assert files["model.safetensors"] == (shipped / "model.safetensors").read_bytes()
        assert {path.name for path in shipped.iterdir()} <= files.keys()
        assert hub.messages == ["First"]
        # An older version's graph that the new one hasn't goes; what isn't a world's stays.
        files |= {"old.onnx": b"stale", "notes.txt": b"mine"}
        again = rnem("push", "balls", "hf://me/balls", address=hub.address, home=tmp_path)
        assert again.returncode == 0, again.stderr
        assert "old.onnx" not in hub.files("me/balls")
        assert hub.files("me/balls")["notes.txt"] == b"mine"
        loaded = python(
            "-c", LOAD.format(revision=commit_name(1)), address=hub.address, home=tmp_path / "other", token=""
        )
        assert loaded.returncode == 0, loaded.stderr
    fingerprint, data, size = loaded.stdout.splitlines()
    from rnem_world.envs.world import World

    assert fingerprint.split()[0] == World.load("balls").fingerprint
    assert data == "avoid"
    assert int(size) == (shipped / "starts.npz").stat().st_size


def test_who_is_not_logged_in_is_told_how(tmp_path):
    with hub_server() as hub:
        refused = rnem(
            "push", "balls4mass64", "hf://me/w", address=hub.address, home=tmp_path, token="hf_wrong"
        )
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert "can't push to hf://me/w" in refused.stderr
        assert "hf auth login" in refused.stderr
        assert hub.repositories == {}


def test_a_repository_can_be_private(tmp_path):
    with hub_server() as hub:
        pushed = rnem("push", "balls4mass64", "hf://me/w", "--private", address=hub.address, home=tmp_path)
        assert pushed.returncode == 0, pushed.stderr
        assert hub.private == {"me/w"}


@pytest.mark.parametrize("name", ["me/world", "hf://world", "hf://me/world/else", "hf://me/w@", "hf:/me/w"])
def test_what_names_no_repository_is_refused(name):
    with pytest.raises(ConfigError, match="expected hf://owner/name"):
        parse_repository(name)


def test_revisions_are_told_apart():
    assert parse_repository("hf://me/my.world-2") == ("me/my.world-2", None)
    assert parse_repository("hf://me/w@refs/pr/1") == ("me/w", "refs/pr/1")


def head_of(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


@pytest.fixture
def evaluated(trained_run, tmp_path):
    """A run with what `rnem-world evaluate` writes, a picture, and things that are nobody's business."""
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    evaluation = {"sequences": 6, "noise": 0.2, "scores": {"fg_ari": 0.91, "ari": 0.9, "secret": 1.0}}
    values = {
        "run": "/home/me/run",
        "data": "/home/me/discs.h5",
        "split": "test",
        "evaluations": [evaluation],
    }
    (run / "evaluation-discs-2-slots.json").write_text(json.dumps(values))
    imagined = {
        "data": "/home/me/discs.h5",
        "split": "test",
        "sequences": 6,
        "position_errors": [0.1, 0.2, 0.3, 0.4, 0.5],
        "latent": {"position_errors": [0.11]},
    }
    (run / "imagination-discs-2-slots.json").write_text(json.dumps(imagined))
    (run / "evaluation-broken.json").write_text("{")
    return run


def test_the_folder_of_a_run_has_its_figures_and_nothing_of_this_machine(evaluated, tmp_path):
    out = write_world(evaluated, tmp_path / "out", "hf://me/discs", license_name="apache-2.0")
    assert {path.name for path in out.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    for path in ("README.md", "config.json"):
        assert str(tmp_path) not in (out / path).read_text()
        assert "/home" not in (out / path).read_text()
    assert load_model(out)[1].data == read_config(out).data == "discs"
    text = (out / "README.md").read_text()
    head = head_of(text)
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "rnem-world"
    assert {"world-model", "object-centric", "Discs-v0"} <= set(head["tags"])
    (results,) = head["model-index"][0]["results"]
    assert results["dataset"] == {"name": "discs", "type": "discs", "split": "test"}
    values = {metric["type"]: metric["value"] for metric in results["metrics"]}
    assert values == {
        "fg_ari_noise_0.2": 0.91,
        "ari_noise_0.2": 0.9,
        "position_errors_1": 0.1,
        "position_errors_5": 0.5,
        "latent_position_errors_1": 0.11,
    }
    assert "| FG-ARI (input noise 0.2) | 0.91 | discs, test | 6 |" in text
    assert 'Trained.load("hf://me/discs")' in text  # it has no heads, so it is no environment


def test_a_readme_of_its_own_becomes_the_cards_text(evaluated, tmp_path):
    checkpoint = sorted((evaluated / "checkpoints").iterdir())[-1]
    (checkpoint / "README.md").write_text("---\nlicense: gpl\n---\n# Mine\n\nIt learned a lot.\n")
    out = write_world(checkpoint, tmp_path / "out", "hf://me/discs")
    text = (out / "README.md").read_text()
    assert head_of(text)["license"] == "mit"
    assert "gpl" not in text
    assert "# Mine\n\nIt learned a lot." in text
    assert read_figures([checkpoint]) == []  # those of the run may be of another checkpoint
    assert "model-index" not in head_of(text)


def test_a_shipped_worlds_card_keeps_its_limits_and_says_how_to_step_inside(tmp_path):
    out = write_world("stove", tmp_path / "out", "hf://me/stove")
    text = (out / "README.md").read_text()
    assert (PRETRAINED / "stove" / "README.md").read_text().strip() in text
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    compile(code, "card", "exec")
    assert 'gymnasium.make("RNEM-World-v0", checkpoint="hf://me/stove")' in code


def test_what_is_on_the_hub_or_in_the_way_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is on the Hub already"):
        write_world("hf://me/w", tmp_path / "out", "hf://me/w")
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="already exists"):
        write_world("balls", tmp_path / "out", "hf://me/w")


def test_the_head_is_yaml_whatever_the_names_are():
    config = dataclasses.replace(read_config(PRETRAINED / "balls"), environment="a: b # c")
    figures = [Figure("fg_ari", "FG-ARI", 0.5, "data: 'x'", "test", 3)]
    head = head_of(make_card("on: off", "hf://me/w", config, 1, figures, "mit"))
    assert head["tags"][-1] == "a: b # c"
    assert head["model-index"][0]["name"] == "on: off"
    assert without_head("# no head\n---\n") == "# no head\n---\n"
