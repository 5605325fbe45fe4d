"""Datasets of Minari: those that its own collector wrote, and ours written and read again."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from rnem_world.actions import ActionSpace
from rnem_world.agents.collecting import collect
from rnem_world.data.check import check_dataset
from rnem_world.data.dataset import Dataset
from rnem_world.data.importing import import_frames
from rnem_world.data.minari_files import write_minari
from rnem_world.data.schema import NO_SEED, DatasetAttributes, EpisodeBatch
from rnem_world.data.windows import ImportConfig
from rnem_world.data.writer import write_shard
from rnem_world.errors import ConfigError, DataError, DependencyError, OutputError

minari = pytest.importorskip("minari")

T = 8
COLOURS = ImportConfig(T, channels=None, binarise=None)
KINDS = {
    "discrete": ActionSpace.discrete(4, start=-1),
    "multi_discrete": ActionSpace("multi_discrete", (2, 3), shape=(2,)),
    "multi_binary": ActionSpace("multi_binary", (2, 2, 2), shape=(3,), dtype="int8"),
    "box": ActionSpace("box", low=(-1.0, None), high=(1.0, None), shape=(2,), dtype="float32"),
}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    """Where Minari has its datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def collected(store) -> Path:
    """What Minari's own collector wrote of a square that goes left and right, 6 episodes of each kind."""
    with zipfile.ZipFile(Path(__file__).with_name("minari.zip")) as archive:
        archive.extractall(store)
    return store


def everything(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """All arrays of all splits."""
    with Dataset.open(path) as dataset:
        return {
            split: dataset.read(
                split, range(dataset.info(split).number_of_sequences), list(dataset.info(split).arrays)
            )
            for split in dataset.splits
        }


def stream_of(kind: str, bits: bool = False, n: int = 3) -> EpisodeBatch:
    """Sequences with a whole episode, one that is cut off, and one that the sequence's end cuts."""
    generator = np.random.default_rng(len(kind))
    space = KINDS[kind]
    drawn = [generator.integers(0, size, (T, n)) for size in space.sizes] or [
        generator.uniform(-1, 1, (T, n)) for _ in space.low
    ]
    actions = np.stack(drawn, axis=-1).astype(space.stored_dtype)
    firsts, ends, cuts = (np.zeros((T, n), np.bool_) for _ in range(3))
    firsts[[0, 3, 6]] = True
    firsts[0, 1] = False  # goes on with what is in no sequence before it
    ends[1], cuts[4] = True, True  # into the frames 2 and 5
    seeds = np.where(firsts, generator.integers(0, 2**64, (T, n), np.uint64), np.uint64(NO_SEED))
    seeds[3, 0] = 2**63 + 1
    rewards = generator.normal(size=(T, n)).astype(np.float32)
    for frame in (2, 5, 7):  # nothing is known of these transitions
        actions[frame], rewards[frame] = 0, 0
    return EpisodeBatch(
        features=generator.integers(0, 2 if bits else 256, (T, n, 6, 5, 3), np.uint8),
        actions=actions[..., 0] if space.is_discrete else actions,
        rewards=rewards,
        terminations=ends,
        truncations=cuts,
        is_first=firsts,
        seeds=seeds,
    )


@pytest.mark.parametrize(("kind", "bits"), [("discrete", True), *((kind, False) for kind in KINDS)])
def test_a_dataset_that_is_exported_is_minaris_and_is_the_same_when_it_is_imported_again(
    kind, bits, tmp_path
):
    space = KINDS[kind]
    attributes = DatasetAttributes(
        "Made-v0",
        number_of_actions=4 if kind == "discrete" else None,
        action_space=space,
        maximum_value=1 if bits else 255,
    )
    batch = stream_of(kind, bits)
    write_shard(tmp_path / "ours.h5", {"training": batch, "test": stream_of(kind, bits, 2)}, attributes)
    with Dataset.open(tmp_path / "ours.h5") as dataset:
        episodes, steps = write_minari(dataset, "made/by-us-v0", description="made", author="us")
    assert (episodes, steps) == (15, 5 * (2 + 2 + 1))

    theirs = minari.load_dataset("made/by-us-v0")
    assert theirs.total_episodes == 15
    assert theirs.total_steps == 25
    assert theirs.action_space == space.space()
    first, second, third = (theirs[index] for index in range(3))
    np.testing.assert_array_equal(first.observations, batch.features[:3, 0] * (255 if bits else 1))
    np.testing.assert_array_equal(second.observations, batch.features[3:6, 0] * (255 if bits else 1))
    np.testing.assert_array_equal(first.actions, space.decode(batch.actions[:2, 0]))
    np.testing.assert_array_equal(first.rewards, batch.rewards[:2, 0])
    assert (first.terminations.tolist(), first.truncations.tolist()) == ([False, True], [False, False])
    assert (second.terminations.tolist(), second.truncations.tolist()) == ([False, False], [False, True])
    assert third.truncations.tolist() == [True]  # Minari's episodes end
    seeds = [entry.get("seed") for entry in theirs.storage.get_episode_metadata([0, 1, 2])]
    assert seeds == [int(batch.seeds[0, 0]), 2**63 + 1, int(batch.seeds[6, 0])]
    assert all(space.space().contains(action) for action in second.actions)

    how = ImportConfig(T, channels=None, binarise=0.5 if bits else None)
    summary = import_frames("minari:made/by-us-v0", tmp_path / "again.h5", how)
    assert summary.sequences == {"training": 3, "test": 2}
    ours, again = everything(tmp_path / "ours.h5"), everything(tmp_path / "again.h5")
    for split, arrays in ours.items():
        assert arrays.keys() == again[split].keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, again[split][name], err_msg=f"{split} {name}")
    with Dataset.open(tmp_path / "again.h5") as dataset:
        assert dataset.attributes.action_space == space
        assert dataset.attributes.number_of_actions == attributes.number_of_actions


