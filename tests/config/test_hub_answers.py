"""A hub is whoever answers: what it sends is checked before it's a path, a number or a list."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.config import hub_answers, models
from tests.conftest import Program

SHA = "0123456789abcdef0123456789abcdef01234567"
REPO = "org/name"


class _Server(ThreadingHTTPServer):
    answer: bytes = b"{}"
    drip_s: float = 0.0  # between two bytes of the answer
    status: int = 200


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.send_header("X-HF-Warning", "topic; \x1b[31mred")
        self.end_headers()
        try:
            if not self.server.drip_s:
                self.wfile.write(self.server.answer)
                return
            for _ in range(100):
                time.sleep(self.server.drip_s)
                self.wfile.write(b" ")
        except OSError:
            pass

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    served = _Server(("127.0.0.1", 0), _Handler)
    Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{served.server_address[1]}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    models.forget()
    yield served
    served.shutdown()
    served.server_close()


def _listing(**changes: Any) -> dict[str, Any]:
    return {"id": REPO, "sha": SHA, "siblings": [{"rfilename": "config.json", "size": 2}], **changes}


def _files(name: Any, size: Any = 2) -> list[Any]:
    return [{"rfilename": name, "size": size}]


@pytest.mark.parametrize(
    "answer",
    [
        _listing(sha="../../../elsewhere"),
        _listing(sha="/tmp/elsewhere"),
        _listing(sha=SHA.upper()),
        _listing(sha=SHA + "\n"),
        _listing(sha=7),
        _listing(sha=None),
        _listing(siblings=_files("../config.json")),
        _listing(siblings=_files("/config.json")),
        _listing(siblings=_files("a/../config.json")),
        _listing(siblings=_files("a\\config.json")),
        _listing(siblings=_files("\x1b[31mconfig.json")),
        _listing(siblings=_files("config.json\n")),
        _listing(siblings=_files("config.json\ud800")),
        _listing(siblings=_files("x" * 5000)),
        _listing(siblings=_files(7)),
        _listing(siblings=_files("config.json", -1)),
        _listing(siblings=_files("config.json", 1 << 50)),
        _listing(siblings=_files("config.json", "2")),
        _listing(siblings=_files("config.json", True)),
        _listing(siblings=_files("config.json", 2.5)),
        _listing(siblings=_files("config.json", None)),
        _listing(siblings=[{**_files("config.json")[0], "lfs": 7}]),
        _listing(siblings=7),
        _listing(siblings=[7]),
        _listing(siblings={"config.json": 2}),
        _listing(siblings=None),
        [1],
        7,
    ],
    ids=lambda answer: json.dumps(answer)[:60],
)
def test_what_no_hub_answers_is_refused_and_nothing_is_written(
    server: _Server, in_process: Program, tmp_path: Path, answer: Any
) -> None:
    server.answer = json.dumps(answer).encode()
    before = sorted(tmp_path.rglob("*"))
    planned = in_process("plan", "model=hub", f"model.repo={REPO}", "device=rtx_4090")
    assert (planned.returncode, planned.stdout) == (2, "")
    assert planned.stderr.startswith(f"vram-bench: model.repo={REPO}: what http://127.0.0.1:")
    assert planned.stderr.endswith(" answers is no hub's; check HF_ENDPOINT\n")
    assert planned.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"[" * 100_000),
        (200, b"\xff"),
        (204, b""),
        (304, b""),
        (403, b"[]"),
        (404, b'{"error": [{}, 7]}'),
        (418, b'"text"'),
        (500, b"[" * 100_000),
    ],
)
def test_the_body_of_an_answer_may_be_anything(server: _Server, in_process: Program, status: int, body: bytes) -> None:
    server.answer, server.status = body, status
    planned = in_process("plan", "model=hub", f"model.repo={REPO}", "device=rtx_4090")
    assert (planned.returncode, planned.stdout) == (2, "")
    assert planned.stderr.startswith(f"vram-bench: model.repo={REPO}: ")
    assert (planned.stderr.count("\n"), "\x1b" in planned.stderr) == (1, False)


def test_a_whole_answer_has_a_limit_of_time(
    server: _Server, in_process: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_answers, "WHOLE_ANSWER_S", 0.3)
    server.drip_s = 0.05
    began = time.monotonic()
    planned = in_process("plan", "model=hub", f"model.repo={REPO}", "device=rtx_4090")
    assert time.monotonic() - began < 4
    assert planned.returncode == 2
    assert "cannot be reached (no whole answer within 0.3 s)" in planned.stderr


def test_a_whole_answer_has_a_limit_of_bytes(
    server: _Server, in_process: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_answers, "_MOST_ANSWER_BYTES", 1000)
    server.answer = json.dumps(_listing(tags=["x" * 1000])).encode()
    planned = in_process("plan", "model=hub", f"model.repo={REPO}", "device=rtx_4090")
    assert planned.returncode == 2
    assert "is no hub's" in planned.stderr


def test_another_commit_than_was_asked_for_is_refused(server: _Server, in_process: Program) -> None:
    server.answer = json.dumps(_listing()).encode()
    other = SHA[::-1]
    planned = in_process("plan", "model=hub", f"model.repo={REPO}", f"model.revision={other}", "device=rtx_4090")
    assert planned.returncode == 2
    assert "is no hub's" in planned.stderr


_names = st.one_of(st.text(max_size=12), st.sampled_from(["config.json", "a/b.safetensors", "..", "", "/", "."]))
_anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _names),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["sha", "siblings", "rfilename", "size", "lfs"]), inner, max_size=5),
    ),
    max_leaves=12,
)
_answers = st.one_of(
    _anything,
    st.fixed_dictionaries(
        {
            "sha": st.one_of(st.just(SHA), _anything),
            "siblings": st.lists(
                st.fixed_dictionaries({"rfilename": _names, "size": st.one_of(st.integers(), _anything)}), max_size=3
            ),
        }
    ),
)


@given(_answers)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_an_answer_is_checked_or_refused(answer: Any) -> None:
    data = json.dumps(answer).encode()
    try:
        checked = hub_answers.checked(hub_answers.ModelAnswer, data)
        sizes = checked.sizes_bytes
    except hub_answers.NoHub:
        return
    assert checked.sha == SHA
    for name, size in sizes.items():
        assert (Path("/folder") / name).resolve().is_relative_to("/folder/")
        assert name.isprintable()
        assert 0 <= size <= 1 << 42
