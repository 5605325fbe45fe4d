"""The server: who is let in, what is refused and how, and that visitors neither wait for one another nor leak."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import socket
import threading
import time
import weakref

import pytest
from pages import Page
from serving import Running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from rnem_world.errors import ConfigError
from rnem_world.play import messages
from rnem_world.play.server import PlayOptions, PlayServer
from rnem_world.play.stage import MOST_UNSEEN, MOST_WAITING, TooManyCommandsError, Visitor
from rnem_world.play.visit import Visit


def get(server: Running, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("GET", path, skip_host="Host" in headers)  # the path as it is
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def closed_with(page: Page) -> tuple[int, str]:
    """Waits until a page is thrown out; says with which code and why."""
    with pytest.raises(ConnectionClosed) as caught:
        list(iter(lambda: page.socket.recv(60), None))
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def wait_until(holds, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_page_and_its_files_are_served(server):
    answer = get(server, f"/{server.token}/")
    assert answer.status == 200
    page = answer.read().decode()
    assert "<script" in page
    for name, kind in (
        ("app.js", "text/javascript"),
        ("style.css", "text/css"),
        ("source.js", "text/javascript"),
    ):
        file = get(server, f"/{server.token}/{name}")
        assert (file.status, file.headers.get_content_type()) == (200, kind)


def test_nothing_on_the_page_comes_from_elsewhere(server):
    files = server._files
    for name, data in files.items():
        assert b"://" not in data.replace(b"http://www.w3.org/2000/svg", b""), name
    policy = get(server, f"/{server.token}/").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_only_this_machine_is_listened_to(server):
    assert server._socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/wrong/", "/wrong/app.js", "//", "/{token}x/app.js", "/%00/", "//wrong//"]
)
def test_without_the_token_nothing_is_served(server, path):
    answer = get(server, path.format(token=server.token))
    assert answer.status == 403
    assert b"token" in answer.read()


@pytest.mark.parametrize(
    "path",
    [
        "/{token}/../../pyproject.toml",
        "/{token}/..%2f..%2fserver.py",
        "/{token}/%2e%2e/server.py",
        "/{token}/../server.py",
        "/{token}//etc/passwd",
        "/{token}/page/../../server.py",
        "/{token}/server.py",
        "/{token}/graphs.js%00.css",
        "/{token}/..\\server.py",
    ],
)
def test_no_path_climbs_out(server, path):
    answer = get(server, path.format(token=server.token))
    assert answer.status in (403, 404)
    assert b"import" not in answer.read()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}"]
)
def test_another_name_for_this_machine_is_refused(server, host):
    answer = get(server, f"/{server.token}/", Host=host.format(port=server.port))
    assert answer.status == 403


def test_another_name_gets_no_dream(server):
    """Not even a page of that name, which by it would be of the same origin as the dream."""
    name = f"evil.example:{server.port}"
    with (
        socket.create_connection(("127.0.0.1", server.port)) as led_here,
        pytest.raises(InvalidStatus) as caught,
    ):
        connect(f"ws://{name}/{server.token}/dream", origin=f"http://{name}", sock=led_here).__enter__()
    assert caught.value.response.status_code == 403


def test_localhost_is_this_machine(server):
    assert get(server, f"/{server.token}/", Host=f"localhost:{server.port}").status == 200


def test_another_origin_gets_no_file(server):
    assert get(server, f"/{server.token}/app.js", Origin="http://evil.example").status == 403
    assert get(server, f"/{server.token}/app.js", Origin=f"http://{server.host}").status == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://{host}", "http://127.0.0.1:1", "http://localhost:{port}", None],
)
def test_another_origin_gets_no_dream(server, origin):
    given = None if origin is None else origin.format(host=server.host, port=server.port)
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://{server.host}/{server.token}/dream", origin=given).__enter__()
    assert caught.value.response.status_code == 403


def test_without_the_token_there_is_no_dream(server):
    for path in ("/dream", "/wrong/dream"):
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://{server.host}{path}", origin=f"http://{server.host}").__enter__()
        assert caught.value.response.status_code == 403


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (b"\x00\x01", 1003, "text"),
        ("{", 1007, "JSON"),
        ("", 1007, "JSON"),
        ("[1]", 1008, "no command"),
        ('{"type": "sudo"}', 1008, "no command"),
        ('{"type": "act", "action": 99}', 1008, "action"),
        ('{"type": "place", "slot": 0, "x": NaN, "y": 1}', 1008, "finite"),
        ('{"type": "act", "action": ' + "[" * 1500 + "]" * 1500 + "}", 1008, ""),
        ('{"type": "play", "on": true, "x": "' + "x" * 5000 + '"}', 1009, ""),
        ("ä" * 2100, 1009, ""),
    ],
)
def test_whoever_sends_something_else_is_thrown_out(open_page, message, code, reason):
    page = open_page()
    page.socket.send(message)
    got, why = closed_with(page)
    assert got == code
    assert reason in why


def test_whoever_sends_too_much_is_thrown_out_and_nobody_else_waits(open_page):
    flooding, other = open_page(), open_page()
    with contextlib.suppress(ConnectionClosed):
        for _ in range(20000):
            flooding.socket.send('{"type": "step"}')
    assert closed_with(flooding)[0] == 1008
    assert other.ask("step")["time"] == 1


def test_what_is_dragged_over_waits_as_one_command():
    visitor = Visitor()
    for time_ in range(1000):
        visitor.take(messages.Seek(time_))
    assert visitor.commands == [messages.Seek(999)]
    for action in range(1000):
        visitor.take(messages.Act(action % 9))
    visitor.take(messages.Act(1, "branch"))
    assert visitor.commands == [messages.Seek(999), messages.Act(0), messages.Act(1, "branch")]
    for _ in range(MOST_WAITING - 3):
        visitor.take(messages.Step())
    with pytest.raises(TooManyCommandsError):
        visitor.take(messages.Step())


def test_a_page_that_shows_nothing_gets_no_more_pictures(open_page):
    page = open_page()
    page.send("speed", fps=60)
    page.send("play", on=True)
    pictures = 1
    with contextlib.suppress(TimeoutError):
        while pictures < 30:
            page.next(1.0, seen=False)
            pictures += 1
    assert pictures <= MOST_UNSEEN + 2
    page.send("seen", picture=page.picture["picture"])
    assert page.next()["picture"] > pictures


def test_there_is_room_for_so_many_and_again_when_one_has_gone(imagining):
    with Running(imagining, PlayOptions(most_visitors=2)) as server:
        pages = [Page(server.address), Page(server.address)]
        socket_ = connect(f"ws://{server.host}/{server.token}/dream", origin=f"http://{server.host}")
        with pytest.raises(ConnectionClosed) as caught, socket_ as refused:
            refused.recv(60)
        assert caught.value.rcvd.code == 1013
        assert "2 pages" in caught.value.rcvd.reason
        pages[0].close()
        wait_until(lambda: len(server.stage) == 1)
        again = Page(server.address)
        assert again.ask("step")["time"] == 1
        for page in (again, pages[1]):
            page.close()


def test_a_closed_tab_frees_its_dream(server, open_page, monkeypatch):
    visits: list[weakref.ref] = []
    begin = Visit.__init__

    def noted(self, *arguments):
        visits.append(weakref.ref(self))
        begin(self, *arguments)

    monkeypatch.setattr(Visit, "__init__", noted)
    orderly, torn = open_page(), open_page()
    for page in (orderly, torn):
        page.ask("real", on=True)
        page.send("play", on=True)
        page.next()
    assert len(visits) == 2
    orderly.close()
    torn.socket.socket.shutdown(socket.SHUT_RDWR)  # as when a browser dies
    open_page().ask("step")  # whose turn takes the place of the last one, with all that it held

    def gone():
        gc.collect()
        return [visit() for visit in visits[:2]] == [None, None]

    wait_until(gone)


def test_each_page_has_a_dream_of_its_own(open_page):
    first, second = open_page(), open_page()
    assert first.picture["seed"] != second.picture["seed"]
    for _ in range(3):
        first.ask("step")
    assert second.ask("step")["time"] == 1
    assert first.ask("step")["time"] == 4


def test_what_is_refused_is_said_and_nobody_is_thrown_out(open_page):
    page = open_page()
    page.ask("undo")
    assert "nothing was changed" in page.refused[0]
    assert page.ask("step")["time"] == 1


def test_twenty_visitors_at_once(open_page):
    pages = [open_page() for _ in range(20)]
    for page in pages:
        page.send("act", action=3)
        page.send("play", on=True)
    for _ in range(15):
        for page in pages:
            page.next()
    assert all(page.picture["time"] >= 10 for page in pages)


def test_a_failure_ends_the_server_and_is_raised(imagining, monkeypatch):
    server = PlayServer(imagining, PlayOptions())

    def fails(*arguments):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("rnem_world.play.stage.make_turn", fails)

    def visit():
        with pytest.raises((ConnectionClosed, OSError)):
            Page(server.address)

    visitor = threading.Thread(target=visit)
    with pytest.raises(ZeroDivisionError):
        server.run(visitor.start)
    visitor.join(60)


def test_a_port_that_is_taken_is_said(imagining, server):
    with pytest.raises(ConfigError, match="--port"):
        PlayServer(imagining, PlayOptions(port=server.port))


@pytest.mark.parametrize("options", [{"port": 70000}, {"most_visitors": 0}, {"fps": 31}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match="--"):
        PlayOptions(**options)


def test_the_facts_are_told_first(open_page):
    facts = open_page().facts
    assert facts["frame"] == [32, 32, 1]
    assert facts["actions"]["names"][3] == "right"
    assert len(facts["colours"]) == facts["slots"] == 5
    assert json.dumps(facts)
    assert facts["kept"] == messages.MOST_KEPT
