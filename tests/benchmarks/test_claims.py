"""The paper's claims: rows from figures, and a tiny reproduction from data to the report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rnem_world.agents.collecting import collect
from rnem_world.benchmarks import claims, slot_measures
from rnem_world.benchmarks.claim_report import CLAIMS, Claim, Row, rows, table
from rnem_world.benchmarks.claims import VARIANTS, Plan, measure_all, train_all
from rnem_world.errors import ConfigError
from rnem_world.evaluation.truth import Objects
from rnem_world.training.recipes import recipe

TINY = {"model": {"hidden_size": 16}, "training": {"batch_size": 4, "max_updates": 1}}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a little data of each kind."""
    folder = tmp_path_factory.mktemp("claims")
    sizes = {"num_train": 8, "num_valid": 4, "num_test": 0, "frames": 31, "progress": False}
    for name in ("paper32", "curtain32"):
        for stage in recipe(name).stages:
            collect(**{**stage.collect[0], **sizes}, out=folder / "data" / f"{name}-{stage.name}.h5")
    return folder


def test_a_reproduction(place, monkeypatch, rnem):
    """All that a claim needs is trained, measured once, and reported; what isn't trained is said so."""
    monkeypatch.chdir(place)
    plan = Plan(32, place / "claims32", ("r_nem", "rnn", "r_nem_curtain"), (0, 1), 4, TINY)
    lines: list[str] = []
    assert not train_all(plan, hours=1e-9, device="cpu", report=lines.append)
    assert train_all(plan, device="cpu", report=lines.append)
    assert [line for line in lines if ", seed" in line][-5:] == [
        "rnn, seed 0",
        "r_nem_curtain, seed 0",
        "r_nem, seed 1",
        "rnn, seed 1",
        "r_nem_curtain, seed 1",
    ]
    figures = measure_all(plan, device="cpu")
    assert {name: set(seeds) for name, seeds in figures.items()} == {
        name: {"0", "1"} for name in plan.variants
    }
    four = figures["r_nem"]["0"]["four"]
    assert four["plain_bce"] == pytest.approx(np.mean(four["curve"][-10:]))
    assert "position" in figures["r_nem"]["0"]["pixels"]
    assert "position" not in figures["rnn"]["0"]["pixels"]
    monkeypatch.setattr(claims, "measure", lambda *arguments: pytest.fail("it was measured already"))
    assert measure_all(plan, device="cpu") == figures
    outcome = rnem("reproduce", "--measure-only", "--seeds", "0,1", "--sequences", "4", "--threads", "1")
    assert outcome.code == 0, outcome
    written = json.loads((place / "claims32" / "claims.json").read_text())
    by_text = {row["claim"]: row for row in written["rows"]}
    ratio = by_text["plain BCE, 4 balls (never seen), R-NEM over RNN"]
    found = [figures["r_nem"][seed]["four"]["plain_bce"] for seed in "01"]
    rival = [figures["rnn"][seed]["four"]["plain_bce"] for seed in "01"]
    assert ratio["values"] == pytest.approx([mine / other for mine, other in zip(found, rival, strict=True)])
    assert by_text["plain BCE, 4 balls (never seen), R-NEM over LSTM"]["values"] == []
    assert "| not trained |" in (place / "claims32" / "claims.md").read_text()
    assert (place / "claims32" / "claims.png").stat().st_size > 10_000


def test_every_claim_is_of_variants_that_there_are():
    for claim in CLAIMS:
        assert claim.figure[0] in VARIANTS
        assert claim.over is None or claim.over[0] in VARIANTS


def test_a_row_has_mean_error_and_verdict():
    claim = Claim("", ("r_nem", "a.b"), ("rnn", "a.b"), most=1.0)
    figures = {"r_nem": {"0": {"a": {"b": 2.0}}, "1": {"a": {"b": 6.0}}, "2": {"a": {"b": 1.0}}}}
    figures["rnn"] = {"0": {"a": {"b": 4.0}}, "1": {"a": {"b": 4.0}}}
    (found,) = rows(figures, [claim])
    assert found.values == (0.5, 1.5)
    assert found.mean == 1.0
    assert found.error == pytest.approx(math.sqrt(0.5) / math.sqrt(2))
    assert found.holds
    assert Row(Claim("", ("r_nem", "x"), least=2.0), (1.0,)).holds is False
    assert Row(Claim("", ("r_nem", "x"), least=2.0), ()).holds is None
    assert "1 +- 0.5" in table([found])


def test_nothing_measured_makes_rows_without_values():
    assert all(row.values == () and row.holds is None for row in rows({}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "48"], "choose 32 or 64"),
        (["--variants", "r_nemm"], "did you mean 'r_nem'"),
        (["--hours", "0"], "above 0"),
        (["--sequences", "1"], "at least 2"),
    ],
)
def test_what_makes_no_sense_is_refused(rnem, arguments, message):
    outcome = rnem("reproduce", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_plan_refuses_other_sizes(tmp_path):
    with pytest.raises(ConfigError, match="48"):
        Plan(48, tmp_path)


def objects(positions: list[list[list[float]]], shown: list[list[int]]) -> Objects:
    """One sequence of balls with radius 2 on frames of 16 x 16; of ball n in frame t so many pixels show."""
    times, balls = len(positions), len(positions[0])
    groups = torch.zeros(1, times, 16, 16, dtype=torch.uint8)
    for time in range(times):
        for ball in range(balls):
            groups[0, time, 4 * ball].flatten()[: shown[time][ball]] = ball + 1
    return Objects(groups, torch.tensor([positions]), torch.full((1, balls), 2.0))


def test_slots_of_balls_that_touch_are_told_from_others():
    """Balls 0 and 1 touch after the step, ball 2 is far; slots 4, 2 and 0 have them, slots 1 and 3 have none."""
    before = [[2.0, 2.0], [8.0, 2.0], [14.0, 14.0]]
    after = [[3.0, 2.0], [7.2, 2.0], [14.0, 14.0]]
    found = objects([before, after], [[9, 9, 9]] * 2)
    kinds = slot_measures._kinds_of_pairs(found, torch.tensor([[4, 2, 0]]), 1, 5)
    pairs = {name: set(map(tuple, mask[0].nonzero().tolist())) for name, mask in kinds.items()}
    assert pairs["touching"] == {(4, 2), (2, 4)}
    assert pairs["apart"] == {(4, 0), (0, 4), (2, 0), (0, 2)}
    assert pairs["empty"] == {(owner, other) for owner in (4, 2, 0) for other in (1, 3)}


def test_a_hidden_ball_is_counted_until_it_is_back():
    """A part that shows neither counts as hidden nor ends it; more than half of the ball does."""
    shown = [[9], [0], [0], [2], [0], [5], [0]]
    sight = slot_measures._sight(objects([[[5.0, 5.0]]] * len(shown), shown))
    assert sight.visible[0, :, 0].tolist() == [True, False, False, False, False, True, False]
    assert sight.away[0, :, 0].tolist() == [0, 1, 2, 2, 3, 0, 1]
    assert sight.gone[0, :, 0].tolist() == [False, True, True, False, True, False, True]


def test_attention_becomes_a_square_without_its_diagonal():
    weights = torch.arange(6.0).view(1, 3, 2)
    assert slot_measures._square(weights)[0].tolist() == [[0, 0, 1], [2, 0, 3], [4, 5, 0]]
