"""Precision and compilation: what they change, and what they leave alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_learner import MODEL, STEPS, learner_of, make_batch, weights

from rnem_world.config import build
from rnem_world.device import check_execution, has_bfloat16, multiplying
from rnem_world.errors import ConfigError
from rnem_world.models.config import ModelConfig
from rnem_world.training.config import ExecutionConfig, NoiseConfig, OptimizerConfig

CPU = torch.device("cpu")
WITH_PRIOR = dataclasses.replace(MODEL, prior_code=True)
OTHERS = [
    ModelConfig(core=core, architecture="conv32", slots=slots, hidden_size=16, attention_size=8)
    for core, slots in (("relational", 3), ("rnn", 2), ("lstm", 1))
]


@pytest.mark.parametrize("model", [WITH_PRIOR, *OTHERS], ids=["world", "relational", "rnn", "lstm"])
def test_bf16_learns_the_same_up_to_its_own_rounding(model):
    results = []
    for precision in ("float32", "bf16"):
        learner = learner_of(model, execution=ExecutionConfig(precision), noise=NoiseConfig("none"))
        batch = make_batch()
        if not model.number_of_actions:
            batch = dataclasses.replace(batch, actions=None)
        lesson = learner.learn(batch, 0, True)
        gradient = torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])
        results.append((lesson, gradient))
    (one, gradient), (other, rounded) = results
    assert one.loss != other.loss
    assert one.loss == pytest.approx(other.loss, rel=0.02)
    assert one.steps == pytest.approx(other.steps, rel=0.02)
    assert float(torch.nn.functional.cosine_similarity(gradient, rounded, dim=0)) > 0.98


def test_bf16_keeps_weights_slots_and_losses_in_float32():
    learner = learner_of(WITH_PRIOR, execution=ExecutionConfig("bf16"), optimizer=OptimizerConfig())
    seen = []
    forward = learner.loss.forward

    def spied(state, *arguments, **options):
        result = forward(state, *arguments, **options)
        seen.extend([state.theta, state.prediction, state.gamma, result.loss, result.steps, result.heads])
        return result

    learner.loss.forward = spied
    products = []
    linear = torch.nn.functional.linear

    def product(inputs, weight, bias=None):
        result = linear(inputs, weight, bias)
        products.append(result.dtype)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", product)
        learner.learn(make_batch(), 0, False)
    assert {tensor.dtype for tensor in seen} == {torch.float32}
    assert torch.bfloat16 in products
    assert {parameter.dtype for parameter in learner.model.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in learner.model.parameters()} == {torch.float32}
    state = next(iter(learner.optimizer.state.values()))
    assert state["exp_avg"].dtype == torch.float32


def test_evaluation_does_not_depend_on_the_precision_of_training():
    models = [learner_of(execution=ExecutionConfig(precision)).model for precision in ("float32", "bf16")]
    frames = make_batch().frames[:, 0].float()
    actions = torch.zeros(len(frames), dtype=torch.int64)
    predictions = []
    for model in models:
        state = model.initial_state(len(frames), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            predictions.append(model.eval().predict(state, frames, actions).logits)
    assert torch.equal(*predictions)


def test_compiled_layers_are_the_layers_in_training_alone(monkeypatch):
    """The compiler itself takes a minute; here it is told to run what it was given."""
    compiled, run = [], []

    def compile_(function, **options):
        compiled.append(function)

        def traced(*inputs):
            run.append(function)
            return function(*inputs)

        return traced

    plain = learner_of(optimizer=OptimizerConfig())
    monkeypatch.setattr(torch, "compile", compile_)
    learner = learner_of(execution=ExecutionConfig(compile=True), optimizer=OptimizerConfig())
    layers = {type(function.__self__).__name__ for function in compiled}
    assert {"ProjectionEncoder", "RelationalCore", "ProjectionDecoder", "Heads", "ActionEmbedding"} <= layers
    assert learner.learn(make_batch(), 0, True) == plain.learn(make_batch(), 0, True)
    assert len(run) == STEPS * len(compiled)
    assert all(torch.equal(one, other) for one, other in zip(weights(learner), weights(plain), strict=True))
    learner.model.eval()
    state = learner.model.initial_state(2)
    learner.model.predict(state, torch.zeros(2, 1, 32, 32), torch.zeros(2, dtype=torch.int64))
    assert len(run) == STEPS * len(compiled)


def test_the_state_of_a_model_does_not_depend_on_how_it_is_computed():
    learner = learner_of(execution=ExecutionConfig("bf16"))
    assert learner.model.state_dict().keys() == learner_of().model.state_dict().keys()


def test_what_a_device_cannot_do_is_refused(monkeypatch):
    check_execution(torch.device("meta"), "float32", compiled=False)
    assert not has_bfloat16(torch.device("meta"))
    with pytest.raises(ConfigError, match=r"meta has no bfloat16.*leave out --precision"):
        check_execution(torch.device("meta"), "bf16", compiled=False)
    with pytest.raises(ConfigError, match=r"cpu has no TF32.*leave out --precision"):
        check_execution(CPU, "tf32", compiled=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        check_execution(CPU, "float32", compiled=True)
    with pytest.raises(ConfigError, match="precision is 'bf61': did you mean 'bf16'"):
        build(ExecutionConfig, {"precision": "bf61"})


@pytest.mark.skipif(not has_bfloat16(CPU), reason="this processor has no bfloat16")
def test_a_bf16_run_resumes_exactly_and_may_go_on_in_float32(tiny, tmp_path):
    from rnem_world.training import checkpoint

    bf16 = {"execution": ExecutionConfig("bf16")}
    tiny.fit(tmp_path / "whole", max_updates=4, **bf16)
    tiny.fit(tmp_path / "parts", max_updates=2, **bf16)
    tiny.fit(tmp_path / "parts", max_updates=4, resume=True, **bf16)
    states = [
        checkpoint.read_weights(checkpoint.updates_of(tmp_path / name)[-1]) for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert checkpoint.read_config(tmp_path / "parts").training.execution.precision == "bf16"
    tiny.fit(tmp_path / "parts", max_updates=5, resume=True)
    assert checkpoint.read_config(tmp_path / "parts").training.execution.precision == "float32"


@pytest.mark.parametrize(("precision", "rounds"), [("float32", False), ("tf32", True), ("bf16", False)])
def test_tf32_is_a_choice_and_the_setting_is_put_back(precision, rounds):
    def settings() -> list[bool]:
        return [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]

    before = settings()
    with multiplying(precision, torch.device("cuda")):
        assert settings() == [rounds, rounds]
    assert settings() == before
    with multiplying(precision, CPU):
        assert settings() == before