def test_what_was_collected_from_an_environment_goes_there_and_back(tmp_path):
    path = collect(
        "own_environments:Own/Masks-v0",
        tmp_path / "masks.h5",
        num_train=6,
        num_valid=2,
        num_test=2,
        frames=16,
        progress=False,
    )
    with Dataset.open(path) as dataset:
        write_minari(dataset, "masks-v0")
        space = dataset.attributes.action_space
    assert minari.load_dataset("masks-v0").action_space == space.space()
    ours = everything(path)
    single = sum(int(arrays["is_first"][-1].sum()) for arrays in ours.values())
    assert single == 0, "a frame by itself is no episode of Minari: choose other data"
    import_frames("minari:masks-v0", tmp_path / "again.h5", ImportConfig(16, channels=None))
    again = everything(tmp_path / "again.h5")
    for split, arrays in ours.items():
        for name, array in arrays.items():
            known = array[:-1] if name in ("actions", "rewards", "terminations", "truncations") else array
            np.testing.assert_array_equal(known, again[split][name][: len(known)], err_msg=f"{split} {name}")


def test_minaris_own_collector_is_read_as_it_wrote(collected, tmp_path):
    theirs = minari.load_dataset("squares/discrete-v0")
    summary = import_frames("minari:squares/discrete-v0", tmp_path / "ours.h5", COLOURS)
    assert summary.action_space == ActionSpace.discrete(3, start=-1)
    assert summary.clips == 6
    assert not check_dataset(tmp_path / "ours.h5").problem
    frames = np.concatenate([episode.observations for episode in theirs])
    read = everything(tmp_path / "ours.h5")
    found = {
        frame.tobytes() for arrays in read.values() for frame in arrays["features"].reshape(-1, 32, 32, 3)
    }
    assert found <= {frame.tobytes() for frame in frames}
    metadata = list(theirs.storage.get_episode_metadata(range(6)))
    seeds = {int(seed) for arrays in read.values() for seed in arrays["seeds"].ravel()} - {NO_SEED}
    assert seeds <= {entry["seed"] for entry in metadata}
    assert 2**63 + 3 in {entry["seed"] for entry in metadata}
    for arrays in read.values():
        moves = arrays["actions"][:-1] - 1  # 3 pixels to the left, none, or to the right
        place = arrays["features"][..., 0].any(axis=2).argmax(axis=-1)
        expected = np.clip(place[:-1] + 3 * moves, 0, 26)
        real = ~arrays["is_first"][1:]
        np.testing.assert_array_equal(place[1:][real], expected[real])
        np.testing.assert_array_equal(arrays["rewards"][:-1][real], -1.0 * (place[1:] == 0)[real])
        np.testing.assert_array_equal(arrays["terminations"][:-1][real], (place[1:] == 0)[real])


