"""Do edited dreams stay physical? A ball is removed from dreams, and from the real simulator beside them.

Usage: python -m rnem_world.benchmarks.editing [WORLD] [latent|pixels]. Prints, for balls that the removed one would
have deflected, how far the dream without it is from the real world without it and with it, in pixels. The table in
docs/step-inside.md.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import torch

from rnem_world.envs.balls import BouncingBallsVectorEnv
from rnem_world.envs.dream import DreamBatch
from rnem_world.envs.editing import Remove, apply_edits
from rnem_world.envs.episodes import EpisodesSnapshot
from rnem_world.envs.world import World
from rnem_world.evaluation.truth import match_slots
from rnem_world.physics import preset

STARTS, CONTEXT, HORIZON, SHOWN, REMOVED = 512, 16, 12, (6, 9, 12), 3


def main() -> None:
    """Measures and prints."""
    checkpoint = sys.argv[1] if len(sys.argv) > 1 else "balls"
    imagination = sys.argv[2] if len(sys.argv) > 2 else None
    rules = preset("avoid")
    scale = rules.image_size / rules.box_size
    stay = np.zeros(STARTS, dtype=np.int64)
    worlds = BouncingBallsVectorEnv(STARTS, rules)
    frames = [worlds.reset(seed=10_000)[0]]
    frames += [worlds.move(stay).observations for _ in range(CONTEXT - 1)]
    now = worlds.get_state()

    def future(snapshot: EpisodesSnapshot) -> np.ndarray:
        worlds.set_state(snapshot)
        places = []
        for _ in range(HORIZON):
            worlds.move(stay)
            places.append(worlds.ground_truth()["positions"] * scale)
        return np.stack(places)

    balls = now.state.balls
    fewer = balls.copy()
    fewer.present[:, REMOVED] = False
    with_it, without_it = future(now), future(replace(now, state=replace(now.state, balls=fewer)))

    world = World.load(checkpoint)
    context = torch.from_numpy(np.stack(frames, axis=1) > 0).permute(0, 1, 4, 2, 3).float()
    done = torch.zeros(STARTS, CONTEXT - 1, dtype=torch.int64)
    dreams = world.encode(context, done, world.config.model.slots)
    positions = torch.from_numpy(balls.positions * scale).float()

    def dream(removes: bool) -> tuple[np.ndarray, np.ndarray]:
        dreaming = DreamBatch(world, STARTS, None, imagination)
        dreaming.begin(torch.arange(STARTS), dreams)
        found = dreaming.details(("centroids", "masses"))
        match = match_slots(found["centroids"], found["masses"], positions)
        if removes:
            for slot in range(dreaming.slots):
                rows = (match[:, REMOVED] == slot).nonzero()[:, 0]
                if len(rows):
                    dreaming.set_state(rows, apply_edits(dreaming, dreaming.get_state(rows), [Remove(slot)]))
        places, masses = [], []
        for _ in range(HORIZON):
            dreaming.step(torch.zeros(STARTS, dtype=torch.int64))
            found = dreaming.details(("centroids", "masses"))
            places.append(found["centroids"].gather(1, match[..., None].expand(-1, -1, 2)).numpy())
            masses.append(found["masses"].gather(1, match).numpy())
        return np.stack(places), np.stack(masses)

    unedited, _ = dream(False)
    edited, masses = dream(True)
    gone = (masses[-1, :, REMOVED] < 5).sum()
    print(f"{checkpoint}: the removed ball is gone after {HORIZON} frames in {gone} of {STARTS} dreams")
    others = slice(1, REMOVED)
    for step in SHOWN:
        real = np.linalg.norm(with_it[step - 1] - without_it[step - 1], axis=2)[:, others]

        def apart(left: np.ndarray, right: np.ndarray, step: int = step) -> np.ndarray:
            distances: np.ndarray = np.linalg.norm(left[step - 1] - right[step - 1], axis=2)
            return distances[:, others]

        hit, missed = real > 2.0, real < 1e-6
        to_without, to_with = apart(edited, without_it), apart(edited, with_it)
        print(
            f"after {step} frames: {hit.sum()} deflected by {real[hit].mean():.1f}; dream without it to the world "
            f"without it {to_without[hit].mean():.1f}, to the world with it {to_with[hit].mean():.1f}, closer to the "
            f"former {(to_without < to_with)[hit].mean():.0%}; balls it wouldn't touch: edited to unedited dream "
            f"{apart(edited, unedited)[missed].mean():.1f} ({missed.sum()})"
        )


if __name__ == "__main__":
    main()
