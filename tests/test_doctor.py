"""The doctor: what it says of an installation, of logs, and of models that are well or not."""

from __future__ import annotations

import importlib.metadata
import json
import math
import shutil
import subprocess

import numpy as np
import pytest
import torch

from rnem_world.api import Trained
from rnem_world.doctor import installation
from rnem_world.doctor.findings import WIDTH, Finding, as_lines
from rnem_world.doctor.installation import examine_installation
from rnem_world.doctor.run import (
    Watched,
    _sharpness,
    examine_run,
    judge_actions,
    judge_binding,
    judge_dreams,
    judge_losses,
    run_folder,
    watch,
)
from rnem_world.errors import ConfigError
from rnem_world.training.logging import read_log
from rnem_world.training.trainer import train
from tests.conftest import moving_discs


def log(*losses: float, valid: tuple[float, ...] = ()) -> list[dict]:
    entries = [
        {"kind": "training", "update": 20 * number, "loss": loss} for number, loss in enumerate(losses)
    ]
    return entries + [{"kind": "validation", "losses": {"loss": {"total": loss}}} for loss in valid]


FALLING = [100.0 * 0.95**step for step in range(60)]


@pytest.mark.parametrize(
    ("entries", "verdict", "says"),
    [
        (log(*FALLING), "good", "still falling"),
        (log(*FALLING, *[5.0 + 0.1 * (step % 3) for step in range(60)]), "good", "level"),
        (log(*FALLING, *[5.0 * 1.1**step for step in range(40)]), "bad", "it is diverging"),
        (log(*FALLING, math.nan), "bad", "NaN or infinite"),
        (log(*FALLING, valid=(20.0, 11.0, 14.0)), "note", "learns its data by heart"),
        (log(9.0, 8.0), "note", "too early to say"),
        (log(), "note", "0 entries"),
    ],
)
def test_losses_are_judged_by_the_log(entries, verdict, says):
    finding = judge_losses(entries)
    assert finding.verdict == verdict
    assert says in finding.text + finding.advice
    assert (verdict == "good") == (not finding.advice)


def test_a_single_outlier_is_no_divergence():
    assert judge_losses(log(*FALLING, 500.0)).verdict == "good"


def gammas_of(owners: torch.Tensor, slots: int, certainty: float) -> torch.Tensor:
    """(b, t, h, w) owners -> responsibilities of whom each pixel is to that degree, the rest shared."""
    chosen = torch.nn.functional.one_hot(owners, slots).movedim(-1, 2).float()
    return chosen * certainty + (1 - chosen) * (1 - certainty) / (slots - 1)


@pytest.mark.parametrize("certainty", [0.25, 0.6, 1.0])
@pytest.mark.parametrize("used", [1, 2, 4])
def test_sharpness_is_certainty_and_slots_are_counted(certainty, used):
    owners = (torch.arange(64) % used).view(1, 1, 8, 8)
    sharpness, slots = _sharpness(gammas_of(owners, 4, certainty), torch.ones(1, 1, 8, 8, dtype=torch.bool))
    assert sharpness == pytest.approx(certainty)
    if certainty == 1.0:
        assert slots == pytest.approx(used, rel=1e-4)
    if certainty == 0.25:
        assert slots == pytest.approx(4)


def test_sharpness_looks_only_where_something_is_shown():
    owners = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    gammas = gammas_of(owners, 4, 1.0)
    gammas[..., 4:] = 0.25
    shown = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    shown[..., :4] = True
    assert _sharpness(gammas, shown)[0] == pytest.approx(1.0)


