"""Objects put elsewhere: where they come to lie, that they move on, and that nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rnem_world.envs.dream import DreamBatch, DreamsSnapshot
from rnem_world.envs.learned import LearnedEnv
from rnem_world.envs.placing import Put, put_objects
from rnem_world.errors import ConfigError

ROW = torch.tensor([0])


class Past:
    """A dream after some steps, and what it went through."""

    def __init__(self, seed: int, steps: int, imagination: str | None = None) -> None:
        env = LearnedEnv("balls", imagination=imagination)
        env.reset(seed=seed)
        self.batch: DreamBatch = env.batch.dreams
        generator = np.random.default_rng(seed)
        self.snapshots = [self.batch.get_state(ROW)]
        self.actions = generator.integers(9, size=steps)
        for action in self.actions:
            env.step(action)
            self.snapshots.append(self.batch.get_state(ROW))
        self.centres, self.masses = self.look(self.snapshots[-1])
        self.objects = [slot for slot in range(self.batch.slots) if self.masses[slot] > 5]
        self.empty = int(self.masses.argmin())
        self.free = self.free_place(6, 27)

    def free_place(self, low: int, high: int) -> tuple[float, float]:
        """The place that is farthest from all objects, so far from the edges."""
        places = [(float(x), float(y)) for x in range(low, high) for y in range(low, high)]
        return max(places, key=lambda place: np.linalg.norm(self.centres[self.objects] - place, axis=1).min())

    def look(self, snapshot: DreamsSnapshot) -> tuple[np.ndarray, np.ndarray]:
        self.batch.set_state(ROW, snapshot)
        details = self.batch.details(("centroids", "masses"))
        return details["centroids"][0].numpy(), details["masses"][0].numpy()

    def put(self, *puts: Put) -> DreamsSnapshot:
        return put_objects(self.batch, self.snapshots, torch.from_numpy(self.actions), puts)


@pytest.mark.parametrize("imagination", ["latent", "pixels"])
@pytest.mark.parametrize("steps", [0, 2, 9])
def test_copies_lie_where_they_were_put(steps, imagination):
    missed = []
    for seed in range(6):
        past = Past(seed, steps, imagination)
        centres, masses = past.look(past.put(Put(past.objects[0], past.empty, *past.free)))
        missed.append(np.linalg.norm(centres[past.empty] - past.free))
        assert masses[past.empty] > 0.5 * past.masses[past.objects[0]]
    assert np.mean(missed) < 1.5


def test_the_other_slots_stay_as_they_are_bit_for_bit():
    past = Past(1, 8)
    edited = past.put(Put(past.objects[0], past.empty, *past.free))
    others = [slot for slot in range(past.batch.slots) if slot != past.empty]
    before, after = past.snapshots[-1].dreams, edited.dreams
    for name in ("theta", "output", "code"):
        torch.testing.assert_close(
            getattr(after, name)[:, others], getattr(before, name)[:, others], rtol=0, atol=0
        )


def test_the_past_itself_is_left_as_it_was():
    past = Past(2, 8)
    kept = [snapshot.dreams.theta.clone() for snapshot in past.snapshots]
    past.put(Put(past.objects[0], past.empty, *past.free))
    for snapshot, theta in zip(past.snapshots, kept, strict=True):
        torch.testing.assert_close(snapshot.dreams.theta, theta, rtol=0, atol=0)


def test_a_copy_keeps_the_velocity_of_what_it_is_a_copy_of():
    """Put where it meets nothing at once, it goes on as the other has gone.

    Of many, for some meet a third.
    """
    apart = []
    for seed in range(100):
        past = Past(seed, 16)
        before, _ = past.look(past.snapshots[-4])
        gone = past.centres - before
        slot = max(past.objects, key=lambda k: float(np.linalg.norm(gone[k])))
        place = past.free_place(11, 22)
        edited = past.put(Put(slot, past.empty, *place))
        start, _ = past.look(edited)
        for _ in range(3):
            past.batch.step(torch.tensor([0]))
        goes = past.batch.details(("centroids",))["centroids"][0].numpy() - start
        apart.append(np.linalg.norm(goes[past.empty] - gone[slot]) / np.linalg.norm(gone[slot]))
    assert np.median(apart) < 0.5


def test_two_objects_change_places():
    near = 0
    for seed in range(6):
        past = Past(seed, 9)
        a, b = past.objects[:2]
        try:
            edited = past.put(
                Put(a, a, *map(float, past.centres[b])), Put(b, b, *map(float, past.centres[a]))
            )
        except ConfigError:
            continue
        centres, _ = past.look(edited)
        near += int(max(np.linalg.norm(centres[[a, b]] - past.centres[[b, a]], axis=1)) < 5)
    assert near >= 4


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (Put(9, 0, 5.0, 5.0), "slot that isn't there"),
        (Put(0, -1, 5.0, 5.0), "slot that isn't there"),
        (Put(0, 1, 33.0, 5.0), "outside the frame"),
        (Put(0, 1, float("nan"), 5.0), "outside the frame"),
    ],
)
def test_what_makes_no_sense_is_refused(put, message):
    with pytest.raises(ConfigError, match=message):
        Past(0, 1).put(put)


def test_an_empty_slot_has_nothing_to_put():
    past = Past(0, 1)
    with pytest.raises(ConfigError, match="no object"):
        past.put(Put(past.empty, past.objects[0], 5.0, 5.0))


def test_as_many_actions_as_steps_are_needed():
    past = Past(0, 3)
    with pytest.raises(ConfigError, match="one less"):
        put_objects(past.batch, past.snapshots, torch.from_numpy(past.actions[:-1]), [])
