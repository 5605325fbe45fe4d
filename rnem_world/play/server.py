"""The server of the page, for this machine alone: on 127.0.0.1, with a token in the address, for no other origin."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from rnem_world.config import check_types
from rnem_world.errors import ConfigError, RnemWorldError
from rnem_world.play.facts import facts_of
from rnem_world.play.imagining import Imagining
from rnem_world.play.messages import FRAME_RATES, LARGEST_MESSAGE, read_command, write_text
from rnem_world.play.reality import Reality
from rnem_world.play.stage import Stage, TooManyCommandsError, Visitor
from rnem_world.play.visit import Visit

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")

# Codes with which a connection is closed (RFC 6455, section 7.4.1).
NO_TEXT, NO_JSON, NO_COMMAND, TOO_LARGE, NO_ROOM = 1003, 1007, 1008, 1009, 1013

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SOURCE = "source.js"
"""What the page imports to reach its dreams: `server.js` here, `local.js` in a folder without a server."""


def page_files(source: str) -> dict[str, bytes]:
    """Reads the page, by the names of its files.

    Args:
        source: Which file is to be `SOURCE`.
    """
    folder = resources.files("rnem_world.play") / "page"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    others = {"server.js": ("graphs.js", "local.js"), "local.js": ("server.js",)}[source]
    files[SOURCE] = files.pop(source)
    return {name: data for name, data in files.items() if name not in others}


@dataclass(frozen=True)
class PlayOptions:
    """How a world is played.

    Attributes:
        port: Port on 127.0.0.1; 0 takes a free one.
        most_visitors: Pages that may be open at once.
        fps: Frames a second at first; None takes the world's own.
        seed: Of the first page's dreams; each further page has one more.

    Raises:
        ConfigError: If a value makes no sense.
    """

    port: int = 0
    most_visitors: int = 32
    fps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.port < 65536:
            raise ConfigError(f"--port is {self.port}, expected 0 (any free one) to 65535")
        if not 1 <= self.most_visitors <= 1024:
            raise ConfigError(f"--visitors is {self.most_visitors}, expected 1 to 1024")
        if self.fps is not None and self.fps not in FRAME_RATES:
            raise ConfigError(f"--fps is {self.fps}, expected one of {', '.join(map(str, FRAME_RATES))}")


class Guard:
    """Lets only those in who name this machine and know the token, and tells browsers to keep others out too.

    Args:
        app: What is guarded.
        token: The first part of every path.
        port: The port.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app = app
        self._token = token
        self._hosts = [f"{name}:{port}" for name in NAMES]
        sockets = " ".join(f"ws://{host}" for host in self._hosts)
        policy = (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
            f"connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),  # the address holds the token
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cache-control", b"no-store"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses with 403, or hands on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        reason = self._reason(HTTPConnection(scope))
        if reason is None:
            await self._app(scope, receive, guarded)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(NO_COMMAND, reason)  # 403, since it wasn't accepted
        else:
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, guarded)

    def _reason(self, connection: HTTPConnection) -> str | None:
        """Says why a request is refused; None if it isn't."""
        headers = connection.headers
        host, origin = headers.get("host", ""), headers.get("origin")
        # Another name may lead here as well, and by it a foreign page would be of our origin.
        if host not in self._hosts:
            return "this page is for 127.0.0.1 alone"
        given = connection.scope["path"].lstrip("/").partition("/")[0]
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return "the address lacks the token: open the one that rnem-world play printed"
        needed = connection.scope["type"] == "websocket"
        if (origin is None and needed) or origin not in (None, f"http://{host}"):
            return "requests of other origins are refused"
        return None


