"""A hub on this machine: as much of its protocol as `huggingface_hub` speaks to read and commit files."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

Files = dict[str, bytes]
TOKEN = "hf_local"


class Hub:
    """Repositories by `space:me/x`, each a list of states of which the last is the head; and what was asked of it."""

    def __init__(self) -> None:
        self.repos: dict[str, list[Files]] = {}
        self.asked: list[str] = []
        self.url = ""
        self.meddle: dict[str, Files] = {}
        """What somebody else commits to a repository right before the next commit arrives."""

    def files(self, name: str) -> Files:
        """The newest files of a repository."""
        return self.repos[name][-1]

    def sha(self, name: str, at: int = -1) -> str:
        """Name of a state, 40 hex digits as of git."""
        states = self.repos[name]
        at = range(len(states))[at]
        body = json.dumps([at, {key: hashlib.sha1(text).hexdigest() for key, text in sorted(states[at].items())}])
        return hashlib.sha1(f"{name}{body}".encode()).hexdigest()


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    held = Hub()

    class Handler(_Handler):
        state = held

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self._file()

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        if match := re.fullmatch(r"/api/(space|dataset|model)s/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            return self._info(f"{match[1]}:{match[2]}")
        return self._file()

    def do_POST(self) -> None:
        path = urlparse(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.state.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "no token"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/api/(space|dataset|model)s/([^/]+/[^/]+)/(preupload|commit)/([^/]+)", path):
            name = f"{match[1]}:{match[2]}"
            if name not in self.state.repos:
                return self._missing()
            return self._preupload(body) if match[3] == "preupload" else self._commit(name, body)
        return self._answer(200, {}) if path == "/api/validate-yaml" else self._answer(404, {"error": path})

    # what it does -----------------------------------------------------------------------------------------------------

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('type', 'model')}:{asked['organization']}/{asked['name']}"
        if name in self.state.repos:
            return self._answer(409, {"error": "exists"})
        fresh = {".gitattributes": b"", "README.md": b"---\nsdk: static\n---\n"}
        if asked.get("type") == "space":
            assert asked["sdk"] == "static"
            fresh |= {"index.html": b"<h1>Welcome</h1>", "style.css": b""}  # as the real one does
        self.state.repos[name] = [fresh]
        return self._answer(200, {"url": f"{self.state.url}/spaces/{asked['organization']}/{asked['name']}"})

    def _info(self, name: str) -> None:
        self.state.asked.append(f"GET {name}")
        if name not in self.state.repos:
            return self._missing()
        files = [{"rfilename": file} for file in self.state.files(name)]
        return self._answer(
            200, {"id": name.partition(":")[2], "sha": self.state.sha(name), "siblings": files, "tags": []}
        )

    def _preupload(self, body: bytes) -> None:
        files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                 for one in json.loads(body)["files"]]  # fmt: skip
        return self._answer(200, {"files": files})

    def _commit(self, name: str, body: bytes) -> None:
        states = self.state.repos[name]
        if name in self.state.meddle:
            states.append({**states[-1], **self.state.meddle.pop(name)})
        new = dict(states[-1])
        for line in filter(None, body.decode().split("\n")):
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                if value.get("parentCommit") not in (None, self.state.sha(name)):
                    return self._answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            elif item["key"] == "file":
                new[value["path"]] = base64.b64decode(value["content"])
            else:
                return self._answer(400, {"error": f"no {item['key']} here"})
        states.append(new)
        sha = self.state.sha(name)
        kind, _, repo = name.partition(":")
        place = repo if kind == "model" else f"{kind}s/{repo}"
        return self._answer(
            200, {"commitUrl": f"{self.state.url}/{place}/commit/{sha}", "commitOid": sha, "hookOutput": ""}
        )

    def _file(self) -> None:
        path = unquote(urlparse(self.path).path)
        match = re.fullmatch(r"/(?:(space|dataset)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = f"{match[1] or 'model'}:{match[2]}" if match else ""
        if match is None or name not in self.state.repos:
            return self._missing()
        states = self.state.repos[name]
        at = next((at for at in range(len(states)) if self.state.sha(name, at) == match[3]), len(states) - 1)
        body = states[at].get(match[4])
        if body is None:
            return self._answer(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha1(body).hexdigest()
        heads = {"ETag": f'"{etag}"', "X-Repo-Commit": self.state.sha(name, at), "Accept-Ranges": "bytes"}
        return self._answer(200, body, heads)

    # how it answers ---------------------------------------------------------------------------------------------------

    def _missing(self) -> None:
        self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def _answer(self, code: int, body: dict[str, Any] | bytes, heads: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for key, value in {"Content-Type": kind, "Content-Length": str(len(raw)), **(heads or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)
