from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from rnem_world.cli.data import command, parse_ratio, parse_size
from rnem_world.cli.main import main
from rnem_world.data.dataset import Dataset
from rnem_world.data.schema import DatasetAttributes, EpisodeBatch
from rnem_world.data.writer import write_shard
from rnem_world.errors import ConfigError


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    frames = (np.random.default_rng(0).random((5, 7, 8, 9, 1)) < 0.3).astype(np.uint8)
    episodes = EpisodeBatch(frames, actions=np.zeros((5, 7), np.int64))
    attributes = DatasetAttributes("Squares-v0", {"radius": 2}, seed=4, number_of_actions=3)
    write_shard(tmp_path / "a.h5", {"training": episodes, "test": episodes}, attributes)
    return tmp_path / "a.h5"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int | str | None, str, str]:
    """Runs the whole command line; returns the exit code and both outputs."""
    monkeypatch.setattr(sys, "argv", ["rnem-world", "data", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_info(dataset: Path) -> None:
    lines = run("info", dataset).output.splitlines()
    assert lines[0] == str(dataset)
    assert "training: 7 sequences of 5 frames, 8 x 9 x 1" in lines
    assert any("environment_id" in line and "Squares-v0" in line for line in lines)
    assert any(
        line.split()[:2] == ["features", "uint8"] and line.endswith("5 x 7 x 8 x 9 x 1") for line in lines
    )


def test_info_as_json(dataset: Path) -> None:
    content = json.loads(run("info", dataset, "--json").output)
    assert content["attributes"]["settings"] == {"radius": 2}
    assert content["attributes"]["number_of_actions"] == 3
    assert list(content["splits"]) == ["training", "test"]
    entry = content["splits"]["test"]
    assert (entry["sequences"], entry["frames"], entry["height"], entry["width"]) == (7, 5, 8, 9)
    assert entry["arrays"]["actions"]["dtype"] == "int64"


def test_info_of_a_folder(dataset: Path) -> None:
    (dataset.parent / "b.h5").write_bytes(dataset.read_bytes())
    content = json.loads(run("info", dataset.parent, "--json").output)
    assert content["files"] == 2
    assert content["splits"]["training"]["sequences"] == 14


def test_check(dataset: Path) -> None:
    result = run("check", dataset)
    assert result.output == f"{dataset} is fine: training 7, test 7 sequences\n"
    assert result.exit_code == 0


def test_check_names_the_first_thing_wrong(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import h5py

    with h5py.File(dataset, "r+") as file:
        file["test"]["actions"][2, 5] = 3
    code, out, err = run_main(monkeypatch, capsys, "check", dataset)
    assert (code, out) == (2, "")
    expected = f"{dataset}: test/actions, sequence 5, frame 2: is 3, expected 0 to 2"
    assert err == f"rnem-world: error: {expected}\n"


@pytest.mark.parametrize("subcommand", ["info", "check"])
def test_a_file_that_is_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], subcommand: str
) -> None:
    (tmp_path / "a.h5").write_text("something else")
    code, out, err = run_main(monkeypatch, capsys, subcommand, tmp_path / "a.h5")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "not an HDF5 file" in err


def test_check_warns(tmp_path: Path) -> None:
    black = EpisodeBatch(np.zeros((3, 2, 4, 4, 1), np.uint8))
    write_shard(tmp_path / "a.h5", {"training": black}, DatasetAttributes())
    result = run("check", tmp_path / "a.h5")
    assert result.exit_code == 0
    assert result.stderr == "warning: training: 2 of 2 sequences are all black (0, 1)\n"


def test_import(tmp_path: Path) -> None:
    frames = (np.random.default_rng(0).random((103, 16, 16)) * 255).astype(np.uint8)
    np.save(tmp_path / "film.npy", frames)
    result = run(
        "import", tmp_path / "film.npy", "--out", tmp_path / "o.h5", "--frames", "10", "--size", "8x4"
    )
    assert result.exit_code == 0
    expected = "training 8, validation 1, test 1 sequences of 10 frames, 8 x 4 x 1, 0/1, threshold 0.5"
    read = "read as values from 0 (black) to 255 (white); axes T, H, W"
    assert result.stdout == f"{tmp_path / 'o.h5'}: {expected}\n{read}\n"
    assert result.stderr == ("warning: 3 frames were left out, what remains of clips after sequences of 10\n")
    assert run("check", tmp_path / "o.h5").exit_code == 0


def test_import_with_grey_levels_and_overlap(tmp_path: Path) -> None:
    np.save(tmp_path / "film.npy", np.arange(60, dtype=np.uint8)[:, None, None] + np.zeros((8, 8), np.uint8))
    options = ("--grey-levels", "--frames", "10", "--stride", "5", "--splits", "1,1,0")
    result = run("import", tmp_path / "film.npy", "--out", tmp_path / "o.h5", *options)
    assert "grey levels 0 to 255" in result.stdout
    assert result.stderr == "warning: 1 sequences were left out, they share frames with another split\n"
    with Dataset.open(tmp_path / "o.h5") as dataset:
        assert dataset.splits == ("training", "validation")
        read = dataset.read("validation", [0], ("features",))["features"]
        assert read[:, 0, 0, 0, 0].tolist() == list(range(35, 45))


def test_import_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "film.npy", np.zeros((20, 4, 4)))
    for options, message in (
        ((), "no clip has 51 frames, the longest has 20"),
        (("--frames", "5", "--size", "big"), "--size is 'big'"),
        (("--frames", "5", "--splits", "a,b"), "--splits is 'a,b'"),
        (("--frames", "5", "--splits", "1"), "expected three parts"),
        (("--frames", "5", "--binarise", "2"), "expected a threshold"),
        (("--frames", "5", "--range", "5"), "--range is '5'"),
        (("--frames", "5", "--range", "1,0"), "value_range is (1.0, 0.0)"),
        (("--frames", "5", "--axes", "HW"), "axes is 'HW'"),
    ):
        arguments = ("import", tmp_path / "film.npy", "--out", tmp_path / "o.h5", *options)
        code, _, err = run_main(monkeypatch, capsys, *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.npy"]


def test_import_says_what_it_did(tmp_path: Path) -> None:
    frames = np.zeros((12, 16, 16))
    frames[:, 2:8, 2:8] = 1.0000001
    frames[np.arange(12), np.arange(12), 0] = 1
    flags = np.zeros(11)
    np.savez(tmp_path / "a.npz", frames=frames, actions=flags, rewards=flags, terminations=flags, dones=flags)
    result = run("import", tmp_path / "a.npz", "--out", tmp_path / "o.h5", "--frames", "12", "--actions", "3")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "values from 0 (black) to 1 (white)" in lines[1]
    assert "clipped, its values go from 0 to 1" in lines[1]
    assert lines[2] == "beside the frames: actions, rewards, terminations (3 actions)"
    assert result.stderr == f"warning: left out: {tmp_path / 'a.npz'}: dones (is it terminations?)\n"


def test_import_never_overwrites_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film, out = tmp_path / "film.npy", tmp_path / "o.h5"
    np.save(film, np.eye(16)[None].repeat(20, axis=0))
    before = film.read_bytes()
    arguments = ("import", film, "--frames", "10", "--out")
    assert run_main(monkeypatch, capsys, *arguments, out)[0] == 0
    code, _, err = run_main(monkeypatch, capsys, *arguments, out)
    assert (code, err.count("\n")) == (2, 1)
    assert "give --overwrite" in err
    assert run_main(monkeypatch, capsys, *arguments, out, "--overwrite")[0] == 0
    code, _, err = run_main(monkeypatch, capsys, *arguments, film, "--overwrite")
    assert code == 2
    assert "is what the dataset is to be made of" in err
    assert film.read_bytes() == before


def test_import_options_for_arrays(tmp_path: Path) -> None:
    film = np.zeros((20, 30, 16, 16))  # time first, as Moving MNIST is
    film[np.arange(20), :, np.arange(20) % 16] = 7
    np.save(tmp_path / "a.npy", 7 - film)
    options = ("--axes", "TNHW", "--range", "0,7", "--invert", "--frames", "20", "--matte", "white")
    result = run("import", tmp_path / "a.npy", "--out", tmp_path / "o.h5", *options)
    assert result.exit_code == 0
    assert result.stderr == ""
    with Dataset.open(tmp_path / "o.h5") as dataset:
        read = dataset.read("training", range(24), ("features",))["features"]
    expected = np.broadcast_to(film[:, :24, ..., None] > 0, read.shape)
    np.testing.assert_array_equal(read, expected)


def test_check_and_info_say_what_was_counted(tmp_path: Path) -> None:
    import h5py

    frames = (np.random.default_rng(0).random((5, 7, 8, 9, 1)) < 0.3).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for split in ("training", "validation"):
            file[f"{split}/features"] = frames
            file[f"{split}/actions"] = np.arange(35).reshape(5, 7) % 4
    result = run("check", tmp_path / "a.h5")
    assert "actions: 4, counted" in result.stdout
    assert "rewards: a world model won't learn them" in result.stdout
    assert "number_of_actions  4 (found out from the arrays)" in run("info", tmp_path / "a.h5").stdout


def test_parsing() -> None:
    assert parse_size("64") == (64, 64)
    assert parse_size("48X64") == (48, 64)
    assert parse_ratio("8,1,1") == [8, 1, 1]
    for text in ("", "x", "1x2x3", "-4", "6²"):
        with pytest.raises(ConfigError, match="--size"):
            parse_size(text)


def test_help_needs_no_heavy_library() -> None:
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from rnem_world.cli.data import command\n"
        "for arguments in (['-h'], ['info', '--help'], ['check', '--help'], ['import', '--help']):\n"
        "    CliRunner().invoke(command, arguments)\n"
        "print(sorted({'torch', 'h5py', 'imageio', 'PIL', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
