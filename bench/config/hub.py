"""Repositories of a Hugging Face Hub. With hub_answers.py the only door to huggingface_hub.

Planning takes their config.json and the headers of their weights. `download` fetches the weights, for a real GPU.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.utils import httpx, tqdm, validate_repo_id
from platformdirs import user_cache_path

from bench.config import skeleton
from bench.config.foreign_json import MOST_BYTES, BadJson, parse_object
from bench.config.formats import is_weights_file
from bench.config.hub_answers import COMMIT, NoHub, checked_size, first_bytes, model_answer, refs_answer
from bench.core.case import ModelSpec
from bench.core.errors import BadInput, first_line, nearest
from bench.core.files import replaced
from bench.tensor_files import MOST_FILES, MOST_HEADER_BYTES

_READ_BY_THE_ENGINE = ("config.json", "preprocessor_config.json")  # and all safetensors files beside them
# An address of a page, NAME:BRANCH, NAME@BRANCH (as other programs take them): the repository, and its branch.
_REPOSITORY_AS_OTHERS_WRITE_IT = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)?(?P<name>[\w.-]+/[\w.-]+)"
    r"(?:(?:[:@]|/(?:tree|blob|resolve|commit)/)(?P<branch>[^/?#:]+)[/?#]?.*)?/?"
)
_FIRST_READ_BYTES = 100_000  # most headers are shorter
_REQUESTS_AT_A_TIME = 8
_MOST_TOLD = 20  # branches in a line


class _NoBar(tqdm):
    """A progress bar that shows nothing, for requests that take no time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A repository at one commit, as a directory with the true headers of its weights and no weights."""

    commit: str
    directory: Path


@dataclasses.dataclass(frozen=True)
class _Listing:
    """The files of a commit, by name, and their sizes."""

    commit: str
    sizes_bytes: dict[str, int]


def resolve(repo: str, revision: str) -> Resolved:
    """What `repo` is at `revision`: a branch, a tag or a commit. No weights are fetched.

    Where the hub cannot be reached, what is known from before is taken, and a line on stderr says so.
    Raises `BadInput`.
    """
    with _told_in_a_line(repo, revision):
        validate_repo_id(repo)
        store = user_cache_path("vram-bench", appauthor=False) / "hub" / repo.replace("/", "--")
        if COMMIT.fullmatch(revision) and skeleton.is_complete(store / revision):
            return Resolved(revision, store / revision)  # a commit never changes
        listing = _list(repo, revision, store)
        directory = store / listing.commit
        if not skeleton.is_complete(directory):
            skeleton.write(directory, _read_beginnings(repo, listing), f"model.repo={repo}")
        _remember(store, revision, listing.commit)
        return Resolved(listing.commit, directory)


def checkpoints(repo: str, wanted: Sequence[str] = ()) -> dict[str, bool]:
    """The branches of `repo`, or those of `wanted`, and of each whether it has a config.json and weights.

    Of branches that are at one commit the last name counts, as `main` is often another name for one of them.
    Raises `BadInput`.
    """
    with _told_in_a_line(repo, "its branches"):
        validate_repo_id(repo)
        known = {branch.name: branch.commit for branch in refs_answer(repo).branches}
    if unknown := [name for name in wanted if name not in known]:
        raise BadInput(f"model.revision={unknown[0]}: not in {repo}. {nearest(unknown[0], known)}")
    names = sorted(wanted or known, key=lambda name: name != "main")
    by_commit = {known[name]: name for name in names}
    with _told_in_a_line(repo, "its branches"), ThreadPoolExecutor(_REQUESTS_AT_A_TIME) as pool:
        sizes = pool.map(lambda name: model_answer(repo, name).sizes_bytes, by_commit.values())
        return {name: _is_checkpoint(files) for name, files in zip(by_commit.values(), sizes, strict=True)}


def _is_checkpoint(files: Collection[str]) -> bool:
    """Whether there are weights of any kind, and what says how they are used."""
    beside = [name for name in files if "/" not in name]
    return "config.json" in beside and any(name.endswith(".safetensors") or is_weights_file(name) for name in beside)


def download(model: ModelSpec) -> ModelSpec:
    """`model` with its weights on this disk, in the hub's own cache; what is there is not fetched again.

    For models of `resolve`, before their first case on a real GPU (`Case.needs_download`). Raises `BadInput`, also
    where the disk has no room.
    """
    assert model.repo is not None
    assert model.revision is not None
    assert model.path is not None
    names = sorted(os.listdir(model.path))
    with _told_in_a_line(model.repo, model.revision):
        cached = [try_to_load_from_cache(model.repo, name, revision=model.revision) for name in names]
        if isinstance(cached[0], str) and all(isinstance(path, str) for path in cached):
            directory = Path(cached[0]).parent
        else:
            directory = _fetch(model.repo, model.revision, names)
    return dataclasses.replace(model, path=str(directory))


def _fetch(repo: str, commit: str, names: list[str]) -> Path:
    patterns = [glob.escape(name) for name in names]
    planned = snapshot_download(repo, revision=commit, allow_patterns=patterns, dry_run=True, tqdm_class=_NoBar)
    missing_bytes = sum(file.file_size or 0 for file in planned if file.will_download)
    cache = Path(constants.HF_HUB_CACHE)
    free_bytes = shutil.disk_usage(next(path for path in (cache, *cache.absolute().parents) if path.exists())).free
    if missing_bytes > free_bytes:
        raise BadInput(
            f"model.repo={repo}: {missing_bytes / (1 << 30):.2f} GiB are to be downloaded to {cache}, "
            f"and {free_bytes / (1 << 30):.2f} GiB are free there; make room, or set HF_HOME to a folder elsewhere"
        )
    directory = Path(snapshot_download(repo, revision=commit, allow_patterns=patterns))
    lacking = [name for name in names if not (directory / name).is_file()]
    if lacking:
        raise BadInput(f"model.repo={repo}: {lacking[0]} was not downloaded; run the same command again")
    return directory


def _list(repo: str, revision: str, store: Path) -> _Listing:
    """The files of `revision`, from the hub, or where it cannot be reached from the caches."""
    try:
        answer = model_answer(repo, revision)
        if COMMIT.fullmatch(revision) and answer.sha != revision:
            raise NoHub("another commit than was asked for")
        return _Listing(answer.sha, answer.sizes_bytes)
    except (httpx.HTTPError, OSError) as error:
        if not _is_away(error):
            raise
        known = _list_known(repo, revision, store)
        if known is None:
            raise
        print(
            f"vram-bench: {_why_away(error)}; {repo} is taken from the cache, as of {known.commit[:8]}",
            file=sys.stderr,
        )
        return known
    except NoHub as error:
        raise _no_hub(repo) from error


def _no_hub(repo: str) -> BadInput:
    return BadInput(f"model.repo={repo}: what {constants.ENDPOINT} answers is no hub's; check HF_ENDPOINT")


def _list_known(repo: str, revision: str, store: Path) -> _Listing | None:
    """The files of `revision` by the caches of this program and of huggingface_hub; None where neither has it."""
    commit = revision if COMMIT.fullmatch(revision) else _recall(store, revision)
    try:
        commit = commit or HfApi().resolve_revision(repo, revision=revision, local_files_only=True).resolved
        if skeleton.is_complete(store / commit):
            return _Listing(commit, {})
        tree = get_cached_repo_tree(repo, revision=commit)
        return _Listing(commit, dict(checked_size(file.path, file.size) for file in tree))
    except (RevisionResolutionError, CachedRepoTreeNotFoundError, ValueError):
        return None


def _remember(store: Path, revision: str, commit: str) -> None:
    """Stores the commit of `revision`, for runs without a connection."""
    if revision == commit or _recall(store, revision) == commit:
        return
    path = store / "refs" / quote(revision, safe="")
    path.parent.mkdir(exist_ok=True)
    with replaced(path) as partial:
        partial.write_text(commit)


def _recall(store: Path, revision: str) -> str | None:
    path = store / "refs" / quote(revision, safe="")
    commit = path.read_text() if path.is_file() else ""
    return commit if COMMIT.fullmatch(commit) else None


def _read_beginnings(repo: str, listing: _Listing) -> dict[str, skeleton.Beginning]:
    """What a skeleton needs of each file that the engine would read."""
    names = [name for name in listing.sizes_bytes if name in _READ_BY_THE_ENGINE]
    if "config.json" not in names:
        raise BadInput(f"model.repo={repo}: no config.json at {listing.commit[:8]}; {_elsewhere(repo, listing.commit)}")
    beside = [name for name in listing.sizes_bytes if "/" not in name]
    weights = [name for name in beside if name.endswith(".safetensors")]
    if len(weights) > MOST_FILES:
        raise BadInput(f"model.repo={repo}: {len(weights):,} files of weights; at most {MOST_FILES:,} are read")
    names += weights or [name for name in beside if is_weights_file(name)]  # of those the name is enough

    def read(name: str) -> skeleton.Beginning:
        size_bytes = listing.sizes_bytes[name]
        if is_weights_file(name):
            return skeleton.Beginning(b"", size_bytes)
        if name in _READ_BY_THE_ENGINE:
            if size_bytes > MOST_BYTES:
                raise BadInput(f"model.repo={repo}: {name} has {size_bytes:,} bytes; at most {MOST_BYTES:,} are read")
            return skeleton.Beginning(_read(repo, listing.commit, name, size_bytes), size_bytes)
        header = _read(repo, listing.commit, name, min(size_bytes, _FIRST_READ_BYTES))
        header_bytes = 8 + int.from_bytes(header[:8], "little")
        if len(header) < header_bytes <= min(size_bytes, MOST_HEADER_BYTES):
            header = _read(repo, listing.commit, name, header_bytes)
        return skeleton.Beginning(header[:header_bytes], size_bytes)

    with ThreadPoolExecutor(_REQUESTS_AT_A_TIME) as pool:
        beginnings = dict(zip(names, pool.map(read, names), strict=True))
    try:
        parse_object(beginnings["config.json"].data)
    except BadJson as error:
        raise BadInput(f"model.repo={repo}: its config.json is {error}; give a model's own repository") from None
    return beginnings


def _elsewhere(repo: str, commit: str) -> str:
    """Where a model may be that is not at `commit`: EXL2 repositories have a branch for each bpw."""
    try:
        refs = refs_answer(repo).branches
    except (HfHubHTTPError, httpx.HTTPError, OSError, NoHub):
        refs = []  # the branches are only a hint in an error message: go without them
    others = sorted(ref.name for ref in refs if ref.commit != commit)
    return (
        f"name a branch, model.revision={'|'.join(others[:_MOST_TOLD])}" if others else "give a model's own repository"
    )


def _read(repo: str, commit: str, name: str, count: int) -> bytes:
    """The first `count` bytes of a file, from the hub's own cache or by one request."""
    cached = try_to_load_from_cache(repo, name, revision=commit)
    if isinstance(cached, str):
        with open(cached, "rb") as file:
            return file.read(count)
    if count == 0:
        return b""
    data = first_bytes(hf_hub_url(repo, name, revision=commit), count)
    if len(data) < count:
        raise BadInput(f"model.repo={repo}: {constants.ENDPOINT} sent {name} only in part; run the same command again")
    return data


