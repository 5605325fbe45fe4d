from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from rnem_world.config import build
from rnem_world.errors import CheckpointError, ConfigError
from rnem_world.models.bernoulli import Bernoulli
from rnem_world.models.config import (
    ARCHITECTURES,
    FAMILIES,
    MODELS,
    LossConfig,
    ModelConfig,
    architecture_for,
)
from rnem_world.models.rollout import RolloutConfig, imagine, observe, roll_out
from rnem_world.models.tensorflow_names import (
    load_tensorflow_arrays,
    tensorflow_parameters,
    to_tensorflow_layout,
)
from rnem_world.models.world_model import SlotState, WorldModel


def make(name: str = "r_nem", slots: int | None = None, **options: object) -> WorldModel:
    core, default = MODELS[name]
    torch.manual_seed(0)
    config = ModelConfig(core=core, architecture="conv32", slots=slots or default, hidden_size=24)
    model = WorldModel(replace(config, **options))
    # Fresh weights make slots nearly alike; sharper ones let tests see differences.
    with torch.no_grad():
        model.decoder.convolutions[-1].weight.mul_(10)
    return model


def video(batch: int = 2, frames: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, frames, 1, 32, 32, generator=generator) > 0.8).float()


def final_state(
    model: WorldModel, state: SlotState, frames: torch.Tensor, actions: torch.Tensor | None = None
) -> SlotState:
    with torch.no_grad():
        for _, after in observe(model, state, frames, frames[:, 1:], actions):
            state = after
    return state


@pytest.mark.parametrize("name", MODELS)
def test_permuting_slots_permutes_everything(name: str) -> None:
    model, frames = make(name, slots=4).double(), video().double()
    state, order = model.initial_state(2), [2, 0, 3, 1]
    permuted = SlotState(state.theta[:, order], state.prediction[:, order], state.gamma[:, order])
    plain, other = final_state(model, state, frames), final_state(model, permuted, frames)
    assert plain.prediction.std(dim=1).max() > 1e-3  # the slots do differ
    torch.testing.assert_close(other.theta, plain.theta[:, order])
    torch.testing.assert_close(other.prediction, plain.prediction[:, order])
    torch.testing.assert_close(other.gamma, plain.gamma[:, order])


@pytest.mark.parametrize("name", MODELS)
def test_sequences_do_not_disturb_one_another(name: str) -> None:
    model = make(name, number_of_actions=3).double()
    state, frames = model.initial_state(3), video(batch=3).double()
    actions = torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0], [1, 0, 0, 2, 2]])
    together = final_state(model, state, frames, actions)
    alone = SlotState(state.theta[1:2], state.prediction[1:2], state.gamma[1:2])
    alone = final_state(model, alone, frames[1:2], actions[1:2])
    torch.testing.assert_close(together.prediction[1:2], alone.prediction)


@pytest.mark.parametrize("name", MODELS)
def test_actions_change_predictions(name: str) -> None:
    model = make(name, number_of_actions=4)
    state, frames = model.initial_state(1), video(batch=1)
    outcomes = [
        model.predict(state, frames[:, 0], torch.tensor([action])).prediction.detach() for action in range(4)
    ]
    assert all((outcomes[0] - other).abs().max() > 1e-4 for other in outcomes[1:])


@pytest.mark.parametrize("slots", [2, 3, 8])
def test_a_model_runs_with_any_number_of_slots(slots: int) -> None:
    model = make()
    state = final_state(model, model.initial_state(2, slots), video())
    assert state.prediction.shape == (2, slots, 1, 32, 32)
    torch.testing.assert_close(state.gamma.sum(1), torch.ones(2, 1, 32, 32))


def test_slots_influence_each_other_only_in_the_relational_cores() -> None:
    for name in MODELS:
        model = make(name, slots=3)
        state, frame = model.initial_state(1), video(batch=1)[:, 0]
        theta = state.theta.clone()
        theta[:, 0] += 1.0
        changed = SlotState(theta, state.prediction, state.gamma)
        plain, other = model.predict(state, frame), model.predict(changed, frame)
        influence = (plain.theta[:, 1:] - other.theta[:, 1:]).abs().max()
        assert (influence > 1e-5) == model.config.is_relational, name


def test_attention_has_an_entry_for_each_other_slot() -> None:
    transition = make(slots=4).predict(make(slots=4).initial_state(2), video()[:, 0])
    assert transition.attention is not None
    assert transition.attention.shape == (2, 4, 3)
    assert make("r_nem_no_attention").predict(make().initial_state(2), video()[:, 0]).attention is None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_predicts_frames_of_its_size(name: str) -> None:
    size = ARCHITECTURES[name].size
    model = WorldModel(ModelConfig(architecture=name, slots=2, hidden_size=16))
    frame = torch.zeros(1, 1, *size)
    assert model.predict(model.initial_state(1), frame).prediction.shape == (1, 2, 1, *size)
    assert architecture_for(*size, name[:-2]) == name


