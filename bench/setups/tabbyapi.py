"""TabbyAPI's config.yml as keys, of versions with either engine, by what each makes of it (`Frontend`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

from bench.core.case import MAX_SEQ_LEN, PAGE
from bench.core.errors import BadInput
from bench.core.printable import printable
from bench.setups.foreign_yaml import BadYaml, read_mapping
from bench.setups.setup import Setup, is_typed
from bench.setups.split_keys import tell_split
from bench.setups.surroundings import Surroundings, frontends, in_pages, model_of, surroundings
from bench.setups.tabby_draft import tell_draft
from bench.setups.tabby_keys import TabbyKeys, tabby_keys

OPTION = "tabby"
_MIB = 1 << 20
_KEY_OF = {"max_seq_len": "max_seq_len", "cache_size": "cache_size", "cache": "cache_mode"}


def read_tabby(path: Path, typed: Sequence[str]) -> Setup:
    """What the file `path` says, beside the overrides that were `typed`. Raises `BadInput`."""
    try:
        keys = tabby_keys(read_mapping(path), str(path))
    except BadYaml as error:
        raise BadInput(f"{path}: {error}") from None
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; give the config.yml that TabbyAPI starts with") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from None
    folder = path.parent / keys.get("model_dir") if keys.get("model_dir") else path.parent / "models"
    name = keys.get("model_name")
    model = model_of(str(path), "model.model_name", folder / name if name else None, typed)
    around = surroundings(str(path), model, _engine_name(keys, str(path)), typed)
    frontend = around.engine.frontends.get(OPTION)
    if frontend is None:
        raise BadInput(f"{path}: TabbyAPI has no {around.engine.title}; engines are {', '.join(frontends(OPTION))}")
    setup = Setup(str(path), around.engine, frontend, typed, _KEY_OF, unknown=keys.unknown, no_memory=keys.no_memory)
    if model:
        setup.take(f"model.model_name: {printable(name)}", *model)
    elif name:
        setup.leave(f"model.model_name: {printable(name)}", "the model was typed beside it")
    _tell_engine(setup, keys)
    setup.take("(it serves by the engine's generator)", "scenario=generator")
    _tell_lengths(setup, keys, around)
    _tell_cache(setup, keys)
    has_draft = tell_draft(setup, keys, path.parent)
    way = frontend.load_with_draft if has_draft else frontend.load
    if around.cards == 1 or not frontend.unlike:
        setup.take("(it loads in its own way)", f"load={way}")
    if frontend.unlike:
        setup.leave("(how it loads)", frontend.unlike)
    if has_draft and way != frontend.load:
        setup.leave(
            "(how it loads)",
            "the draft model by autosplit, then it tries a chunk with it: here both are loaded as a whole",
        )
    tell_split(
        setup,
        around.cards,
        is_tensor_parallel=bool(keys.get("tensor_parallel")),
        gpu_split=keys.get("gpu_split"),
        reserve=_reserve(keys, around.cards),
        is_auto=keys.get("gpu_split_auto") is not False,
    )
    _tell_rest(setup, keys)
    return setup


def _engine_name(keys: TabbyKeys, source: str) -> str | None:
    """The engine that a file names, or that alone has what it says; None where it goes by the weights."""
    known = frontends(OPTION)
    said = keys.get("backend")
    if said is not None and str(said).lower() not in known:
        raise BadInput(f"{source}: model.backend={printable(said)}: allowed are {', '.join(known)}")
    if said is not None:
        return known[str(said).lower()][0].name
    mode = keys.get("cache_mode")
    having = [engine.name for engine, frontend in known.values() if mode and frontend.cache_of(mode) is not None]
    return having[0] if len(having) == 1 else None


def _tell_engine(setup: Setup, keys: TabbyKeys) -> None:
    said = keys.get("backend")
    told = f"model.backend: {said}" if said else "(no model.backend: by the weights, or by cache_mode)"
    setup.take(told, f"engine={setup.engine.name}")


def _tell_lengths(setup: Setup, keys: TabbyKeys, around: Surroundings) -> None:
    """As TabbyAPI does it: no context longer than the cache, and a cache as long as the context where none is given."""
    asked, size = keys.get("max_seq_len"), keys.get("cache_size")
    own, usual = around.native_tokens, setup.frontend.default_tokens
    tokens = own if asked == -1 else asked or None
    said = f"model.max_seq_len: {asked}" if asked is not None else "(no model.max_seq_len)"
    if tokens is None:
        tokens = own if usual is None else min(own or MAX_SEQ_LEN, size or usual)
    if tokens is None:
        raise BadInput(
            f"{setup.source}: model.max_seq_len is not there, and config.json names no length; give max_seq_len=N"
        )
    cache = in_pages(size or (tokens if asked else None) or usual or tokens)
    if tokens > cache:
        setup.leave(said, f"no context is longer than the cache: {cache} tokens")
        tokens = cache
    if setup.frontend.whole_pages and tokens % PAGE:
        tokens = in_pages(tokens)
    setup.take(said, f"max_seq_len={tokens}")
    told = f"model.cache_size: {size}" if size is not None else "(no model.cache_size)"
    if cache == tokens and not is_typed("batch_size", setup.typed):
        setup.read[told] = []  # as long as the one job: what is so without the key
    else:
        setup.take(told, f"cache_size={cache}")
    if (chunk := keys.get("chunk_size")) is not None:
        setup.take(f"model.chunk_size: {chunk}", f"max_input_len={in_pages(chunk)}")
    if (jobs := keys.get("max_batch_size")) is not None:
        setup.take(f"model.max_batch_size: {jobs}", f"max_batch_size={jobs}")
    elif setup.frontend.default_jobs:
        setup.leave("(no model.max_batch_size)", f"its default is {setup.frontend.default_jobs}")


def _tell_cache(setup: Setup, keys: TabbyKeys) -> None:
    said = keys.get("cache_mode")
    if said is None:
        return
    told = f"model.cache_mode: {printable(str(said))}"
    setup.take(told, f"cache={setup.cache_of(told, said)}")


def _reserve(keys: TabbyKeys, cards: int) -> list[int] | None:
    """Bytes of each card. It is in MiB, as the program counts."""
    said = keys.get("autosplit_reserve")
    if said is None:
        return None
    sizes = [ceil(size * _MIB) for size in said][:cards]
    return [*sizes, *[0] * (cards - len(sizes))]


def _tell_rest(setup: Setup, keys: TabbyKeys) -> None:
    """What takes memory, or saves it, and is not done here."""
    if keys.get("vision"):
        setup.take("model.vision: true", "vision=true")
    if layers := keys.get("cpu_moe_offload_layers"):
        setup.leave(f"model.cpu_moe_offload_layers: {layers}", "here all experts are on the card: it takes less")
    if experts := keys.get("num_experts_per_token"):
        setup.leave(f"model.num_experts_per_token: {experts}", "here it is the model's own number of experts")
    if keys.get("tensor_parallel_backend") not in (None, "native"):
        setup.leave(f"model.tensor_parallel_backend: {keys.get('tensor_parallel_backend')}", "its buffers come on top")
    if keys.get("loras", "lora"):
        setup.leave("lora.loras", "LoRAs are not loaded here: they come on top")
    if (name := keys.get("embedding_model_name", "embeddings")) is not None:
        where = keys.get("embeddings_device", "embeddings") or "cpu"
        if where == "cpu":
            setup.no_memory.append("embeddings.embedding_model_name")
        else:
            setup.leave(f"embeddings.embedding_model_name: {printable(name)}", f"on {where}: it comes on top")
    is_async = keys.get("cuda_malloc_async", "memory")
    if is_async is not False:
        setup.leave(
            "memory.cuda_malloc_async: true" if is_async else "(no memory.cuda_malloc_async: true)",
            "here it is PyTorch's own allocator, as with false: what CUDA's keeps is not known",
        )