@contextmanager
def _told_in_a_line(repo: str, revision: str) -> Iterator[None]:
    """Turns what the library raises into `BadInput`."""
    try:
        yield
    except NoHub as error:
        raise _no_hub(repo) from error
    except (HFValidationError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise BadInput(_explain(error, repo, revision)) from error


def _is_name(repo: str) -> bool:
    try:
        validate_repo_id(repo)
    except HFValidationError:
        return False
    return True


def _as_keys(typed: str) -> str:
    """How to write a repository that was typed as a page's address, `NAME:BRANCH` or `NAME@BRANCH`."""
    found = _REPOSITORY_AS_OTHERS_WRITE_IT.fullmatch(typed)
    if found is None or not _is_name(found["name"]):
        return "ORG/NAME"
    revision = f" and model.revision={found['branch']}" if found["branch"] else ""
    return f"model.repo={found['name']}{revision}"


def _explain(error: Exception, repo: str, revision: str) -> str:
    given, endpoint = f"model.repo={repo}", constants.ENDPOINT
    if isinstance(error, HFValidationError):
        return f"{given}: not the name of a repository; write it as {_as_keys(repo)}"
    if isinstance(error, GatedRepoError):
        return f"{given}: gated; accept its licence at {endpoint}/{repo}, and set HF_TOKEN to a token of yours"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{given}: {endpoint} has no such repository, or a private one; "
            "check the name, or set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"model.revision={revision}: not in {repo}. {nearest(revision, _branches(repo))}"
    if _is_away(error):
        remedy = "unset it once" if constants.is_offline_mode() else "check the connection, or HF_ENDPOINT"
        return f"{given}: {_why_away(error)}, and not all of {revision} is in the cache; {remedy}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            remedy = "set HF_TOKEN to a token that may read it, and accept its licence there if it has one"
        else:
            remedy = "try again later"
        return f"{given}: {endpoint} refuses it ({status}); {remedy}"
    return f"{given}: cannot be stored ({first_line(error)}); XDG_CACHE_HOME and HF_HOME say where"


def _branches(repo: str) -> list[str]:
    with _told_in_a_line(repo, ""):
        return [branch.name for branch in refs_answer(repo).branches]


def _is_away(error: Exception) -> bool:
    """Whether the hub did not answer, or only that something is wrong with it."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(
        error, httpx.HTTPError | httpx.InvalidURL | OfflineModeIsEnabled | LocalEntryNotFoundError | DryRunError
    )


def _why_away(error: Exception) -> str:
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    reason = error.response.status_code if isinstance(error, HfHubHTTPError) else first_line(error.__cause__ or error)
    return f"{constants.ENDPOINT} cannot be reached ({reason})"
