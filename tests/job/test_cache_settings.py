"""The settings of a server's cache on a real vLLM: prefix caching changes no greedy answer, fp8 holds twice the tokens, as the planner says, and the gate
compares what the servers said they ran with, which is what vLLM's own metrics say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runners.artifacts.registry import Entry
from runners.artifacts.served_with import ServedWith
from runners.errors import UserError
from runners.evaluation.assemble import Request
from runners.evaluation.comparing import cache_kept
from runners.evaluation.results import EvaluationResult
from runners.evaluation.run import perform
from runners.local.base_model import TEXT
from runners.spec import EvaluateSpec, ServeSpec, Spec
from tests.job.real_server import ROOT, Server, made_model, serving

#: Longer than a block of the cache, so that the second question finds the first one's beginning.
QUESTIONS = tuple(f"{TEXT} {question}" for question in ("What is an IRA?", "What is a bond?", "What does duration say?"))
SPEC = ServeSpec(max_model_tokens=4096, max_sequences=2, dtype="bfloat16", cpu_kv_cache_mib=64)
#: One case of each of 18 categories: the fewest that can rule a loss of a tenth out.
ASKED = EvaluateSpec(max_cases=1, max_tokens=8, concurrency=2, warmup_requests=0, request_timeout_s=300)
ENTRY = Entry(name="tiny-v1", id="base-0123456789abcdef", kind="base", status="ready", manifest="0123456789abcdef")


def cache_config(server: Server) -> dict[str, str]:
    """What vLLM says of its cache in its metrics."""
    (found,) = re.findall(r"^vllm:cache_config_info\{(.*)\} 1.0$", server.metrics(), re.MULTILINE)
    return dict(re.findall(r'(\w+)="([^"]*)"', found))


def evaluated(server: Server, out: Path) -> EvaluationResult:
    request = Request(
        Spec(evaluate=ASKED), server.url, server.key, ROOT / "data" / "benchmark" / "v1", None, out, model_id=ENTRY.id, unknown_training_data=True
    )
    return perform(request)


@pytest.mark.timeout(1500)
def test_prefix_caching_changes_no_answer_and_fp8_holds_twice_the_tokens_and_passes_its_gate(tmp_path: Path) -> None:
    said, hits, tokens, runs, model = {}, {}, {}, {}, made_model(tmp_path / "model")

    def measure(name: str, spec: ServeSpec) -> None:
        with serving(model, spec, tmp_path / name) as server:
            said[name] = [server.ask(question) for question in QUESTIONS]
            hits[name], config = server.counter("prefix_cache_hits"), cache_config(server)
            tokens[name] = int(config["num_gpu_blocks"]) * int(config["block_size"])
            runs[name] = evaluated(server, tmp_path / f"run-{name}")
            own = ServedWith.model_validate(
                {"kv_cache_dtype": config["cache_dtype"], "prefix_caching": config["enable_prefix_caching"] == "True", "speculation": "none"}
            )
            assert runs[name].served_with == own, "the answers say what vLLM says of itself"

    measure("plain", SPEC)
    measure("without", SPEC.model_copy(update={"prefix_caching": False}))
    assert hits["plain"] > 0 == hits["without"], "the setting reaches vLLM"
    assert said["plain"] == said["without"] and all(said["plain"])
    with pytest.raises(UserError, match="the run with fp8 said of its cache: auto"):
        cache_kept(ENTRY, runs["plain"], runs["without"])
    if not {"avx512f", "amx_tile"} & set(Path("/proc/cpuinfo").read_text().split()):
        pytest.skip("vLLM's fp8 cache needs AVX-512 or AMX on a CPU")
    measure("fp8", SPEC.model_copy(update={"kv_cache_dtype": "fp8"}))
    assert tokens["fp8"] == 2 * tokens["plain"] == 2 * tokens["without"]
    assert all(said["fp8"]) and said["fp8"] != said["plain"], "rounded: what a plan with fp8 warns of"
    assert "0 gained, 0 lost of 18" in cache_kept(ENTRY, runs["plain"], runs["fp8"]), "a random model has nothing to lose"
