"""The page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from browsers import Window, browsing, needs_chromium

pytestmark = needs_chromium

WIDE, NARROW = {"width": 1360, "height": 860}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with browsing() as opened:
        yield opened


@pytest.fixture(params=["wide", "narrow"])
def window(request, browser, server) -> Iterator[Window]:
    """A page that has just been opened; nothing may go wrong in it."""
    narrow = request.param == "narrow"
    context = browser.new_context(viewport=NARROW if narrow else WIDE, has_touch=narrow)
    window = Window(context.new_page()).open(server.address)
    yield window
    context.close()
    assert window.errors == []


def only(kind: str):
    return pytest.mark.parametrize("window", [kind], indirect=True)


def objects(lane: dict) -> list[int]:
    return [k for k, slot in enumerate(lane["slots"]) if slot[2] > 5]


def free_place(lane: dict) -> tuple[float, float]:
    places = [(x, y) for x in range(6, 27) for y in range(6, 27)]
    taken = [lane["slots"][k] for k in objects(lane)]
    return max(places, key=lambda p: min(np.hypot(p[0] - s[0], p[1] - s[1]) for s in taken))


def pixel_of(window: Window, slot: int, lane: str = "dream") -> tuple[float, float]:
    """A pixel that a slot owns."""
    index = window.see(f"rnem.picture.lanes.find((lane) => lane.name === '{lane}').owner.indexOf({slot})")
    return index % 32 + 0.5, index // 32 + 0.5


def test_it_loads_and_dreams(window):
    window.wait("rnem.picture.time > 5")
    assert window.see("document.getElementById('world').textContent") == "balls"
    coloured = window.see(
        "new Set(Array.from({length: 1024}, (_, p) => Array.from(document.querySelector('.pixels').getContext('2d')"
        ".getImageData(p % 32, p >> 5, 1, 1).data).join())).size"
    )
    assert coloured >= 4  # black, and a colour for each object


def test_nothing_is_wider_than_the_window(window):
    window.page.keyboard.press("b")
    window.wait("rnem.picture.lanes.length === 2 && document.querySelectorAll('.pad').length === 2")
    assert window.see("document.documentElement.scrollWidth <= window.innerWidth")
    box = window.page.locator(".panel.dream .screen").bounding_box()
    assert box["width"] == pytest.approx(box["height"], abs=1)
    assert box["width"] > 160


@only("wide")
def test_keys_move_the_player(window):
    window.pause()
    ring = ring_of(window)
    before = window.lane()["slots"][ring]
    key = "ArrowLeft" if before[0] > 16 else "ArrowRight"
    window.page.keyboard.down(key)
    for _ in range(3):
        time = window.see("rnem.picture.time")
        window.page.keyboard.press(".")
        window.wait(f"rnem.picture.time > {time}")
    window.page.keyboard.up(key)
    after = window.lane()["slots"][ring]
    assert (after[0] - before[0]) * (1 if key == "ArrowRight" else -1) > 2
    assert abs(after[1] - before[1]) < 2


def ring_of(window: Window) -> int:
    """The player's slot: the one whose middle isn't its own."""
    lane = window.lane()
    owner = window.see("Array.from(rnem.picture.lanes[0].owner)")
    hollow = [
        k for k in objects(lane) if owner[int(lane["slots"][k][1]) * 32 + int(lane["slots"][k][0])] != k
    ]
    return hollow[0] if hollow else min(objects(lane), key=lambda k: lane["slots"][k][2])


@only("narrow")
def test_buttons_move_the_player_too(window):
    window.page.locator(".pad.dream [aria-label='down right']").dispatch_event(
        "pointerdown", {"pointerId": 1}
    )
    window.wait("rnem.picture.lanes[0].action === 4")
    window.page.locator(".pad.dream [aria-label='down right']").dispatch_event("pointerup", {"pointerId": 1})
    window.wait("rnem.picture.lanes[0].action === 0")


@only("wide")
def test_a_click_removes_an_object_and_undo_brings_it_back(window):
    window.stand()
    before = window.lane()
    slot = objects(before)[0]
    window.page.mouse.click(*window.place(*pixel_of(window, slot)))
    window.until(lambda: slot not in objects(window.lane()))
    assert len(objects(window.lane())) == len(objects(before)) - 1
    window.page.locator("#toast button").click()
    window.until(lambda: window.lane()["frame"] == before["frame"])


@only("wide")
def test_a_drag_puts_a_copy_elsewhere(window):
    window.stand()
    before = window.lane()
    to = free_place(before)
    window.page.mouse.move(*window.place(*pixel_of(window, objects(before)[-1])))
    window.page.mouse.down()
    window.page.mouse.move(*window.place(*to), steps=4)
    window.page.mouse.up()
    window.until(lambda: len(objects(window.lane())) == len(objects(before)) + 1, "the copy")
    after = window.lane()
    (new,) = set(objects(after)) - set(objects(before))
    assert np.hypot(after["slots"][new][0] - to[0], after["slots"][new][1] - to[1]) < 3


@only("wide")
def test_dragging_onto_another_lets_them_change_places(window):
    window.stand()
    before = window.lane()
    first, second = objects(before)[:2]
    window.page.mouse.move(*window.place(*pixel_of(window, first)))
    window.page.mouse.down()
    window.page.mouse.move(*window.place(*pixel_of(window, second)), steps=4)
    window.page.mouse.up()

    def changed():
        if "can't imagine" in window.see("document.getElementById('toast').textContent"):
            return True  # some places are too narrow for it, which is then said
        slots = window.lane()["slots"]
        return np.hypot(*np.subtract(slots[first][:2], before["slots"][second][:2])) < 5

    window.until(changed)


@only("wide")
def test_two_dreams_side_by_side_under_other_keys(window):
    window.pause()
    window.page.keyboard.press("b")
    window.wait("document.querySelectorAll('.panel').length === 2")
    window.page.keyboard.down("ArrowLeft")
    window.page.keyboard.down("d")
    window.wait("document.querySelector('.pad.branch .doing').textContent === 'right'")
    for _ in range(6):
        time = window.see("rnem.picture.time")
        window.page.keyboard.press(".")
        window.wait(f"rnem.picture.time > {time}")
    assert (window.lane()["action"], window.lane("branch")["action"]) == (7, 3)
    assert window.lane()["frame"] != window.lane("branch")["frame"]
    assert "apart" in window.see("document.querySelector('.panel.branch .note').textContent")
    other = window.lane("branch")["frame"]
    window.page.click("#adopt")
    window.wait("document.querySelectorAll('.panel').length === 1")
    assert window.lane()["frame"] == other


@only("wide")
def test_the_real_environment_beside(window):
    window.page.check("#real")
    window.wait("document.querySelectorAll('.panel.real').length === 1 && rnem.picture.time > 3")
    assert "as dreamt" in window.see("document.querySelector('.panel.real .note').textContent")
    window.page.uncheck("#real")
    window.wait("document.querySelectorAll('.panel').length === 1")


@only("wide")
def test_going_back_on_the_timeline_and_keeping_a_moment(window):
    window.wait("rnem.picture.time > 20")
    window.pause()
    box = window.page.locator("#timeline").bounding_box()
    window.page.mouse.click(box["x"] + box["width"] * 10 / 120, box["y"] + box["height"] / 2)
    window.wait("rnem.picture.time === 10")
    frame = window.lane()["frame"]
    window.page.keyboard.press("k")
    window.page.keyboard.press("n")
    window.wait("rnem.picture.epoch > 1")
    window.page.locator("#kept button").click()
    window.wait("rnem.picture.time === 10 && !rnem.picture.playing")
    assert window.lane()["frame"] == frame


@only("wide")
def test_the_server_going_is_said(window, imagining):
    from serving import Running

    from rnem_world.play.server import PlayOptions

    page = window.page.context.new_page()
    with Running(imagining, PlayOptions()) as server:
        other = Window(page).open(server.address)
    other.wait("!document.getElementById('veil').hidden")
    assert "over" in other.see("document.getElementById('veil-text').textContent")
