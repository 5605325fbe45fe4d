from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rnem_world.data.dataset import Dataset
from rnem_world.data.loader import Batch, read_batch
from rnem_world.errors import ConfigError
from rnem_world.evaluation import metrics
from rnem_world.evaluation.one_step import EvaluationConfig, evaluate
from rnem_world.models.bernoulli import Bernoulli
from rnem_world.models.config import LossConfig, ModelConfig
from rnem_world.models.world_model import WorldModel

STEPS = 3


@pytest.fixture(scope="module")
def model() -> WorldModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return WorldModel(ModelConfig(architecture="conv32", slots=2, hidden_size=8, attention_size=4)).eval()


@pytest.fixture(scope="module")
def batches(discs_file) -> list[Batch]:
    """Of unequal sizes, so that a mean of means would be wrong."""
    with Dataset.open(discs_file) as dataset:
        return [
            read_batch(dataset, "test", indices, STEPS + 1, arrays=["groups", "collisions"])
            for indices in ([0, 1, 2, 3], [4, 5])
        ]


def entropy(means: np.ndarray, target: np.ndarray) -> np.ndarray:
    means = means.clip(1e-6, 1 - 1e-6)
    return -(target * np.log(means) + (1 - target) * np.log(1 - means))


def divergence(means: np.ndarray) -> np.ndarray:
    """KL(Bernoulli(0) || Bernoulli(means))."""
    return -np.log(1 - means.clip(1e-6, 1 - 1e-6))


def by_hand(model, batches, slots, noise, weight, seed) -> dict[str, np.ndarray]:
    """The curves by the equations, in double precision: [steps, (total, intra, inter)] sums over all sequences."""
    generator = torch.Generator().manual_seed(seed)
    curves: dict[str, np.ndarray] = {}
    for batch in batches:
        frames = batch.frames.float()
        state = model.initial_state(len(frames), slots, generator)
        inputs = Bernoulli(1).noisy(frames[:, :-1], noise, generator)
        for step in range(STEPS):
            with torch.no_grad():
                transition = model.predict(state, inputs[:, step])
                state = model.update(transition, frames[:, step + 1])
            means, gamma = transition.prediction.double().numpy(), state.gamma.double().numpy()
            target = frames[:, step + 1].double().numpy()
            mask = batch.collisions[:, step].double().numpy()
            likelihood = target[:, None] * means + (1 - target[:, None]) * (1 - means) + 1e-6
            assert gamma == pytest.approx(likelihood / likelihood.sum(axis=1, keepdims=True), abs=1e-5)
            intra = gamma * entropy(means, target[:, None])
            inter = (1 - gamma) * divergence(means)
            brightest = means.max(axis=1)
            for name, parts in {
                "loss": (intra, inter),
                "relational": (intra * mask[:, None], inter * mask[:, None]),
                "upper_bound": (entropy(brightest, target), divergence(brightest)),
                "relational_upper_bound": (entropy(brightest, target) * mask, divergence(brightest) * mask),
            }.items():
                terms = np.array([parts[0].sum() + weight * parts[1].sum(), parts[0].sum(), parts[1].sum()])
                curves.setdefault(name, np.zeros((STEPS, 3)))[step] += terms
            white = means.max(axis=1, keepdims=True) > 0.1
            own = np.where(white, means, 1 - means) + 1e-6
            mixture = (own / own.sum(axis=1, keepdims=True) * means).sum(axis=1)
            curves.setdefault("plain_bce", np.zeros(STEPS))[step] += entropy(mixture, target).sum()
    return {name: values / 6 for name, values in curves.items()}


@pytest.mark.parametrize("slots", [None, 2, 5])
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.5, 0.0, 2.0)])
def test_evaluation_equals_the_equations(slots, noise, weights, model, batches):
    loss = LossConfig(inter_weight=0.7)
    config = EvaluationConfig(weights, slots, noise, loss, last_steps=2)
    evaluation = evaluate(model, batches, config, torch.Generator().manual_seed(9))
    expected = by_hand(model, batches, slots, noise, 0.7, 9)
    assert (evaluation.sequences, evaluation.slots, evaluation.noise) == (6, slots or 2, noise)
    assert evaluation.losses.keys() == expected.keys() - {"plain_bce"}
    for name, values in expected.items():
        totals = values if name == "plain_bce" else values[:, 0]
        assert evaluation.curves[name] == pytest.approx(totals, rel=1e-4), name
        if name == "plain_bce":
            continue
        for index, term in enumerate(("total", "intra", "inter")):
            mean = np.average(values[:, index], weights=weights)
            assert evaluation.losses[name][term] == pytest.approx(mean, rel=1e-4), (name, term)
            last = values[-2:, index].mean()
            assert evaluation.losses[name][f"last_{term}"] == pytest.approx(last, rel=1e-4), (name, term)
    assert evaluation.loss == evaluation.losses["loss"]["total"]
    assert evaluation.scores["plain_bce"] == pytest.approx(expected["plain_bce"].mean(), rel=1e-4)
    assert evaluation.scores["last_plain_bce"] == pytest.approx(expected["plain_bce"][-2:].mean(), rel=1e-4)


