from __future__ import annotations

import errno
import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file

from rnem_world.errors import CheckpointError, OutputError
from rnem_world.io import DISPLACED, put_back_folders
from rnem_world.models.config import ModelConfig
from rnem_world.models.world_model import WorldModel
from rnem_world.training import checkpoint
from rnem_world.training.config import RunConfig
from rnem_world.training.run import prune

CONFIG = RunConfig(ModelConfig(core="rnn", architecture="conv32", slots=2, hidden_size=8))


def model_of(value: float, config: RunConfig = CONFIG) -> WorldModel:
    model = WorldModel(config.model)
    for parameter in model.parameters():
        parameter.data.fill_(value)
    return model


def value_of(folder) -> float:
    """The value with which `model_of` filled the weights of a whole checkpoint."""
    values = {
        float(entry) for tensor in checkpoint.read_weights(folder).values() for entry in tensor.unique()
    }
    (value,) = values
    assert checkpoint.read_config(folder) == CONFIG
    return value


@pytest.fixture
def folder(tmp_path):
    """A checkpoint whose weights are 1."""
    path = tmp_path / "run" / "checkpoints" / "update-000000001"
    checkpoint.save_checkpoint(path, model_of(1.0), CONFIG, {"n": 1})
    return path


def update(run, number: int, value: float) -> None:
    path = run / checkpoint.CHECKPOINTS / f"update-{number:09d}"
    checkpoint.save_checkpoint(path, model_of(value), CONFIG, {"n": number})


def test_what_is_saved_is_loaded(tmp_path):
    torch.manual_seed(0)
    model = WorldModel(CONFIG.model)
    state = {"optimizer": {"state": {0: torch.ones(2)}}, "progress": {"best_loss": float("inf")}}
    checkpoint.save_checkpoint(tmp_path / "c", model, CONFIG, state)
    loaded, config = checkpoint.load_model(tmp_path / "c")
    assert config == CONFIG
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    assert checkpoint.load_trainer(tmp_path / "c")["progress"] == state["progress"]
    assert oct((tmp_path / "c").stat().st_mode & 0o777) == "0o755"


def test_half_precision_weights_are_widened(folder):
    weights = {name: value.half() for name, value in checkpoint.read_weights(folder).items()}
    save_file(weights, folder / checkpoint.MODEL_FILE)
    model, _ = checkpoint.load_model(folder)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert {float(value.min()) for value in model.state_dict().values()} == {1.0}


def test_a_checkpoint_is_replaced(folder, listing):
    checkpoint.save_checkpoint(folder, model_of(2.0), CONFIG, {"n": 2})
    assert value_of(folder) == 2.0
    assert sorted(os.listdir(folder.parent)) == [folder.name]


@pytest.mark.parametrize("failing", ["save_file", "save", "fsync", "replace", "second replace"])
@pytest.mark.parametrize("other", [False, True])
def test_a_failure_while_writing_harms_nothing(failing, other, folder, monkeypatch, listing):
    calls = {"count": 0}
    before = listing(folder.parent)

    def full(*arguments, **options):
        calls["count"] += 1
        if failing == "second replace" and calls["count"] != 2:
            return replace(*arguments, **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    replace = os.replace
    place = {
        "save_file": (checkpoint, "save_file"),
        "save": (torch, "save"),
        "fsync": (os, "fsync"),
        "replace": (os, "replace"),
        "second replace": (os, "replace"),
    }[failing]
    target = folder.with_name("update-000000002") if other else folder
    with monkeypatch.context() as patch:
        patch.setattr(*place, full)
        if other and failing == "second replace":  # a new checkpoint needs but one
            checkpoint.save_checkpoint(target, model_of(2.0), CONFIG, {"n": 2})
            return
        with pytest.raises(OutputError, match="No space left on device; free space"):
            checkpoint.save_checkpoint(target, model_of(2.0), CONFIG, {"n": 2})
    assert listing(folder.parent) == before
    assert value_of(folder) == 1.0


def test_a_full_disk_harms_nothing(folder, file_size_limit, listing):
    before = listing(folder.parent)
    for limit in (100, 100_000):  # the configuration, then the weights don't fit
        with file_size_limit(limit), pytest.raises(OutputError, match="can't write"):
            checkpoint.save_checkpoint(folder, model_of(2.0), CONFIG, {"n": 2})
        assert listing(folder.parent) == before
    big = {"n": torch.zeros(4_000_000)}
    with file_size_limit(8_000_000), pytest.raises(OutputError, match="can't write"):
        checkpoint.save_checkpoint(folder, model_of(2.0), CONFIG, big)
    assert listing(folder.parent) == before
    assert value_of(folder) == 1.0


def test_a_replacement_that_was_killed_is_put_back(folder):
    run = folder.parents[1]
    displaced = folder.with_name(f".{folder.name}.abc.tmp")
    displaced.mkdir()
    os.replace(folder, displaced / DISPLACED)
    assert checkpoint.updates_of(run) == []
    put_back_folders(folder.parent)
    assert value_of(folder) == 1.0
    # And where the new one had found its place already, that one stays.
    displaced.mkdir(exist_ok=True)
    shutil.copytree(folder, displaced / DISPLACED)
    checkpoint.save_checkpoint(folder, model_of(2.0), CONFIG, {"n": 2})
    prune(run, 2, set())
    assert value_of(folder) == 2.0
    assert os.listdir(folder.parent) == [folder.name]


def test_pruning_keeps_the_latest_the_protected_and_what_is_not_an_update(tmp_path):
    for number in range(1, 6):
        update(tmp_path, number, float(number))
    place = tmp_path / checkpoint.CHECKPOINTS
    shutil.copytree(place / "update-000000001", place / "epoch-0001")
    (place / "update-mine").mkdir()
    (place / ".update-000000009.xyz.tmp").mkdir()
    prune(tmp_path, 2, {"update-000000002"})
    left = ["epoch-0001", "update-000000002", "update-000000004", "update-000000005", "update-mine"]
    assert sorted(os.listdir(place)) == left


def test_a_checkpoint_is_never_half_deleted(tmp_path, monkeypatch):
    for number in (1, 2):
        update(tmp_path, number, float(number))
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)  # killed before it begins
    prune(tmp_path, 1, set())
    assert [folder.name for folder in checkpoint.updates_of(tmp_path)] == ["update-000000002"]