def watched(**values) -> Watched:
    return Watched(**{
        "fg_ari": None, "sharpness": 0.95, "slots_used": 3.0, "slots": 5,
        "obeyed": 2.0, "obeyed_error": 0.1, "mass_left": 1.0, **values,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("values", "updates", "verdict"),
    [
        ({"fg_ari": 0.95}, None, "good"),
        ({"fg_ari": 0.7}, 9000, "note"),
        ({"fg_ari": 0.2}, 9000, "bad"),
        ({"fg_ari": 0.2}, 100, "note"),
        ({}, None, "good"),
        ({"sharpness": 0.3}, 9000, "bad"),
        ({"slots_used": 1.05}, 9000, "bad"),  # one slot has taken all, and is sharp
        ({"slots": 1, "fg_ari": 0.0}, 9000, "note"),
    ],
)
def test_binding_is_judged_by_truth_or_by_sharpness(values, updates, verdict):
    finding = judge_binding(watched(**values), updates)
    assert finding.verdict == verdict
    assert ("FG-ARI" in finding.text) == ("fg_ari" in values and values.get("slots") != 1)


@pytest.mark.parametrize(
    ("ratio", "error", "updates", "verdict"),
    [(2.0, 0.1, None, "good"), (1.01, 0.001, 9000, "bad"), (1.3, 0.3, 9000, "bad"), (1.0, 0.1, 100, "note")],
)
def test_actions_are_obeyed_if_others_cost_clearly_more(ratio, error, updates, verdict):
    trained = Trained.load("balls", "cpu")
    finding = judge_actions(watched(obeyed=ratio, obeyed_error=error), trained, updates)
    assert finding.verdict == verdict


def test_dreams_whose_objects_vanish_or_multiply_are_noted():
    trained = Trained.load("balls", "cpu")
    assert [judge_dreams(watched(mass_left=mass), trained).verdict for mass in (0.1, 1.0, 3.0, None)] == [
        "note",
        "good",
        "note",
        "note",
    ]


def test_a_shipped_world_is_well_and_its_data_is_made_for_it(rnem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = rnem("doctor", "balls", "--sequences", 8, "--json", "out.json", "--threads", 1)
    assert outcome.code == 0, outcome
    assert "8 sequences of avoid are made for this, and not kept" in outcome.out
    found = {entry["name"]: entry for entry in json.loads((tmp_path / "out.json").read_text())["findings"]}
    assert [found[name]["verdict"] for name in ("binding", "actions", "dreams")] == ["good"] * 3
    assert "FG-ARI" in found["binding"]["text"]
    assert "obeyed" in found["actions"]["text"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out.json"]


@pytest.fixture(scope="module")
def run_with_actions(make_discs, tiny, tmp_path_factory):
    """Discs that heed no actions, and a model that is fed them."""
    place = tmp_path_factory.mktemp("doctor")
    data = make_discs(place / "discs.h5", actions=3)
    train(data, tiny.config(epochs=1), place / "run", device="cpu", feed_actions=True)
    return place / "run"


def test_a_run_of_three_updates_is_too_young_to_judge(run_with_actions, rnem):
    outcome = rnem("doctor", run_with_actions, "--threads", 1)
    assert outcome.code == 0, outcome
    assert "too early to say" in outcome.out
    assert run_folder(run_with_actions) == run_with_actions
    assert run_folder(next((run_with_actions / "checkpoints").iterdir())) == run_with_actions


def test_a_log_that_grew_into_nan_is_bad_and_exits_with_1(run_with_actions, rnem, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_with_actions, run)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"kind": "training", "update": 9, "loss": NaN}\n{"kind": "trai')
    assert math.isnan(read_log(run)[-1]["loss"])
    outcome = rnem("doctor", run, "--threads", 1)
    assert outcome.code == 1
    assert "BAD   loss" in outcome.out


def test_actions_that_the_data_does_not_heed_are_not_obeyed(run_with_actions):
    seen = watch(Trained.load(run_with_actions, "cpu"), None, "test", 6, 0)
    assert seen.obeyed == pytest.approx(1.0, abs=0.02)
    assert seen.fg_ari is not None


def test_episodes_that_are_short_are_watched_for_as_long_as_they_last(tiny, tmp_path):
    """Sequences of episodes of six frames each: no frame of another episode is looked at."""
    import dataclasses

    from rnem_world.data.schema import DatasetAttributes
    from rnem_world.data.writer import write_shard
    from rnem_world.doctor.run import _read

    begins = np.zeros((18, 6), np.bool_)
    begins[::6] = True
    episodes = dataclasses.replace(moving_discs(6, 18, 32, 0, 3), is_first=begins)
    data = tmp_path / "short.h5"
    splits = {"training": episodes, "validation": episodes, "test": episodes}
    write_shard(data, splits, DatasetAttributes(number_of_actions=3))
    train(data, tiny.config(epochs=1), tmp_path / "run", device="cpu", feed_actions=True)
    trained = Trained.load(tmp_path / "run", "cpu")
    given, groups = _read(trained, None, "test", 4)
    assert (given.how.context, given.how.horizon) == (2, 2)
    assert given.lasts is None or given.lasts.all()
    assert groups.shape[:2] == given.frames[:, 1:3].shape[:2]
    assert watch(trained, None, "test", 4, 0).fg_ari is not None


def test_without_truth_binding_is_judged_by_sharpness(tiny, make_discs, tmp_path):
    data = make_discs(tmp_path / "discs.h5", drop=("groups", "collisions"))
    train(data, tiny.config(epochs=1), tmp_path / "run", device="cpu")
    findings = {
        finding.name: finding for finding in examine_run(str(tmp_path / "run"), None, None, device="cpu")
    }
    assert "pixels are their slot's to" in findings["binding"].text
    assert findings["actions"].text == "the model takes none"
    with pytest.raises(ConfigError, match="at least 2 are needed"):
        list(examine_run(str(tmp_path / "run"), None, None, sequences=1))


def test_every_part_of_this_installation_works(rnem):
    outcome = rnem("doctor", "--threads", 1)
    assert outcome.code == 0, outcome
    for part in ("rnem-world", "packages", "device", "threads", "oneDNN", "ONNX Runtime", "video"):
        assert f" {part} " in outcome.out
    assert "BAD" not in outcome.out
    assert all(len(line) <= WIDTH for line in outcome.out.splitlines())


def test_a_part_that_fails_is_bad_with_its_reason_and_advice(monkeypatch, rnem):
    def fail() -> str:
        raise OSError("no libx264\nsecond line")

    monkeypatch.setattr(installation, "_write_video", fail)
    outcome = rnem("doctor", "--threads", 1)
    assert outcome.code == 1
    assert "BAD   video" in outcome.out
    assert "doesn't work: second line" in outcome.out
    assert 'pip install "imageio[ffmpeg]"' in outcome.out


def test_a_step_that_differs_between_the_engines_is_noticed(monkeypatch):
    from rnem_world.envs.engine import OnnxEngine

    step = OnnxEngine.dream_step

    def wrong(self, dreams, actions, imagination):
        found = step(self, dreams, actions, imagination)
        found.state.output.add_(0.1)
        return found

    monkeypatch.setattr(OnnxEngine, "dream_step", wrong)
    with pytest.raises(ArithmeticError, match=r"differs by 0\.1"):
        installation._step_by("onnx", "onnxruntime", 1e-3)


def test_a_package_of_an_extra_that_is_missing_is_named_with_its_extra(monkeypatch):
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name in ("ale-py", "h5py"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    found = {finding.name: finding for finding in examine_installation("cpu")}
    assert found["packages"].verdict == "bad"
    assert "no h5py" in found["packages"].text
    assert found["[atari]"].verdict == "note"
    assert 'pip install "rnem-world[atari]"' in found["[atari]"].advice
    assert "Atari" not in found


def test_a_native_library_that_crashes_takes_nobody_down(monkeypatch):
    with pytest.raises(RuntimeError, match="ended with -6"):
        installation._in_a_process("import os; os.abort()")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        installation._in_a_process("1 / 0")
    monkeypatch.setattr(installation, "SECONDS", 0.2)
    with pytest.raises(subprocess.TimeoutExpired):
        installation._in_a_process("import time; time.sleep(5)")


def test_data_without_a_run_is_refused(rnem):
    outcome = rnem("doctor", "--data", "avoid")
    assert outcome.code == 2
    assert "no RUN to look at" in outcome.err


def test_lines_are_wrapped_and_indented():
    lines = list(as_lines([Finding("name", "bad", "word " * 40, "advice " * 30)]))
    assert lines[0].startswith("BAD   name ")
    assert all(line.startswith(" " * 21) for line in lines[1:])
    assert any(line.strip().startswith("-> advice") for line in lines)
