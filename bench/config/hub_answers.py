"""What a hub sends, bounded and checked: nothing of it is a path, a number or a list before it has been through here.

A hub is whoever answers at HF_ENDPOINT. An answer has a limit of bytes, and of time for the whole of it: the limits of
an HTTP client are for each read, and a server that sends a byte now and then keeps to them for days.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Annotated, TypeVar
from urllib.parse import quote

from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

COMMIT = re.compile(r"[0-9a-f]{40}")
WHOLE_ANSWER_S = 60.0
_LEAST_BYTES_PER_S = 250_000  # of a header, which may be long
_MOST_ANSWER_BYTES = 32 << 20  # 100,000 files are some 20 MB
_MOST_FILES, _MOST_BRANCHES = 100_000, 10_000
_MOST_FILE_BYTES = 1 << 42
_MOST_REDIRECTS = 5
# Of an answer that is an error, what the library tells it by.
_ABOUT_ERRORS = ("X-Error-Code", "X-Error-Message")

_Answer = TypeVar("_Answer", bound=BaseModel)
_Sent = TypeVar("_Sent")


class NoHub(Exception):
    """What was answered is no hub's."""


def _file_name(name: str) -> str:
    """A path as git may have it: relative, and within its folder."""
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("no name of a file in a repository")
    return name


_Sha = Annotated[str, StringConstraints(pattern=f"^{COMMIT.pattern}$", strict=True)]
_FileName = Annotated[str, StringConstraints(max_length=4096, strict=True), AfterValidator(_file_name)]
_Bytes = Annotated[int, Field(strict=True, ge=0, le=_MOST_FILE_BYTES)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Large(_Part):
    size: _Bytes


class _File(_Part):
    rfilename: _FileName
    size: _Bytes | None = None
    lfs: _Large | None = None


class ModelAnswer(_Part):
    """A commit of a repository, with its files."""

    sha: _Sha
    siblings: Annotated[list[_File], Field(max_length=_MOST_FILES)]

    @property
    def sizes_bytes(self) -> dict[str, int]:
        """The size of each file, by name. Raises `NoHub` where one is not told."""
        sizes = {file.rfilename: file.lfs.size if file.lfs else file.size for file in self.siblings}
        told = {name: size for name, size in sizes.items() if size is not None}
        if len(told) < len(sizes):
            raise NoHub("files without sizes")
        return told


class _Branch(_Part):
    name: _FileName
    commit: Annotated[_Sha, Field(alias="targetCommit")]


class RefsAnswer(_Part):
    """The branches of a repository."""

    branches: Annotated[list[_Branch], Field(max_length=_MOST_BRANCHES)]


class TreeEntry(_Part):
    """A file of a commit, as huggingface_hub keeps it in its cache."""

    path: _FileName
    size: _Bytes


def model_answer(repo: str, revision: str) -> ModelAnswer:
    """The commit that `revision` is, and its files. Raises `NoHub`, and what huggingface_hub and httpx raise."""
    return _ask(ModelAnswer, f"{repo}/revision/{quote(revision, safe='')}", {"blobs": "true"})


def refs_answer(repo: str) -> RefsAnswer:
    """The branches of `repo`. Raises as `model_answer` does."""
    return _ask(RefsAnswer, f"{repo}/refs", {})


def checked_size(name: object, size: object) -> tuple[str, int]:
    """A file's name and size out of a cache on this disk. Raises `ValueError`."""
    entry = TreeEntry.model_validate({"path": name, "size": size})
    return entry.path, entry.size


def first_bytes(url: str, count: int) -> bytes:
    """The first `count` bytes of a file, or fewer where it ends. Raises as `model_answer` does."""
    headers = {"Range": f"bytes=0-{count - 1}"}
    # A server that knows no ranges would send all of the weights: no more is taken than was asked for.
    return _within(WHOLE_ANSWER_S + count / _LEAST_BYTES_PER_S, lambda: _received(url, {}, headers, count)[:count])


def _ask(kind: type[_Answer], path: str, parameters: Mapping[str, str]) -> _Answer:
    url = f"{constants.ENDPOINT}/api/models/{path}"
    data = _within(WHOLE_ANSWER_S, lambda: _received(url, parameters, {}, _MOST_ANSWER_BYTES + 1))
    if len(data) > _MOST_ANSWER_BYTES:
        raise NoHub(f"an answer of more than {_MOST_ANSWER_BYTES >> 20} MiB")
    return checked(kind, data)


def checked(kind: type[_Answer], data: bytes) -> _Answer:
    """The answer that `data` is. Raises `NoHub`."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise NoHub(f"{error.error_count()} of its values are none") from error


def _received(url: str, parameters: Mapping[str, str], headers: Mapping[str, str], most: int) -> bytes:
    """The first bytes of what is at `url`, as they were sent: at least `most`, where there are as many."""
    client = get_session()
    request = client.build_request(
        "GET",
        url,
        params=dict(parameters) or None,
        headers={**build_hf_headers(), **headers, "Accept-Encoding": "identity"},
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    )
    for _ in range(_MOST_REDIRECTS):
        response = client.send(request, stream=True, follow_redirects=False)
        try:
            if response.next_request is None:
                _raise_for_status(response)
                data = bytearray()
                for chunk in response.iter_raw():
                    data += chunk
                    if len(data) >= most:
                        break
                return bytes(data)
            request = response.next_request  # without the token, where it is another host's
        finally:
            response.close()
    raise NoHub("one redirect after the other")


def _raise_for_status(response: httpx.Response) -> None:
    """As the library does, by the status and the headers alone: the body of an error may be anything, of any length."""
    if not response.is_success:
        kept = {name: response.headers[name] for name in _ABOUT_ERRORS if name in response.headers}
        hf_raise_for_status(httpx.Response(response.status_code, headers=kept, request=response.request))
        raise NoHub(f"status {response.status_code}")


def _within(limit_s: float, work: Callable[[], _Sent]) -> _Sent:
    """What `work` returns; `httpx.ReadTimeout` where that takes longer. It is left behind then, and ends with us."""
    answer: Future[_Sent] = Future()

    def wait() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    try:
        return answer.result(limit_s)
    except TimeoutError:
        if answer.done():
            raise
        raise httpx.ReadTimeout(f"no whole answer within {limit_s:.3g} s") from None
