"""As much of the Hugging Face Hub as its own client needs to make a repository, commit to it, and download it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_test"


@dataclass
class Hub:
    """What the server has.

    Attributes:
        address: Where it listens.
        repositories: The files of each commit of each repository, the newest last.
        private: Which repositories are private.
        messages: What the commits said.
    """

    address: str = ""
    repositories: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)

    def files(self, repository: str) -> dict[str, bytes]:
        return self.repositories[repository][-1]


def commit_name(number: int) -> str:
    return f"{number:040x}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, values: Any, code: int = 200) -> None:
        self._send(json.dumps(values).encode(), code, {"Content-Type": "application/json"})

    def _send(self, content: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid username or password."}, 401)
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.repositories:
                return self._answer({"error": "exists", "url": f"{self.hub.address}/{name}"}, 409)
            self.hub.repositories[name] = [{".gitattributes": b""}]
            if asked.get("private") or asked.get("visibility") == "private":
                self.hub.private.add(name)
            return self._answer({"url": f"{self.hub.address}/{name}"})
        if path == "/api/validate-yaml":
            return self._answer({"warnings": [], "errors": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = json.loads(body)["files"]
            return self._answer(
                {
                    "files": [
                        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for file in files
                    ]
                }
            )
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._commit(match[1], [json.loads(line) for line in body.splitlines() if line])
        return self._answer({"error": f"no {path}"}, 404)

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        commits = self.hub.repositories[name]
        files = dict(commits[-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commits.append(files)
        oid = commit_name(len(commits) - 1)
        self._answer(
            {"commitUrl": f"{self.hub.address}/{name}/commit/{oid}", "commitOid": oid, "success": True}
        )

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        match = re.fullmatch(
            r"/(?:api/models/)?([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)(?:/(.+))?)?", path
        )
        if match is None or match[1] not in self.hub.repositories:
            return self._send(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
        name, what, revision, file = match.groups()
        commits = self.hub.repositories[name]
        number = len(commits) - 1 if revision in (None, "main") else int(revision, 16)
        files, sha = commits[number], commit_name(number)
        if what == "resolve":
            if file not in files:
                return self._send(b"", 404, {"X-Error-Code": "EntryNotFound"})
            etag = hashlib.sha1(files[file]).hexdigest()
            return self._send(files[file], 200, {"ETag": f'"{etag}"', "X-Repo-Commit": sha})
        if what == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in files.items()
            ]
            return self._answer(entries)
        siblings = [{"rfilename": path} for path in files]
        return self._answer({"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []})

    do_HEAD = do_GET


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Runs a Hub of its own on this machine, in a thread."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
