"""A page without a browser: it sends commands, and reads pictures."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from websockets.sync.client import connect


def read_picture(data: bytes, facts: dict[str, Any]) -> dict[str, Any]:
    """Reads a binary message; every lane gets its arrays."""
    (length,) = struct.unpack("<I", data[:4])
    picture = json.loads(data[4 : 4 + length])
    height, width, channels = facts["frame"]
    pixels = np.frombuffer(data, np.uint8, offset=4 + length)
    for lane in picture["lanes"]:
        sizes = {"frame": (height, width, channels)}
        if "slots" in lane:
            sizes |= {"owner": (height, width), "share": (height, width)}
        for name, shape in sizes.items():
            size = int(np.prod(shape))
            lane[name], pixels = pixels[:size].reshape(shape), pixels[size:]
    assert not pixels.size
    return {**picture, "lanes": {lane["name"]: lane for lane in picture["lanes"]}}


class Page:
    """One visitor."""

    def __init__(self, address: str) -> None:
        self.socket = connect(
            address.replace("http", "ws", 1) + "dream",
            origin=address.rsplit("/", 2)[0],
            max_size=2**24,
            compression=None,
        ).__enter__()
        self.facts = json.loads(self.socket.recv(90))
        self.refused: list[str] = []
        self.picture = self.next()

    def send(self, kind: str, **values: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **values}))

    def next(self, seconds: float = 90.0, seen: bool = True) -> dict[str, Any]:
        """Waits for the next picture."""
        while isinstance(message := self.socket.recv(seconds), str):
            self.refused.append(json.loads(message)["message"])
        self.picture = read_picture(message, self.facts)
        if seen:
            self.send("seen", picture=self.picture["picture"])
        return self.picture

    def ask(self, kind: str, **values: Any) -> dict[str, Any]:
        """Sends a command while time stands still, and waits for its picture."""
        self.send(kind, **values)
        return self.next()

    def close(self) -> None:
        self.socket.close()
