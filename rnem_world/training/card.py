"""The card of a world: what it is, how it was made, how to use it, and its figures, for people and for the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnem_world.training.config import RunConfig

CARD_FILE = "README.md"
FIGURES = ("evaluation-*.json", "imagination-*.json")
"""What ``rnem-world evaluate`` writes into a run's folder."""

_SCORES = {
    "fg_ari": "FG-ARI",
    "ari": "ARI",
    "miou": "mean IoU",
    "plain_bce": "cross-entropy of the next frame, nats",
    "plain_error": "error of the next frame, nats",
}
_HORIZONS = (1, 5, 10, 20, 30)
_CURVES = {
    "position_errors": "position error, radii",
    "bce": "cross-entropy of imagined frames, nats",
    "alive": "balls still there",
}
_PAPER = "https://arxiv.org/abs/1802.10353"


@dataclass(frozen=True)
class Figure:
    """One number of a world.

    Attributes:
        key: Short name, for programs.
        name: What it is, for people.
        value: The number.
        data: The name of the data it was measured on.
        split: Which part of that.
        sequences: Over how many sequences.
    """

    key: str
    name: str
    value: float
    data: str
    split: str
    sequences: int


def read_figures(folders: Iterable[Path]) -> list[Figure]:
    """Reads what ``rnem-world evaluate`` wrote into some folders; files that are something else are passed over."""
    found: dict[tuple[str, str, str], Figure] = {}
    for folder in folders:
        for pattern in FIGURES:
            for path in sorted(folder.glob(pattern)):
                try:
                    values = json.loads(path.read_text())
                    figures = list(_figures(values))
                except (OSError, ValueError, KeyError, TypeError, IndexError):
                    continue
                found |= {(figure.key, figure.data, figure.split): figure for figure in figures}
    return list(found.values())


def _figures(values: dict[str, Any]) -> Iterator[Figure]:
    data, split = Path(str(values["data"])).stem, str(values["split"])
    for evaluation in values.get("evaluations", []):
        noise = evaluation["noise"]
        for key, name in _SCORES.items():
            if key in evaluation["scores"]:
                suffix, told = (f"_noise_{noise:g}", f" (input noise {noise:g})") if noise else ("", "")
                value = float(evaluation["scores"][key])
                yield Figure(
                    f"{key}{suffix}", f"{name}{told}", value, data, split, int(evaluation["sequences"])
                )
    for way, part in (("", values), ("latent_", values.get("latent") or {})):
        for key, name in _CURVES.items():
            curve = part.get(key) or []
            told = f"{name}, latent imagination" if way else name
            for horizon in _HORIZONS:
                if horizon <= len(curve):
                    label = f"{told}, after {horizon} frame{'s' if horizon > 1 else ''}"
                    count = int(values["sequences"])
                    yield Figure(
                        f"{way}{key}_{horizon}", label, float(curve[horizon - 1]), data, split, count
                    )


def make_card(
    title: str,
    address: str,
    config: RunConfig,
    parameters: int,
    figures: list[Figure],
    license_name: str,
    own_text: str | None = None,
) -> str:
    """Writes a card: a head for the Hub's search, then text.

    Args:
        title: The world's name.
        address: What programs call it, ``hf://owner/name``.
        config: How it was made.
        parameters: How many numbers it has.
        figures: What was measured.
        license_name: As the Hub has it, ``mit`` for example.
        own_text: What its makers say of it, in Markdown, in place of the description made from the configuration.
    """
    import yaml

    head = yaml.safe_dump(_head(title, config, figures, license_name), sort_keys=False, allow_unicode=True)
    parts = [own_text.strip() if own_text else _description(title, config, parameters)]
    parts += [_usage(address, config)]
    if figures:
        parts.append(_table(figures))
    parts.append(
        "R-NEM is by van Steenkiste, Chang, Greff and Schmidhuber: [Relational Neural Expectation Maximization]"
        f"({_PAPER}), ICLR 2018."
    )
    return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"


def without_head(text: str) -> str:
    """Takes the head off a card that has one already."""
    if not text.startswith("---\n"):
        return text
    _, _, rest = text[4:].partition("\n---\n")
    return rest or text


def _head(title: str, config: RunConfig, figures: list[Figure], license_name: str) -> dict[str, Any]:
    tags = ["world-model", "object-centric", "slots", "gymnasium", "r-nem"]
    head: dict[str, Any] = {
        "library_name": "rnem-world",
        "license": license_name,
        "pipeline_tag": "reinforcement-learning",
        "tags": tags + ([config.environment] if config.environment else []),
    }
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for figure in figures:
        metric = {"type": figure.key, "name": figure.name, "value": round(figure.value, 6)}
        results.setdefault((figure.data, figure.split), []).append(metric)
    if results:
        head["model-index"] = [
            {
                "name": title,
                "results": [
                    {
                        "task": {"type": "reinforcement-learning", "name": "world model"},
                        "dataset": {"name": data, "type": data, "split": split},
                        "metrics": metrics,
                    }
                    for (data, split), metrics in results.items()
                ],
            }
        ]
    return head


def _description(title: str, config: RunConfig, parameters: int) -> str:
    model, training = config.model, config.training
    height, width = model.frame_size
    colours = "bits" if model.likelihood == "bernoulli" else "colours or greys"
    actions = f"{model.number_of_actions} actions" if model.number_of_actions else ""
    if model.takes_actions and not actions:
        actions = "actions of several numbers"
    kind = "A learned world made of objects" if model.heads else "A model of the paper"
    rows = [
        (
            "model",
            f"{model.core}, {model.architecture}, {parameters / 1e6:.2f} million parameters, {model.slots} slots",
        ),
        ("frames", f"{height} x {width} x {model.channels}, {colours}"),
        ("actions", actions or "none"),
        ("rewards and ends", "yes" if model.heads else "no"),
        ("imagines without drawing", "yes" if model.prior_code else "no"),
        ("data", config.data or "unknown"),
        ("environment", config.environment or "unknown"),
        (
            "training",
            f"{training.sequence_steps} steps, batches of {training.batch_size}, seed {training.seed}",
        ),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"# {title}\n\n{kind}, trained with rnem-world.\n\n| | |\n|---|---|\n{table}"


def _usage(address: str, config: RunConfig) -> str:
    if config.model.heads:
        lines = [
            "import gymnasium",
            "import rnem_world",
            "",
            f'env = gymnasium.make("RNEM-World-v0", checkpoint="{address}")',
            "observation, info = env.reset(seed=0)",
        ]
    else:
        lines = ["from rnem_world import Trained", "", f'trained = Trained.load("{address}")']
    code = "\n".join(lines)
    return f'## Use\n\n```bash\npip install "rnem-world[hub]"\n```\n\n```python\n{code}\n```'


def _table(figures: list[Figure]) -> str:
    rows = [
        f"| {figure.name} | {figure.value:.4g} | {figure.data}, {figure.split} | {figure.sequences} |"
        for figure in figures
    ]
    return "## Figures\n\n| figure | value | data | sequences |\n|---|---|---|---|\n" + "\n".join(rows)
