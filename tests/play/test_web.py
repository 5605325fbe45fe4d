"""The page in a folder, without a server: what is written, what is refused, and that it dreams as the server does."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browsers import Window, browsing, needs_chromium
from click.testing import CliRunner
from serving import Running

from rnem_world.cli.main import group
from rnem_world.errors import CheckpointError, DependencyError, OutputError
from rnem_world.play.server import PlayOptions
from rnem_world.play.web import CDN, NUMBER_OF_STARTS, RUNTIME_FILES, write_site

STEPS, EQUAL_STEPS = 60, 25
"""Steps that are compared, and until which all pixels have to be the same: what the two round differently grows."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "balls"
    write_site("balls", folder)
    return folder


def test_it_has_all_that_it_names(site):
    world = json.loads((site / "world.json").read_text())
    assert world["runtime"] == CDN
    assert world["facts"]["world"] == "balls"
    sizes = sum(world["starts"]["sizes"].values())
    assert (site / "starts.bin").stat().st_size == 4 * sizes * world["starts"]["states"]
    assert world["starts"]["states"] == NUMBER_OF_STARTS
    for file in site.glob("*.js"):
        for line in file.read_text().splitlines():
            if line.startswith("import ") and ' from "./' in line:
                assert (site / line.split('"')[1]).is_file(), line
    for name in (
        "model.safetensors",
        "latent_step.onnx",
        "draw.onnx",
        "observe.onnx",
        "encode.onnx",
        "index.html",
    ):
        assert (site / name).is_file()
    assert "WebSocket" not in (site / "source.js").read_text()
    assert not (site / "server.js").exists()


def test_what_is_there_is_not_overwritten(site):
    with pytest.raises(OutputError, match="already exists"):
        write_site("balls", site)


