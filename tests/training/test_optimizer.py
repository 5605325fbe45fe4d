from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rnem_world.training.config import OptimizerConfig
from rnem_world.training.optimizer import clip_gradients, make_optimizer

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