def test_best_and_last_are_found(tmp_path):
    for number in (1, 2, 3):
        update(tmp_path, number, float(number))
    assert checkpoint.find_checkpoint(tmp_path).name == "update-000000003"  # none is best yet
    (tmp_path / checkpoint.BEST_FILE).write_text(json.dumps({"checkpoint": "update-000000002"}))
    assert checkpoint.find_checkpoint(tmp_path).name == "update-000000002"
    assert checkpoint.find_checkpoint(tmp_path, "last").name == "update-000000003"
    shutil.rmtree(tmp_path / checkpoint.CHECKPOINTS / "update-000000002")
    assert checkpoint.find_checkpoint(tmp_path).name == "update-000000003"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"update-000000001"'])
def test_a_broken_best_json_is_named(text, folder):
    run = folder.parents[1]
    (run / checkpoint.BEST_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"best\.json is broken"):
        checkpoint.find_checkpoint(run)
    assert checkpoint.find_checkpoint(run, "last") == folder


class Malicious:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_in_place_of_weights_is_not_executed(folder, tmp_path):
    mark = tmp_path / "mark"
    for content in (pickle.dumps(Malicious(mark)), None):
        if content is None:
            torch.save({"weights": Malicious(mark)}, folder / checkpoint.MODEL_FILE)
        else:
            (folder / checkpoint.MODEL_FILE).write_bytes(content)
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            checkpoint.load_model(folder)
        assert not mark.exists()


def test_a_pickle_in_place_of_the_training_state_is_not_executed(folder, tmp_path):
    mark = tmp_path / "mark"
    for content in (pickle.dumps(Malicious(mark)), None):
        if content is None:
            torch.save({"progress": Malicious(mark)}, folder / checkpoint.TRAINER_FILE)
        else:
            (folder / checkpoint.TRAINER_FILE).write_bytes(content)
        with pytest.raises(CheckpointError, match="never loaded") as error:
            checkpoint.load_trainer(folder)
        assert "weights_only" not in str(error.value)
        assert not mark.exists()
    Malicious(mark).__reduce__()[0](str(mark))
    assert mark.exists()  # it would have worked


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.99])
@pytest.mark.parametrize("name", [checkpoint.MODEL_FILE, checkpoint.TRAINER_FILE])
def test_a_truncated_file_is_named(name, cut, folder):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: cut if isinstance(cut, int) else int(cut * len(content))])
    load = checkpoint.load_model if name == checkpoint.MODEL_FILE else checkpoint.load_trainer
    with pytest.raises(CheckpointError) as error:
        load(folder)
    assert str(folder / name) in str(error.value)


def test_a_missing_training_state_says_how_to_go_on(folder):
    (folder / checkpoint.TRAINER_FILE).unlink()
    with pytest.raises(CheckpointError, match="--start-from"):
        checkpoint.load_trainer(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON file"),
        ("[1]", "not the configuration of a rnem-world checkpoint"),
        ('{"model": {}}', "not the configuration of a rnem-world checkpoint"),
        ('{"format": "rnem-world checkpoint", "version": 99}', "format version 99, this program reads 1"),
        ('{"format": "rnem-world checkpoint", "version": 1, "modell": {}}', "did you mean 'model'"),
    ],
)
def test_a_broken_configuration_is_named(text, message, folder):
    (folder / checkpoint.CONFIG_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=message) as error:
        checkpoint.load_model(folder)
    assert str(folder / checkpoint.CONFIG_FILE) in str(error.value)


def test_a_missing_configuration_is_named(folder):
    (folder / checkpoint.CONFIG_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"can't read .*config.json"):
        checkpoint.load_model(folder)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ModelConfig(core="lstm", architecture="conv32", slots=2, hidden_size=8), "lacks 'core"),
        (
            ModelConfig(core="rnn", architecture="conv32", slots=2, hidden_size=9),
            r"has shape .* was expected",
        ),
        (
            ModelConfig(core="rnn", architecture="conv32", number_of_actions=3, hidden_size=8),
            "lacks 'action_emb",
        ),
    ],
)
def test_weights_of_another_model_are_refused_and_the_model_is_unchanged(other, message, folder):
    model = WorldModel(other)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"belongs to another model.*{message}"):
        checkpoint.load_weights(model, folder)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_unknown_weights_are_refused(folder):
    weights = checkpoint.read_weights(folder)
    save_file({**weights, "extra": torch.ones(1)}, folder / checkpoint.MODEL_FILE)
    with pytest.raises(CheckpointError, match="has an unknown 'extra'"):
        checkpoint.load_model(folder)


def test_what_holds_no_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        checkpoint.find_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.find_checkpoint(tmp_path)
