"""What a graphics card would do in training, without one: nothing leaves it but the figures of an update."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda, put_on_cuda
from test_learner import learner_of, make_batch
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.overrides import TorchFunctionMode
from worlds_to_train import MODEL, SIZE, STEPS

from rnem_world.device import send
from rnem_world.models.config import LossConfig
from rnem_world.models.world_model import SlotState, WorldModel
from rnem_world.training import imagination, losses
from rnem_world.training.config import (
    ClosedLoopConfig,
    HeadLossConfig,
    OptimizerConfig,
    PriorCodeConfig,
)
from rnem_world.training.losses import SequenceBatch, SequenceLoss


def test_the_loss_stays_on_a_graphics_card(monkeypatch):
    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype, device="cuda")

    sent = []

    def sends(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        sent.append(tuple(tensor.shape))
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    for module in (losses, imagination):
        monkeypatch.setattr(module, "send", sends)  # the driver would be asked for the transfer
    own = np.zeros((SIZE, STEPS), bool)
    own[1, 2:4] = own[2, 5] = True
    codes = own & (np.arange(STEPS) != 3)
    with fake_cuda():
        model = put_on_cuda(WorldModel(MODEL)).train()
        loss = SequenceLoss(model, LossConfig(motion_weight=2.0), HeadLossConfig(), PriorCodeConfig(0.5, 3))
        maps = (SIZE, MODEL.slots, 1, 32, 32)
        state = SlotState(
            zeros(SIZE, MODEL.slots, MODEL.hidden_size), zeros(*maps), zeros(*maps), zeros(SIZE, 1, 32, 32)
        )
        batch = SequenceBatch(
            zeros(SIZE, STEPS + 1, 1, 32, 32),
            zeros(SIZE, STEPS, 1, 32, 32, dtype=torch.bool),
            zeros(SIZE, STEPS, dtype=torch.int64),
            zeros(SIZE, STEPS),
            zeros(SIZE, STEPS),
            own,
            codes,
            np.array([2.0, 0.0, 2.0, 0.0], np.float32),
        )
        result = loss(state, batch, zeros(STEPS), with_gammas=True)
        figures = (result.loss, result.steps, result.heads, result.prior, result.gammas, result.state.theta)
        assert {figure.device.type for figure in figures} == {"cuda"}
        with pytest.raises(DataDependentOutputException):
            result.loss.item()
    # The masks of steps; which sequences are imagined, with which weight, and which of them from the real frame.
    assert sorted(sent) == [(2,), (2,), (2,), (SIZE, STEPS), (SIZE, STEPS)]


class Waits(TorchFunctionMode):
    """Counts what makes the host wait for its device."""

    LOOKS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        name = getattr(function, "__name__", "")
        if name in self.LOOKS and arguments and isinstance(arguments[0], torch.Tensor):
            self.seen.append(name)
        return function(*arguments, **(keywords or {}))


def test_the_host_waits_once_an_update():
    options = {
        "chunk_steps": 2,
        "closed_loop": ClosedLoopConfig(1.0, 2, latent_fraction=0.5),
        "prior_code": PriorCodeConfig(0.5, 2),
        "optimizer": OptimizerConfig("sgd", 1e-3, clip_factor=1.01, clip_norm=1.0, clip_by="global"),
    }
    learner = learner_of(MODEL, **options)
    with Waits() as waits:
        lesson = learner.learn(make_batch(), 0, with_score=False)
    assert lesson.updates == 3
    # Beside that, masks are drawn on the host: of closed loops and of those that are latent.
    assert [name for name in waits.seen if name != "numpy"] == ["tolist"] * 3
    assert waits.seen.count("numpy") == 2 * 3


def test_sending_to_where_it_is_copies_nothing():
    tensor = torch.ones(3)
    assert send(tensor, torch.device("cpu")) is tensor
