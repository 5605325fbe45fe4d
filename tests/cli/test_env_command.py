"""``rnem-world env``."""

from __future__ import annotations

import json

import imageio.v3 as imageio


def test_list_and_info(rnem):
    listed = rnem("env", "list")
    assert listed.code == 0, listed.err
    assert "RNEM-Balls-v0" in listed.out
    assert "learned, world space_invaders" in listed.out
    shown = rnem("env", "info", "balls")
    assert shown.code == 0, shown.err
    for part in ("32 x 32 x 1", "64 of 16 frames", "5 of 128 numbers", "rank correlation", "starts"):
        assert part in shown.out


def test_bench_gives_a_line_for_each_kind(rnem, tmp_path):
    out = tmp_path / "speeds.json"
    result = rnem(
        "env",
        "bench",
        "balls",
        "--batches",
        "1,4",
        "--seconds",
        0.01,
        "--engines",
        "torch,onnx",
        "--profile",
        "--out",
        out,
        "--threads",
        1,
    )
    assert result.code == 0, result.err
    speeds = json.loads(out.read_text())["speeds"]
    names = {speed["name"] for speed in speeds}
    kinds = {f"latent, {seen}, {engine}" for seen in ("slots", "frame") for engine in ("torch", "onnx")}
    assert {*kinds, "real simulator, frame"} <= names
    assert all(speed["steps_per_second"] > 0 for speed in speeds)
    assert "mkldnn" in result.out or "addmm" in result.out


def test_record_films_a_dream(rnem, tmp_path):
    out = tmp_path / "dream.gif"
    result = rnem("env", "record", "balls", "--steps", 3, "--out", out, "--threads", 1)
    assert result.code == 0, result.err
    assert imageio.imread(out).shape[1:3] == (256, 512)
    assert "3 steps, return" in result.out


def test_bad_input_is_one_line(rnem, tmp_path):
    for arguments, message in (
        (("info", "bals"), "did you mean 'balls'"),
        (("bench", "balls", "--batches", "0"), "at least 1"),
        (("bench", "balls", "--seconds", -1), "above 0"),
        (("record", "balls", "--steps", 0, "--out", tmp_path / "d.mp4"), "--steps is 0"),
        (("record", "balls", "--policy", "stya", "--out", tmp_path / "d.mp4"), "did you mean 'stay'"),
        (("record", "balls", "--out", tmp_path / "d.txt"), ".mp4"),
        (("record", "balls", "--imagination", "soft", "--out", tmp_path / "d.mp4"), "latent, pixels"),
    ):
        result = rnem("env", *arguments)
        assert result.code == 2
        assert message in result.err
        assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