def test_a_world_is_trained_on_what_minaris_collector_wrote(collected, tmp_path, rnem):
    """Pictures that it kept as JPEG, among other observations; actions of two real numbers."""
    outcome = rnem(
        *("data", "import", collected / "squares" / "box-v0", "--out", tmp_path / "box.h5"),
        *("--frames", 8, "--channels", 3, "--grey-levels", "--splits", "0.6,0.2,0.2"),
    )
    assert outcome.code == 0, outcome.err
    assert "frames are the observations' rgb" in outcome.out
    assert "(2 real numbers)" in outcome.out
    trained = rnem(
        *("train", "--world-model", "--data", tmp_path / "box.h5", "--out", tmp_path / "run", "--slots", 2),
        *("--steps", 6, "--chunk-steps", 6, "--batch-size", 2, "--hidden-size", 16, "--max-updates", 3),
        *("--threads", 1),
    )
    assert trained.code == 0, trained.err
    assert "actions of 2 real numbers" in trained.out
    assert (tmp_path / "run" / "best.json").is_file()


def test_which_of_several_pictures_is_asked(collected, tmp_path):
    from rnem_world.data.arrays import Reading

    with pytest.raises(DataError, match="no picture 'rgbd' among the observations: did you mean 'rgb'"):
        import_frames(
            "minari:squares/box-v0", tmp_path / "x.h5", ImportConfig(T, reading=Reading(picture="rgbd"))
        )
    np.save(tmp_path / "film.npy", np.zeros((T, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match=r"picture is 'rgb', and .* has one kind of pictures"):
        import_frames(
            tmp_path / "film.npy", tmp_path / "x.h5", ImportConfig(T, reading=Reading(picture="rgb"))
        )


def test_observations_that_are_no_pictures_are_refused(tmp_path):
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    buffer = EpisodeBuffer(
        observations=np.zeros((3, 4), np.float32),
        actions=np.zeros(2, np.int64),
        rewards=[0.0, 0.0],
        terminations=[False, True],
        truncations=[False, False],
    )
    with pytest.warns(UserWarning, match="is set to None"):
        minari.create_dataset_from_buffers(
            "vectors-v0", [buffer], observation_space=spaces.Box(-1, 1, (4,)), action_space=spaces.Discrete(2)
        )
    with pytest.raises(DataError, match="models here learn from pictures"):
        import_frames("minari:vectors-v0", tmp_path / "x.h5")


def test_what_is_in_the_way_or_not_there_is_refused(collected, tmp_path, store):
    batch = stream_of("discrete")
    write_shard(
        tmp_path / "still.h5",
        {"training": EpisodeBatch(batch.features)},
        DatasetAttributes(maximum_value=255),
    )
    with Dataset.open(tmp_path / "still.h5") as dataset:
        with pytest.raises(OutputError, match="exists already"):
            write_minari(dataset, "squares/box-v0")
        with pytest.raises(DataError, match="has no array 'actions'"):
            write_minari(dataset, "still-v0")
        with pytest.raises(ConfigError, match="is no id of Minari"):
            write_minari(dataset, "a b")
    assert not (store / "still-v0").exists()
    (collected / "squares" / "box-v0" / "data" / "main_data.hdf5").write_bytes(b"no")
    with pytest.raises(DataError, match="Minari can't read its own dataset"):
        import_frames(collected / "squares" / "box-v0", tmp_path / "x.h5")


def test_nothing_half_written_is_left(tmp_path, store, monkeypatch):
    attributes = DatasetAttributes(number_of_actions=4, action_space=KINDS["discrete"], maximum_value=255)
    write_shard(tmp_path / "ours.h5", {"training": stream_of("discrete")}, attributes)
    from minari.dataset._storages.hdf5_storage import HDF5Storage

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HDF5Storage, "update_episodes", full)
    with Dataset.open(tmp_path / "ours.h5") as dataset, pytest.raises(OutputError, match="No space left"):
        write_minari(dataset, "made-v0")
    assert not (store / "made-v0").exists()


def test_without_minari_the_extra_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(DependencyError, match=r'pip install "rnem-world\[formats\]"'):
        import_frames("minari:some-v0", tmp_path / "x.h5")