class PlayServer:
    """Serves one world.

    Attributes:
        token: The secret in the address.
        stage: The visitors, once it runs.

    Args:
        imagining: Computes the dreams.
        options: How it is played.
        token: Another secret than a random one, for tests.

    Raises:
        ConfigError: If the port is taken, or an option makes no sense.
    """

    def __init__(self, imagining: Imagining, options: PlayOptions, token: str | None = None) -> None:
        self.token = secrets.token_urlsafe(24) if token is None else token
        self._imagining = imagining
        self._options = options
        self._facts = facts_of(imagining, options.fps)
        self._next_seed = options.seed
        self._files = page_files("server.js")
        self._socket = _listen(options.port)
        self.port: int = self._socket.getsockname()[1]
        self.stage: Stage | None = None
        self._server: uvicorn.Server | None = None
        self._failure: BaseException | None = None

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{ADDRESS}:{self.port}/{self.token}/"

    def app(self) -> ASGIApp:
        """Makes the application."""
        routes = [
            Route("/{token}/", partial(self._file, "index.html")),
            Route("/{token}/{name}", self._named_file),
            WebSocketRoute("/{token}/dream", self._visit),
        ]
        return Guard(Starlette(routes=routes, lifespan=self._lifespan), self.token, self.port)

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serves until Ctrl-C or `stop`.

        Args:
            ready: Called once the page can be opened.

        Raises:
            Exception: Whatever the computation failed with.
        """
        config = uvicorn.Config(
            self.app(),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws_max_size=LARGEST_MESSAGE,
            ws_per_message_deflate=False,  # nothing leaves this machine
            timeout_graceful_shutdown=1,
        )
        self._server = _Announcing(config, ready)
        self._server.run(sockets=[self._socket])
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Lets `run` return."""
        if self._server is not None:
            self._server.should_exit = True

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.stage = Stage(self._imagining, self._new_visit, self._options.most_visitors)
        running = asyncio.create_task(self.stage.run())
        running.add_done_callback(self._stop_if_failed)
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    def _stop_if_failed(self, running: asyncio.Task[None]) -> None:
        if not running.cancelled() and running.exception() is not None:
            self._failure = running.exception()
            self.stop()

    def _new_visit(self) -> Visit:
        seed, self._next_seed = self._next_seed, self._next_seed + 1
        make_reality = partial(Reality, self._imagining.world)
        return Visit(self._imagining, make_reality, seed, self._facts["fps"])

    async def _named_file(self, request: Request) -> Response:
        return await self._file(request.path_params["name"], request)

    async def _file(self, name: str, request: Request) -> Response:
        data = self._files.get(name)  # from memory: no path leads anywhere else
        if data is None:
            return PlainTextResponse("there is no such file\n", 404)
        kind = KINDS[name[name.rindex(".") :]]
        return Response(data, media_type=f"{kind}; charset=utf-8")

    async def _visit(self, websocket: WebSocket) -> None:
        await websocket.accept()
        stage = self.stage
        visitor = None if stage is None else stage.enter()
        if stage is None or visitor is None:
            await websocket.close(
                NO_ROOM, f"{self._options.most_visitors} pages are open already: close one of them"
            )
            return
        visitor.outgoing.put_nowait(write_text("hello", **self._facts))
        sending = asyncio.create_task(_send_all(websocket, visitor))
        try:
            code, reason = await self._receive_all(websocket, stage, visitor)
            if code is not None:
                await websocket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError):
            pass  # closed while something was being sent
        finally:
            stage.leave(visitor)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    async def _receive_all(
        self, websocket: WebSocket, stage: Stage, visitor: Visitor
    ) -> tuple[int | None, str]:
        """Takes commands until the page goes or has to; then says with which code and why."""
        world = self._imagining.world
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return None, ""
            text = message.get("text")
            if text is None:
                return NO_TEXT, "commands are texts"
            if len(text.encode()) > LARGEST_MESSAGE:
                return TOO_LARGE, f"a command has at most {LARGEST_MESSAGE} bytes"
            try:
                command = read_command(text, self._imagining.slots, world.frame_shape, world.actions)
                stage.take(visitor, command)
            except json.JSONDecodeError:
                return NO_JSON, "commands are JSON"
            except RnemWorldError as error:
                return NO_COMMAND, " ".join(str(error).split()).encode()[:120].decode(errors="ignore")
            except TooManyCommandsError:
                return NO_COMMAND, "commands come faster than they can be followed"


async def _send_all(websocket: WebSocket, visitor: Visitor) -> None:
    while (message := await visitor.outgoing.get()) is not None:
        if isinstance(message, bytes):
            await websocket.send_bytes(message)
        else:
            await websocket.send_text(message)


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port {port} of {ADDRESS} can't be had ({error.strerror}): give another one with --port, or none"
        ) from error
    return listening


class _Announcing(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