@pytest.mark.parametrize("likelihood", ["bernoulli", "mixture"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("size", "channels"), [((5, 5), 5), ((10, 10), 4), ((36, 64), 3), ((64, 36), 1), ((48, 48), 3)]
)
def test_frames_of_any_size(family: str, size: tuple[int, int], channels: int, likelihood: str) -> None:
    config = ModelConfig(
        architecture=architecture_for(*size, family),
        size=size,
        slots=2,
        hidden_size=16,
        channels=channels,
        likelihood=likelihood,
        slot_inputs="error_frame_motion",
        prior_code=True,
    )
    assert build(ModelConfig, json.loads(json.dumps(asdict(config)))) == config
    model = WorldModel(config)
    frames = (torch.rand(2, 6, channels, *size) < 0.3).float()
    for imagination in ("soft", "pixels", "latent"):
        rollout = roll_out(model, frames, RolloutConfig(2, 3, imagination))
        assert rollout.inputs.shape == (2, 5, channels, *size)
        assert rollout.gammas.shape == (2, 5, 2, 1, *size)
    state = model.initial_state(2)
    transition = model.predict(state, frames[:, 0])
    gamma = model.update(transition, frames[:, 1]).gamma
    loss = model.likelihood.training_loss(
        transition.logits, transition.prediction, gamma, frames[:, 1], LossConfig()
    )
    loss.sum().backward()
    # Each pixel of each slot is drawn, and learns.
    assert model.decoder(transition.output.flatten(0, 1)).shape[2:] == size
    assert all(bool(p.grad.isfinite().all()) for p in model.decoder.parameters() if p.grad is not None)


def test_architectures_with_a_name_are_among_the_families() -> None:
    for name in ("conv32", "conv64", "projection32", "projection84"):
        assert FAMILIES[name[:-2]](*ARCHITECTURES[name].size) == ARCHITECTURES[name]
    assert architecture_for(48, 48) == "conv"
    assert architecture_for(36, 64, "projection") == "projection"


def test_colour_frames_keep_one_gamma_a_pixel() -> None:
    model = make(channels=3)
    frames = torch.rand(2, 3, 3, 32, 32)
    state = final_state(model, model.initial_state(2), frames)
    assert state.prediction.shape == (2, 5, 3, 32, 32)
    assert state.gamma.shape == (2, 5, 1, 32, 32)


def test_the_initial_state_is_empty_and_reproducible() -> None:
    model = make(initial_prediction=0.25)
    first = model.initial_state(2, generator=torch.Generator().manual_seed(3))
    second = model.initial_state(2, generator=torch.Generator().manual_seed(3))
    assert first.theta.abs().max() == 0
    assert (first.prediction == 0.25).all()
    torch.testing.assert_close(first.gamma, second.gamma)
    assert (make("rnn").initial_state(2).gamma == 1).all()


def test_bit_flips_have_the_given_rate_and_keep_pixels_binary() -> None:
    frames = video(batch=4, frames=20)
    noisy = Bernoulli(1).noisy(frames, 0.2, torch.Generator().manual_seed(0))
    assert set(noisy.unique().tolist()) == {0.0, 1.0}
    assert abs(float((noisy != frames).float().mean()) - 0.2) < 0.005
    assert Bernoulli(1).noisy(frames, 0.0, None) is frames


def test_imagining_in_pixels_feeds_back_the_thresholded_frame_and_ignores_the_truth() -> None:
    model, frames = make(), video(frames=9)
    kept = roll_out(model, frames, RolloutConfig(3, 5, "pixels"), generator=torch.Generator().manual_seed(0))
    assert set(kept.inputs[:, 4:].unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(kept.inputs[:, 4], (kept.predictions[:, 3].sum(1) > 0.4).float())
    other = frames.clone()
    other[:, 4:] = 1 - other[:, 4:]
    again = roll_out(model, other, RolloutConfig(3, 5, "pixels"), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.predictions, kept.predictions)
    torch.testing.assert_close(again.gammas, kept.gammas)


def test_wrong_use_is_explained() -> None:
    model = make(number_of_actions=3)
    state = model.initial_state(2)
    with pytest.raises(ConfigError, match="knows numbers below 3"):
        model.predict(state, video()[:, 0])
    with pytest.raises(ConfigError, match="without them"):
        make().predict(state, video()[:, 0], torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="at least 2 slots"):
        ModelConfig(slots=1)
    with pytest.raises(ConfigError, match="did you mean 'conv64'"):
        ModelConfig(architecture="conv-64")
    with pytest.raises(ConfigError, match="need the height and width"):
        ModelConfig(architecture="projection")
    with pytest.raises(ConfigError, match="have their own"):
        ModelConfig(architecture="conv64", size=(64, 64))
    with pytest.raises(ConfigError, match="at least 2 pixels"):
        ModelConfig(architecture="conv", size=(1, 9))
    with pytest.raises(ConfigError, match="sequences of 12 frames"):
        roll_out(make(), video(), RolloutConfig(6, 5))
    with pytest.raises(ConfigError, match="unknown imagination"):
        next(imagine(make(), make().initial_state(2), 2, None, imagination="sof"))
    with pytest.raises(ConfigError, match="1 actions were given"):
        next(imagine(model, state, 2, torch.zeros(2, 1, dtype=torch.int64)))


@pytest.mark.parametrize("name", MODELS)
def test_weights_survive_the_way_through_the_original_s_names(name: str) -> None:
    source, target = make(name), make(name)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter))
    arrays = {
        f"{variable}:0": to_tensorflow_layout(tensor).detach().numpy()
        for variable, tensor in tensorflow_parameters(source).items()
    }
    load_tensorflow_arrays(target, arrays)
    for first, second in zip(source.parameters(), target.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_arrays_of_another_model_change_nothing() -> None:
    model = make()
    before = [parameter.clone() for parameter in model.parameters()]
    arrays = {
        variable: to_tensorflow_layout(tensor).detach().numpy() + 1
        for variable, tensor in tensorflow_parameters(model).items()
    }
    last = sorted(arrays)[-1]
    with pytest.raises(CheckpointError, match="lack the variable"):
        load_tensorflow_arrays(model, {name: array for name, array in arrays.items() if name != last})
    arrays[last] = arrays[last][:-1]
    with pytest.raises(CheckpointError, match="has shape"):
        load_tensorflow_arrays(model, arrays)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
