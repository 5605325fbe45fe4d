"""Checkpoints that TensorFlow itself wrote, read without it."""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import GOLDENS, Reference, load, original_layout

from rnem_world.errors import CheckpointError, OutputError
from rnem_world.models.tensorflow_files import read_tensorflow_checkpoint
from rnem_world.models.tensorflow_names import tensorflow_parameters, to_tensorflow_layout
from rnem_world.models.tensorflow_tables import FOOTER_SIZE, masked_checksum, unpacked
from rnem_world.training.checkpoint import load_model
from rnem_world.training.original import import_tensorflow

WRITTEN = GOLDENS / "tensorflow"
DATA = ".data-00000-of-00001"
ADAM = {"beta1_power": np.float32(0.9), "beta2_power": np.float32(0.999)}
MODELS = {
    "c1x_rnem_k5_sharp": ("relational", "conv64", 0, 1e-5),
    "c3_rnn_k5": ("rnn", "conv64", 0, 2e-6),
    "c5_atari_b1": ("relational", "conv84", 6, 1e-6),
}


def bundle(name: str, folder: Path) -> tuple[Path, Reference]:
    """Lays the whole checkpoint out: TensorFlow's index, and the data, which is drawn again from the seeds.

    The index has the checksum of every variable, so the data is what TensorFlow wrote or the reader refuses it.
    """
    reference = load(name)
    arrays = {
        variable: to_tensorflow_layout(parameter.detach()).numpy()
        for variable, parameter in tensorflow_parameters(reference.model).items()
    } | ADAM
    folder.mkdir(exist_ok=True)
    shutil.copy(WRITTEN / f"{name}.index", folder / "best.index")
    data = b"".join(np.ascontiguousarray(arrays[variable]).tobytes() for variable in sorted(arrays))
    (folder / f"best{DATA}").write_bytes(data)
    return folder / "best", reference


@pytest.mark.parametrize("name", MODELS)
def test_an_imported_checkpoint_predicts_what_the_original_predicts(name, tmp_path):
    core, architecture, actions, limit = MODELS[name]
    prefix, reference = bundle(name, tmp_path / "debug_out")
    imported = import_tensorflow(prefix, tmp_path / "mine")
    assert imported.left_out == ("beta1_power", "beta2_power")
    model, config = load_model(tmp_path / "mine")
    found = config.model
    assert (found.core, found.architecture, found.number_of_actions) == (core, architecture, actions)
    assert found.slots == reference.expected["gammas_sum"].shape[2]
    with torch.no_grad():
        reference.model = model
        predictions = original_layout(reference.run().predictions)
    rows = reference.pixels
    sub = predictions[:, :, :, rows][:, :, :, :, rows]
    np.testing.assert_allclose(sub, reference.expected["preds_sub"], atol=limit, rtol=0)


@pytest.mark.parametrize("form", ["best", "best.index", f"best{DATA}", "best.meta", ""])
def test_a_checkpoint_is_found_by_any_of_its_names(form, tmp_path):
    for name in ("small.index", f"small{DATA}"):
        shutil.copy(WRITTEN / name, tmp_path / name.replace("small", "best"))
    assert len(read_tensorflow_checkpoint(tmp_path / form)) == 9


@pytest.mark.parametrize("name", ["small", "small_v1"])
def test_both_formats_give_every_type_of_number(name):
    expected, found = np.load(WRITTEN / "small.npz"), read_tensorflow_checkpoint(WRITTEN / name)
    assert set(found) == set(expected.files)  # text is passed over
    for variable in expected.files:
        np.testing.assert_array_equal(found[variable], expected[variable], strict=True)


@pytest.mark.parametrize("name", ["small.index", f"small{DATA}", "small_v1"])
def test_every_changed_byte_is_noticed_or_means_nothing(name, tmp_path):
    for file in WRITTEN.glob("small*"):
        shutil.copy(file, tmp_path)
    given = tmp_path / ("small_v1" if name == "small_v1" else "small")
    expected = read_tensorflow_checkpoint(given)
    data, refused = (WRITTEN / name).read_bytes(), 0
    for position in range(len(data)):
        (tmp_path / name).write_bytes(data[:position] + bytes([data[position] ^ 0x15]) + data[position + 1 :])
        try:
            found = read_tensorflow_checkpoint(given)
        except CheckpointError:
            refused += 1
        else:  # padding, and the index of blocks that are of no use here
            assert set(found) == set(expected)
            assert all(np.array_equal(found[variable], expected[variable]) for variable in expected)
    assert refused > 0.8 * len(data)


@pytest.mark.parametrize("size", [0, 7, 60, 300, 342])
@pytest.mark.parametrize("name", ["small.index", f"small{DATA}", "small_v1"])
def test_a_file_that_is_cut_short_is_refused(name, size, tmp_path):
    for file in WRITTEN.glob("small*"):
        shutil.copy(file, tmp_path)
    (tmp_path / name).write_bytes((WRITTEN / name).read_bytes()[:size])
    with pytest.raises(CheckpointError, match="can't be read as a checkpoint of TensorFlow"):
        read_tensorflow_checkpoint(tmp_path / ("small_v1" if name == "small_v1" else "small"))


def test_a_compressed_table_is_refused_with_advice(tmp_path):
    data = bytearray((WRITTEN / "small_v1").read_bytes())
    _, _, start, size = unpacked(bytes(data[-FOOTER_SIZE:-8]))[:4]
    end = start + size
    data[end] = 1
    data[end + 1 : end + 5] = struct.pack("<I", masked_checksum(bytes(data[start : end + 1])))
    (tmp_path / "old").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"compressed, as TensorFlow before 1.2 did: restore it"):
        read_tensorflow_checkpoint(tmp_path / "old")


def test_the_command_says_what_it_found(tmp_path, rnem):
    bundle("c5_atari_b1", tmp_path / "debug_out")
    outcome = rnem(
        "import-tf", tmp_path / "debug_out", "--out", tmp_path / "mine", "--data", "space_invaders"
    )
    assert outcome.code == 0, outcome.err
    assert "relational core, conv84, 2.33 M parameters, 6 actions" in outcome.out
    assert "slots: 4, as in the paper" in outcome.out
    again = rnem("import-tf", tmp_path / "debug_out", "--out", tmp_path / "mine")
    assert again.code == 2
    assert "already exists" in again.err


def test_without_checksums_the_extra_is_named(tmp_path, rnem, monkeypatch):
    prefix, _ = bundle("c5_atari_b1", tmp_path / "debug_out")
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    outcome = rnem("import-tf", prefix, "--out", tmp_path / "mine")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert 'google-crc32c, which isn\'t installed: pip install "rnem-world[formats]"' in outcome.err
    assert not (tmp_path / "mine").exists()


def test_what_is_no_checkpoint_of_the_original_is_refused(tmp_path, rnem):
    outcome = rnem("import-tf", WRITTEN / "small", "--out", tmp_path / "mine")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "there are no variables of R-NEM" in outcome.err
    assert not (tmp_path / "mine").exists()
    with pytest.raises(CheckpointError, match="holds several checkpoints, name one: c1x"):
        import_tensorflow(WRITTEN, tmp_path / "mine")
    with pytest.raises(OutputError, match="already exists"):
        import_tensorflow(WRITTEN / "small", tmp_path)
