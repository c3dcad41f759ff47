"""The axis `engine`: what each engine has of its own, and what is refused with its name."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.core.errors import BadInput
from bench.engines.base import Chosen
from bench.engines.exllamav3.architectures import ARCHITECTURES
from bench.engines.exllamav3.notes import notes
from bench.engines.reading import Reading
from bench.engines.registry import NAMES, engine_of, rules_of

ON = ["model=llama_3_1_8b", "device=rtx_3090", "max_seq_len=4096"]
THIRD = "engine=exllamav3"


def _case(*overrides: str) -> Case:
    (case,) = plan_sweep([*ON, *overrides]).cases
    return case


def _refusal(*overrides: str) -> str:
    with pytest.raises(BadInput) as refused:
        plan_sweep([*ON, *overrides])
    return str(refused.value)


def test_the_engine_is_an_axis_and_ids_of_the_first_one_are_what_they_were() -> None:
    both = plan_sweep([*ON, "engine=exllamav2,exllamav3"]).cases
    assert [case.engine for case in both] == list(NAMES)
    assert _case() == _case("engine=auto") == both[0]
    versions = {"exllamav2_version": "1", "exllamav3_version": "2", "torch_version": "3"}
    assert both[0].case_id(versions) == both[0].case_id({**versions, "exllamav3_version": "9"})
    assert both[1].case_id(versions) != both[1].case_id({**versions, "exllamav3_version": "9"})


@pytest.mark.parametrize("typed", ["k8v5", "K8V5", "[8,5]", "'8,5'", "'8, 5'"])
def test_a_pair_of_bits_may_be_written_in_the_ways_of_others(typed: str) -> None:
    assert _case(THIRD, f"cache={typed}").cache == "k8v5"


def test_pairs_that_have_a_name_are_one_cache_with_it() -> None:
    cases = plan_sweep([*ON, THIRD, "cache=Q8,k8v8,[8,8],k8v4,fp16"]).cases
    assert [case.cache for case in cases] == ["Q8", "k8v4", "FP16"]
    assert len(engine_of("exllamav3").caches) == 1 + 7 * 7


@pytest.mark.parametrize(("load", "lazy"), [("single", False), ("autosplit", True), ("null", False)])
def test_load_and_lazy_are_two_names_of_one_key(load: str, lazy: bool) -> None:
    for engine in NAMES:
        assert _case(f"engine={engine}", f"load={load}") == _case(f"engine={engine}", f"lazy={str(lazy).lower()}")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["cache=k8v5"], "cache=k8v5: allowed with ExLlamaV2 are FP16, Q8, Q6, Q4"),
        (["cache=k8v8"], "cache=k8v8: allowed with ExLlamaV2 are"),
        ([THIRD, "cache=8,5"], "8 is no cache, and a comma makes an axis: write 8,5 as k8v5"),
        ([THIRD, "cache=[9,4]"], "2 to 8 each: k8v5"),
        ([THIRD, "cache=k9v4"], "cache=k9v4: allowed are"),
        ([THIRD, "attention=flash_attn"], "attention=flash: allowed with exllamav3 are auto"),
        ([THIRD, "max_attention_size=4096"], "max_attention_size=4096: exllamav3 has no such bound"),
        ([THIRD, "max_seq_len=1000"], "whole pages of 256 tokens; give 768 or 1024"),
        ([THIRD, "max_seq_len=100"], "whole pages of 256 tokens; give 256"),
        ([THIRD, "device=2xrtx_3090"], "device=2xrtx_3090: exllamav3 is not run on several cards"),
        ([THIRD, "head_bits=9"], "head_bits=9: allowed with exllamav3 are 1, 2, 3"),
        ([THIRD, "bpw=9"], "EXL3 weights have 1.0 to 8.0 bits"),
        (["bpw=1.5"], "EXL2 weights have 2.0 to 8.0 bits"),
        (["load=autosplit", "lazy=false"], "lazy=true is load=autosplit; give one of them"),
        ([THIRD, "cache=Q4", "model.config.num_key_value_heads=1", "++model.config.head_dim=16"], "give cache=FP16"),
    ],
)
def test_what_an_engine_does_not_have_is_refused_with_its_name(overrides: list[str], said: str) -> None:
    assert said in _refusal(*overrides)


def test_a_search_ends_at_a_whole_page_of_the_engine() -> None:
    odd = "++model.config.max_position_embeddings=4100"
    for engine, end in (("exllamav2", 4100), ("exllamav3", 4096)):
        (search,) = plan_sweep([*ON[:2], f"engine={engine}", "max_seq_len=auto", odd]).searches
        assert search.search_end == end


def test_it_knows_the_architectures_that_its_package_has() -> None:
    """Of the classes in exllamav3/architecture, those that architectures.py lists."""
    found = find_spec("exllamav3")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "architecture"
    classes: dict[str, dict[str, str]] = {}
    for file in folder.glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                named = {"base": ast.unparse(node.bases[0]) if node.bases else ""}
                for each in node.body:
                    target = each.targets[0] if isinstance(each, ast.Assign) else getattr(each, "target", None)
                    if isinstance(target, ast.Name) and getattr(each, "value", None) is not None:
                        named[target.id] = ast.unparse(each.value).strip("'")  # type: ignore[attr-defined]
                classes[node.name] = named

    def of(name: str, attribute: str) -> str:
        own = classes[name]
        return own[attribute] if attribute in own else of(own["base"], attribute)

    listed = re.findall(r"^        (\w+),$", (folder / "architectures.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert {of(of(name, "config_class"), "arch_string") for name in listed} == ARCHITECTURES
    assert len(ARCHITECTURES) == 72


def test_values_of_latent_attention_have_no_bits_of_their_own() -> None:
    reading = Reading("triton", 64, 1, (), None)
    case = _case("model=kimi_k2_thinking", THIRD, "cache=k8v4")
    assert [note for note in notes(case, reading) if "cache=k8v4 is k8v8" in note]
    assert not list(notes(_case(THIRD, "cache=k8v4"), reading))


def _chosen(*overrides: str) -> Chosen:
    case = _case(THIRD, *overrides)
    names = ("bpw", "head_bits", "cache", "lazy", "engine", "batch_size", "scenario", "max_input_len", "cache_size")
    setting = {
        **dict.fromkeys(("attention_requested", "max_attention_size", "split")),
        **{name: getattr(case, name) for name in (*names, "max_batch_size", "draft", "num_draft_tokens")},
    }
    return Chosen("m", setting, case.batch_size, 4096)  # type: ignore[arg-type]


def test_the_snippets_are_of_the_setting() -> None:
    chosen = _chosen("cache=k8v5", "load=autosplit", "batch_size=2")
    python, yaml = rules_of("exllamav3").snippets(chosen)
    compile(python.text, "snippet", "exec")
    assert "max_num_tokens=8192, max_batch_size=2, layer_type" in python.text
    assert "k_bits=8, v_bits=5" in python.text
    assert "model.load(max_chunk_size=2048)" in python.text
    assert "cache_mode: 8,5" in yaml.text
    assert "cache_size: 8192" in yaml.text
    assert "draft" not in yaml.text


def test_the_snippets_of_a_generator_make_it() -> None:
    jobs = ("scenario=generator", "batch_size=8", "draft=ngram", "max_batch_size=12", "cache_size=16k")
    python, yaml = rules_of("exllamav3").snippets(_chosen(*jobs))
    compile(python.text, "snippet", "exec")
    assert "max_num_tokens=16384, max_batch_size=12, max_history=4, layer_type=CacheLayer_fp16)" in python.text
    keys = "max_chunk_size=2048, max_batch_size=12, ngram_match_min=2, num_draft_tokens=4)"
    assert f"Generator(model, cache, Tokenizer.from_config(model.config), {keys}" in python.text
    assert "cache_size: 16384\n" in yaml.text
    assert yaml.text.endswith("draft_model:\n  draft_mode: ngram\n  draft_num_tokens: 4\n  ngram_match_min: 2")
    (default,) = [each for each in rules_of("exllamav3").snippets(_chosen("scenario=generator")) if "yaml" in each]
    assert "# the rows have the engine's default of max_batch_size" in default.text
