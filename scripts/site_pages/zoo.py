"""The model zoo: every shipped world, from its own folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "rnem_world" / "pretrained"
PICTURES = Path("pictures") / "zoo"  # as a page in docs/ sees it


def names() -> list[str]:
    """The shipped worlds; those without a card aren't ready to be shown."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if (folder / "README.md").is_file())


def zoo() -> str:
    """Writes a section for every shipped world: picture, figures of its files, and its card."""
    return "\n\n".join(section(name) for name in names())


def section(name: str) -> str:
    """Writes one world. Its card's headings go one level down, and the pages that it mentions become links."""
    folder = SHIPPED / name
    title, _, card = (folder / "README.md").read_text().partition("\n")
    facts = facts_of(folder)
    return "\n".join([
        f"## {title.removeprefix('# ')} {{ #{name} }}",
        "",
        f"![{name}: {title.partition(': ')[2]}]({picture(name).as_posix()})",
        "",
        "| " + " | ".join(facts) + " |",
        "|" + "---|" * len(facts),
        "| " + " | ".join(facts.values()) + " |",
        re.sub(r"docs/([\w-]+)\.md", r"[\1](\1.md)", re.sub(r"^#", "##", card, flags=re.MULTILINE)),
    ])  # fmt: skip


def picture(name: str) -> Path:
    """Where the moving picture of a world is, seen from docs/."""
    return PICTURES / f"{name}.webp"


def facts_of(folder: Path) -> dict[str, str]:
    """What can be read from a world's files, ready for a table."""
    model: dict[str, Any] = json.loads((folder / "config.json").read_text())["model"]
    size = sum(file.stat().st_size for file in folder.iterdir())
    found = {
        "slots": str(model["slots"]),
        "architecture": f"`{model['architecture']}`",
        "actions": actions_of(model),
        "rewards and ends": "yes" if model.get("heads") else "no",
        "dreams by": "pixels, latent" if model.get("prior_code") else "pixels",
        "in ONNX": "yes" if (folder / "graphs.json").is_file() else "no",
        "on disk": f"{size / 1e6:.1f} MB",
    }
    return found


def actions_of(model: dict[str, Any]) -> str:
    """The kind of a model's actions in a few words."""
    if model.get("actions"):
        return str(model["actions"].get("kind", "yes")).replace("_", " ")
    return str(model.get("number_of_actions") or "none")
