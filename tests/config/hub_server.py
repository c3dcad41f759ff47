"""A hub on this machine: the endpoints that huggingface_hub asks, over repositories in memory or on disk."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_a_token_that_may_read"
_CHUNK_BYTES = 1 << 20


@dataclass
class Repository:
    """Commits, each with its files, and the branches that point to them; `guard` is how it is kept from strangers."""

    commits: dict[str, dict[str, bytes | Path]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    guard: str | None = None  # "private", "gated" (both open to `TOKEN`), "forbidden" (to nobody)

    def commit(self, branch: str, files: dict[str, bytes | Path]) -> str:
        """Makes `files` the newest commit of `branch`; returns the commit."""
        sha = hashlib.sha1(f"{branch}{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha


class Hub:
    """The server and what it serves. `trouble` makes it fail, the counters say what it was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.trouble: str | None = None  # "down" (503), "silent" (never answers), "portal" (HTML), "short" (cuts off)
        self.sizes_told: dict[str, int] = {}  # of files whose listing lies
        self.ignores_ranges = False
        self.requests: Counter[str] = Counter()
        self.sent_bytes = 0
        self.tokens_at_the_cdn = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def close(self) -> None:
        """From now on connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    hub: Hub


class _Refusal(Exception):
    def __init__(self, status: int, code: str | None = None) -> None:
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # one request a connection: a closed hub leaves nothing open
    server: _Server

    def do_GET(self) -> None:
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        hub.requests[f"{self.command} {path}"] += 1
        if hub.trouble == "silent":
            time.sleep(3)
            return
        try:
            if hub.trouble == "down":
                raise _Refusal(503)
            if hub.trouble == "portal":
                self._send(200, b"<html>Welcome to the hotel's network</html>", {"Content-Type": "text/html"})
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree|refs)/?(.*)", path):
                self._answer_api(*match.groups())
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path):
                self._resolve(*match.groups())
            elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
                hub.tokens_at_the_cdn += "authorization" in self.headers
                self._send_file(self.server.hub.repositories[match[1]].commits[match[2]][match[3]], {})
            else:
                raise _Refusal(404)
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            self._send(refusal.status, b"", headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None: ...

    def _repository(self, name: str) -> Repository:
        repository = self.server.hub.repositories.get(name)
        known = self.headers.get("authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.guard == "private" and not known):
            raise _Refusal(404 if known else 401, "RepoNotFound")
        if repository.guard == "gated" and not known:
            raise _Refusal(401, "GatedRepo")
        if repository.guard == "forbidden":
            raise _Refusal(403)
        return repository

    def _answer_api(self, name: str, kind: str, revision: str) -> None:
        repository = self._repository(name)
        if kind == "refs":
            branches = [
                {"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repository.branches.items()
            ]
            self._send_json({"branches": branches, "converts": [], "tags": []})
            return
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            raise _Refusal(404, "RevisionNotFound")
        files = repository.commits[sha]
        sizes = {path: self.server.hub.sizes_told.get(path, _size(content)) for path, content in files.items()}
        if kind == "tree":
            self._send_json([{"type": "file", "oid": "0" * 40, "size": n, "path": p} for p, n in sizes.items()])
            return
        siblings: list[dict[str, Any]] = [{"rfilename": p, "size": n, "blobId": "0" * 40} for p, n in sizes.items()]
        for sibling in siblings:
            if sibling["rfilename"].endswith(".safetensors"):
                sibling["lfs"] = {"sha256": "0" * 64, "size": sibling["size"], "pointerSize": 130}
        self._send_json({"_id": "1", "id": name, "sha": sha, "private": False, "siblings": siblings, "tags": []})

    def _resolve(self, name: str, sha: str, path: str) -> None:
        """Sends small files itself; the weights lie elsewhere, as the hub's do."""
        content = self._repository(name).commits.get(sha, {}).get(path)
        if content is None:
            raise _Refusal(404, "EntryNotFound")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_etag(path, content)}"'}
        if not path.endswith(".safetensors"):
            self._send_file(content, headers)
            return
        elsewhere = f"{self.server.hub.url.replace('127.0.0.1', 'localhost')}/cdn/{name}/{sha}/{path}"
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(_size(content)), "Location": elsewhere}
        self._send(302, b"", headers)

    def _send_file(self, content: bytes | Path, headers: dict[str, str]) -> None:
        hub = self.server.hub
        size = _size(content)
        headers = {**headers, "Accept-Ranges": "bytes"}
        start, stop, status = 0, size, 200
        if (match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))) and not hub.ignores_ranges:
            start, status = int(match[1]), 206
            stop = min(size, int(match[2]) + 1) if match[2] else size
            if start >= size:
                raise _Refusal(416)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._start(status, stop - start, headers)
        if self.command == "GET":
            self._send_body(content, start, start + (stop - start) // 2 if hub.trouble == "short" else stop)

    def _send_body(self, content: bytes | Path, start: int, stop: int) -> None:
        count = 0
        try:
            for begin in range(start, stop, _CHUNK_BYTES):
                count = min(_CHUNK_BYTES, stop - begin)
                self.server.hub.sent_bytes += count  # before the reader has it, and may ask
                if isinstance(content, Path):
                    with content.open("rb") as file:
                        file.seek(begin)
                        self.wfile.write(file.read(count))
                else:
                    self.wfile.write(content[begin : begin + count])
        except (BrokenPipeError, ConnectionResetError):  # the reader has had enough
            self.server.hub.sent_bytes -= count

    def _send_json(self, document: Any) -> None:
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._start(status, len(body), headers)
        if self.command == "GET":
            self.wfile.write(body)

    def _start(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(key, value)
        self.end_headers()


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _etag(path: str, content: bytes | Path) -> str:
    return hashlib.sha1(f"{path} {content!r}".encode()).hexdigest()
