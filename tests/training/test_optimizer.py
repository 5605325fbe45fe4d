from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from rnem_world.errors import ConfigError
from rnem_world.training.config import OptimizerConfig
from rnem_world.training.learner import clip_gradients, make_optimizer

RATE = 0.1


def parameters(*gradients: list[float]) -> list[nn.Parameter]:
    made = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.ones(len(gradient)))
        parameter.grad = torch.tensor(gradient)
        made.append(parameter)
    return made


def tensorflow_steps(name: str, gradients: list[np.ndarray]) -> np.ndarray:
    """The updates as TensorFlow 1's documentation writes them, from a weight of 1, in double precision."""
    weight, first, second = np.ones(2), np.zeros(2), np.zeros(2)
    if name == "adagrad":
        second += 0.1
    for step, gradient in enumerate(gradients, start=1):
        if name == "adam":
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            weight = weight - RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step) * first / (
                np.sqrt(second) + 1e-8
            )
        elif name == "sgd":
            weight = weight - RATE * gradient
        elif name == "momentum":
            first = 0.9 * first + gradient
            weight = weight - RATE * first
        elif name == "adagrad":
            second = second + gradient**2
            weight = weight - RATE * gradient / np.sqrt(second)
        elif name == "adadelta":
            second = 0.95 * second + 0.05 * gradient**2
            change = np.sqrt(first + 1e-8) / np.sqrt(second + 1e-8) * gradient
            first = 0.95 * first + 0.05 * change**2
            weight = weight - RATE * change
        elif name == "rmsprop":
            second = 0.9 * second + 0.1 * gradient**2
            weight = weight - RATE * gradient / np.sqrt(second + 1e-10)
    return weight


@pytest.mark.parametrize("name", ["adam", "sgd", "momentum", "adadelta", "adagrad", "rmsprop"])
def test_optimizers_have_tensorflows_defaults(name):
    gradients = [np.array([0.3, -2.0]), np.array([-0.1, -1.0]), np.array([0.5, 3.0])]
    (parameter,) = parameters([0.0, 0.0])
    optimizer = make_optimizer([parameter], OptimizerConfig(name, RATE))
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient).float()
        optimizer.step()
    assert parameter.detach().numpy() == pytest.approx(tensorflow_steps(name, gradients), rel=1e-5)


def clip_by_norm(gradient: list[float], norm: float) -> list[float]:
    """TensorFlow's: t * clip_norm / max(l2norm(t), clip_norm)."""
    values = np.array(gradient)
    return list(values * norm / max(float(np.sqrt((values**2).sum())), norm))


@pytest.mark.parametrize("gradients", [([3.0, 4.0], [0.1, 0.2], [0.0, 0.0]), ([30.0, -40.0], [0.6, 0.8])])
def test_each_parameter_is_clipped_by_itself_as_in_tensorflow(gradients):
    made = parameters(*gradients)
    clip_gradients(made, OptimizerConfig(clip_norm=1.0))
    for parameter, gradient in zip(made, gradients, strict=True):
        assert parameter.grad.tolist() == pytest.approx(clip_by_norm(gradient, 1.0), rel=1e-6)


def test_all_together_are_clipped_by_the_global_norm():
    made = parameters([3.0, 0.0], [0.0, 4.0])
    clip_gradients(made, OptimizerConfig(clip_norm=1.0, clip_by="global"))
    assert [parameter.grad.tolist() for parameter in made] == [
        pytest.approx([0.6, 0.0], rel=1e-5),
        pytest.approx([0.0, 0.8], rel=1e-5),
    ]


def test_without_a_norm_and_below_it_nothing_changes():
    made = parameters([3.0, 4.0])
    clip_gradients(made, OptimizerConfig())
    clip_gradients(made, OptimizerConfig(clip_norm=6.0))
    clip_gradients(made, OptimizerConfig(clip_norm=6.0, clip_by="global"))
    assert made[0].grad.tolist() == [3.0, 4.0]


def test_parameters_without_a_gradient_are_left_out():
    made = [*parameters([3.0, 4.0]), nn.Parameter(torch.ones(2))]
    clip_gradients(made, OptimizerConfig(clip_norm=1.0))
    assert made[0].grad.tolist() == pytest.approx([0.6, 0.8])


class TestSchedule:
    def rates(self, count: int, **options) -> list[float]:
        config = OptimizerConfig(learning_rate=RATE, **options)
        return [config.rate_at(updates) for updates in range(count)]

    def test_without_one_the_rate_stays(self):
        assert self.rates(5) == [RATE] * 5

    @pytest.mark.parametrize("name", ["linear", "cosine"])
    def test_it_falls_to_a_hundredth_and_stays_there(self, name):
        rates = self.rates(15, schedule=name, schedule_updates=10)
        assert rates[0] == RATE
        assert all(later < earlier for earlier, later in pairwise(rates[:11]))
        assert rates[5] == pytest.approx(RATE * 0.505)  # both are half-way down half-way through
        assert rates[10:] == pytest.approx([RATE / 100] * 5)

    def test_the_shapes(self):
        options = {"schedule_updates": 4, "final_learning_rate": 0.0}
        assert self.rates(4, schedule="linear", **options) == pytest.approx([0.1, 0.075, 0.05, 0.025])
        half = 0.5**0.5
        expected = [0.1, 0.05 * (1 + half), 0.05, 0.05 * (1 - half)]
        assert self.rates(4, schedule="cosine", **options) == pytest.approx(expected)

    def test_warming_up_comes_first_and_the_fall_later(self):
        options = {"schedule": "linear", "schedule_updates": 8, "final_learning_rate": 0.0}
        rates = self.rates(9, warm_up_updates=4, **options)
        assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.075, 0.05, 0.025, 0.0])
        rates = self.rates(9, schedule_after=6, **options)
        assert rates == pytest.approx([0.1] * 7 + [0.05, 0.0])

    def test_a_schedule_needs_an_end_that_lies_behind_its_begin(self):
        with pytest.raises(ConfigError, match="needs schedule_updates"):
            OptimizerConfig(schedule="cosine")
        for before in ({"warm_up_updates": 10}, {"schedule_after": 10}):
            with pytest.raises(ConfigError, match="must be above the 10 updates"):
                OptimizerConfig(schedule="linear", schedule_updates=10, **before)