def test_a_folder_without_the_runtime_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(CheckpointError, match="onnxruntime-web"):
        write_site("balls", tmp_path / "site", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_runtime_is_copied_from_a_folder(tmp_path):
    package = tmp_path / "node_modules" / "onnxruntime-web"
    (package / "dist").mkdir(parents=True)
    for name in RUNTIME_FILES:
        (package / "dist" / name).write_text(name)
    write_site("balls", tmp_path / "site", str(package), number_of_starts=2)
    assert json.loads((tmp_path / "site" / "world.json").read_text())["runtime"] == "./"
    for name in RUNTIME_FILES:
        assert (tmp_path / "site" / name).read_text() == name


def test_the_command_makes_the_graphs_that_a_world_lacks_and_says_how_to_see_it(tmp_path):
    """In a process of its own: types aren't checked there, which tracing doesn't bear."""
    command = [
        sys.executable,
        "-m",
        "rnem_world",
        "export",
        "stove",
        "--half",
        "--web",
        str(tmp_path / "site"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "http.server" in result.stdout
    assert json.loads((tmp_path / "site" / "world.json").read_text())["facts"]["world"] == "stove"
    assert (tmp_path / "site" / "latent_step.onnx").is_file()


def test_something_has_to_be_named():
    result = CliRunner().invoke(group, ["export", "balls"])
    assert "--web FOLDER" in str(result.exception)


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A site on a web server, with ONNX Runtime from npm."""
    folder = tmp_path_factory.mktemp("site") / "balls"
    try:
        write_site("balls", folder, "npm")
    except DependencyError as error:
        pytest.skip(
            f"ONNX Runtime for browsers can't be had, so pages without a server aren't tried: {error}"
        )

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


DREAM = """async ([seed, actions]) => {
  const until = (holds) => new Promise((done) => {
    const look = () => (holds() ? done() : setTimeout(look, 1));
    look();
  });
  rnem.send({ type: "play", on: false });
  await until(() => !rnem.picture.playing);
  const { epoch } = rnem.picture;
  rnem.send({ type: "begin", seed });
  await until(() => rnem.picture.epoch !== epoch);
  const seen = [];
  for (const [i, action] of actions.entries()) {
    rnem.send({ type: "act", action });
    rnem.send({ type: "step" });
    await until(() => rnem.picture.time === i + 1);
    const [{ frame, reward, uncertainty }] = rnem.picture.lanes;
    seen.push([Array.from(frame), reward, uncertainty]);
  }
  return seen;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with browsing() as opened:
        yield opened


@needs_chromium
def test_its_frames_are_the_servers(address, browser, imagining):
    context = browser.new_context()
    window = Window(context.new_page()).open(address)
    starts = imagining.begin_evenly(NUMBER_OF_STARTS)
    for seed in range(3):
        actions = np.random.default_rng(seed).integers(9, size=STEPS)
        seen = window.page.evaluate(DREAM, [seed, actions.tolist()])
        dreams = starts.pick(torch.tensor([seed]))
        for step, (action, (frame, reward, uncertainty)) in enumerate(zip(actions, seen, strict=True)):
            (imagined,) = imagining.advance([dreams], [np.array(action)])
            dreams = imagined.dreams
            different = int((imagined.view.frame.ravel() != np.array(frame)).sum())
            assert different == 0 or step >= EQUAL_STEPS
            if step < EQUAL_STEPS:
                assert reward == pytest.approx(imagined.reward, abs=2e-3)
                assert uncertainty == pytest.approx(imagined.view.uncertainty, abs=1e-2)
    context.close()
    assert window.errors == []


@needs_chromium
def test_objects_can_be_touched_and_time_turned_back(address, browser):
    context = browser.new_context(viewport={"width": 1200, "height": 860})
    window = Window(context.new_page()).open(address)
    assert not window.page.locator("#real").is_visible()
    window.stand()
    before = window.lane()
    there = [k for k, slot in enumerate(before["slots"]) if slot[2] > 5]
    places = [(x, y) for x in range(6, 27) for y in range(6, 27)]
    x, y = max(places, key=lambda p: min(np.hypot(*np.subtract(p, before["slots"][k][:2])) for k in there))
    window.see(f"rnem.send({{ type: 'place', slot: {there[0]}, x: {x}, y: {y} }})")
    window.until(lambda: sum(slot[2] > 5 for slot in window.lane()["slots"]) == len(there) + 1)
    (new,) = {k for k, slot in enumerate(window.lane()["slots"]) if slot[2] > 5} - set(there)
    assert np.hypot(*np.subtract(window.lane()["slots"][new][:2], (x, y))) < 3
    window.see(f"rnem.send({{ type: 'remove', slot: {there[0]} }})")
    window.until(lambda: window.lane()["slots"][there[0]][2] < 5)
    for _ in range(2):
        window.page.keyboard.press("z")
    window.until(lambda: window.lane()["frame"] == before["frame"])
    window.page.keyboard.press("b")
    window.wait("document.querySelectorAll('.panel').length === 2")
    window.see("rnem.send({ type: 'act', lane: 'branch', action: 3 })")
    for _ in range(6):
        time = window.see("rnem.picture.time")
        window.page.keyboard.press(".")
        window.wait(f"rnem.picture.time > {time}")
    assert window.lane()["frame"] != window.lane("branch")["frame"]
    context.close()
    assert window.errors == []


@needs_chromium
def test_the_page_speaks_the_same_to_both(address, browser, imagining):
    """A page of the server and one without tell of the world in the same words."""
    facts = []
    with Running(imagining, PlayOptions()) as server:
        for place in (server.address, address):
            context = browser.new_context()
            window = Window(context.new_page()).open(place)
            facts.append(
                window.see("[document.getElementById('about').textContent, Object.keys(rnem.picture).sort()]")
            )
            facts[-1].append(window.see("Object.keys(rnem.picture.lanes[0]).sort()"))
            context.close()
    assert facts[0] == facts[1]