def test_scores_are_means_over_sequences(model, batches):
    config = EvaluationConfig((1.0, 0.0, 2.0), None, 0.0, last_steps=1, ami_sequences=5)
    evaluation = evaluate(model, batches, config, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    gammas, groups = [], []
    for batch in batches:
        frames = Bernoulli.from_uint8(batch.frames, 1)
        state = model.initial_state(len(frames), None, generator)
        rows = []
        for step in range(STEPS):
            with torch.no_grad():
                state = model.update(model.predict(state, frames[:, step]), frames[:, step + 1])
            rows.append(state.gamma[:, :, 0])
        gammas.append(torch.stack(rows, dim=1))
        groups.append(batch.groups[:, 1:])
    gamma, group = torch.cat(gammas), torch.cat(groups)
    weights = torch.tensor([1.0, 0.0, 2.0])
    scores = metrics.adjusted_rand_index(gamma, group, weights)
    ami, _ = metrics.adjusted_mutual_information(gamma[:5], group[:5], weights)
    fg_ari, miou = metrics.foreground_ari(gamma, group), metrics.mean_iou(gamma, group)
    expected = {
        "ari": scores.ari,
        "last_ari": scores.last_ari,
        "confidence": scores.confidence,
        "last_confidence": scores.last_confidence,
        "ami": ami.mean(),
        "fg_ari": fg_ari.mean(),
        "last_fg_ari": fg_ari[:, -1].mean(),
        "miou": miou.mean(),
        "last_miou": miou[:, -1].mean(),
    }
    found = {name: value for name, value in evaluation.scores.items() if "plain" not in name}
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-5)


def test_the_original_figures_alone(model, batches):
    config = EvaluationConfig((1.0,) * STEPS, ami_sequences=0, honest=False)
    evaluation = evaluate(model, batches, config, torch.Generator())
    assert set(evaluation.scores) == {"ari", "last_ari", "confidence", "last_confidence"}


def test_what_the_data_lacks_is_left_out(model, batches):
    bare = [dataclasses.replace(batch, groups=None, collisions=None) for batch in batches]
    evaluation = evaluate(model, bare, EvaluationConfig((1.0,) * STEPS), torch.Generator())
    assert set(evaluation.losses) == {"loss", "upper_bound"}
    assert set(evaluation.scores) == {"plain_bce", "last_plain_bce"}


def test_events_weigh_whole_frames(model, batches):
    events = [
        dataclasses.replace(
            batch, collisions=torch.zeros(len(batch.frames), STEPS + 1, 1, 1, 1, dtype=torch.uint8)
        )
        for batch in batches
    ]
    for batch in events:
        batch.collisions[:, 1] = 1  # belongs to the transition from frame 1 to frame 2
    evaluation = evaluate(model, events, EvaluationConfig((1.0,) * STEPS), torch.Generator())
    curve = evaluation.curves["loss"]
    assert evaluation.curves["relational"] == pytest.approx([0.0, curve[1], 0.0], rel=1e-5)


def test_frames_of_255_levels_are_scaled(model, batches):
    grey = [
        dataclasses.replace(batch, frames=batch.frames * 255, maximum_value=255, collisions=None)
        for batch in batches
    ]
    config = EvaluationConfig((1.0,) * STEPS)
    losses = [
        evaluate(model, given, config, torch.Generator().manual_seed(0)).loss for given in (batches, grey)
    ]
    assert losses[0] == losses[1]


def test_the_same_seed_gives_the_same_figures_and_the_model_is_left_as_it_was(model, batches):
    config = EvaluationConfig((1.0,) * STEPS, noise=0.2)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second, other = (
        evaluate(model, batches, config, torch.Generator().manual_seed(seed)).to_dict() for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other
    assert model.training
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    with pytest.raises(ConfigError):
        evaluate(model, batches, EvaluationConfig((1.0,) * 9), torch.Generator())
    assert model.training
    model.eval()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_weights": ()}, "a number for each step"),
        ({"step_weights": (0.0, 0.0)}, "above 0"),
        ({"noise": 1.5}, "noise's probability is 1.5"),
        ({"noise": -0.1}, "noise's probability is -0.1"),
        ({"noise": float("nan")}, "noise's probability is nan"),
        ({"last_steps": 0}, "last_steps is 0"),
        ({"ami_sequences": -1}, "ami_sequences is -1"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig(**options)


def test_too_few_frames_slots_or_sequences_are_refused(model, batches):
    with pytest.raises(ConfigError, match="have 4: evaluate fewer"):
        evaluate(model, batches, EvaluationConfig((1.0,) * 9), torch.Generator())
    with pytest.raises(ConfigError, match="at least 2 slots"):
        evaluate(model, batches, EvaluationConfig((1.0,) * STEPS, slots=1), torch.Generator())
    with pytest.raises(ConfigError, match="no sequence to evaluate on"):
        evaluate(model, [], EvaluationConfig((1.0,) * STEPS), torch.Generator())
