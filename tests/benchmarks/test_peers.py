"""Other libraries' worlds beside ours: those that are there are stepped, the others named."""

from __future__ import annotations

import sys

import pytest
import torch

from rnem_world.benchmarks import peers
from rnem_world.benchmarks.peers import PEERS, Peer, main, report
from rnem_world.errors import ConfigError


@pytest.fixture(autouse=True)
def none_is_installed(monkeypatch):
    for module in (
        "tensordict",
        "torchrl",
        "torchrl.data",
        "torchrl.modules",
        "simulusion",
        "simulusion.models",
    ):
        monkeypatch.setitem(sys.modules, module, None)


def row_of(text: str, name: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_our_own_world_is_measured():
    row = row_of(report(seconds=0.01, batches=(1, 2), engines=("torch",)), "`balls`, torch")
    assert row[0].startswith("`balls`, torch (rnem-world")
    assert row[1] == "32 x 32 x 1"
    assert len(row) == 6
    assert all(float(cell.replace(",", "")) > 0 for cell in row[2:])


def test_a_peer_that_is_not_installed_is_named_with_the_command_that_installs_it():
    lines = report(seconds=0.01, batches=(1,), engines=("torch",)).splitlines()
    for name, package in (("TorchRL, DreamerEnv", "torchrl"), ("Simulusion, Dreamer", "simulusion")):
        (line,) = (line for line in lines if name in line)
        assert line.startswith(f"{name}: not installed")
        assert line.endswith(f"pip install {package}")


def test_a_peer_of_the_table_is_stepped_and_its_row_printed(monkeypatch, capsys):
    stepped = set()

    def make(batch, frames):
        return lambda: stepped.add((batch, frames))

    monkeypatch.setitem(PEERS, "Fake", Peer("no-such-package", "2 x 2 x 1", make))
    monkeypatch.setattr(peers, "ENGINES", ())
    monkeypatch.setattr(sys, "argv", ["peers", "balls", "0.01"])
    threads = torch.get_num_threads()
    try:
        main()
    finally:
        torch.set_num_threads(threads)
    assert stepped == {(batch, frames) for batch in (1, 16, 256) for frames in (False, True)}
    row = row_of(capsys.readouterr().out, "Fake")
    assert row[:2] == ["Fake (no-such-package)", "2 x 2 x 1"]
    assert len(row) == 8


def test_an_engine_that_the_world_has_not_is_said_and_the_rest_measured():
    lines = report(seconds=0.01, batches=(1,), engines=("nonsense", "torch")).splitlines()
    assert any(line.startswith("`balls`, nonsense: engine is 'nonsense'") for line in lines)
    assert any(line.startswith("| `balls`, torch") for line in lines)


@pytest.mark.parametrize("seconds", [0.0, float("nan")])
def test_seconds_have_to_be_above_nothing(seconds):
    with pytest.raises(ConfigError, match="above 0"):
        report(seconds=seconds)
