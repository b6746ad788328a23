"""The settings of a server's cache on a real vLLM: prefix caching changes no greedy answer, and fp8 holds twice the tokens, as the planner says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runners.local.base_model import TEXT
from runners.spec import ServeSpec
from tests.job.real_server import Server, made_model, serving

#: Longer than a block of the cache, so that the second question finds the first one's beginning.
QUESTIONS = tuple(f"{TEXT} {question}" for question in ("What is an IRA?", "What is a bond?", "What does duration say?"))
SPEC = ServeSpec(max_model_tokens=4096, max_sequences=2, dtype="bfloat16", cpu_kv_cache_mib=64)


def tokens_of_cache(server: Server) -> int:
    (found,) = re.findall(r"^vllm:cache_config_info\{(.*)\} 1.0$", server.metrics(), re.MULTILINE)
    says = dict(re.findall(r'(\w+)="([^"]*)"', found))
    return int(says["num_gpu_blocks"]) * int(says["block_size"])


@pytest.mark.timeout(1500)
def test_prefix_caching_changes_no_answer_and_fp8_holds_twice_the_tokens(tmp_path: Path) -> None:
    said, hits, tokens, model = {}, {}, {}, made_model(tmp_path / "model")

    def measure(name: str, spec: ServeSpec) -> None:
        with serving(model, spec, tmp_path / name) as server:
            said[name] = [server.ask(question) for question in QUESTIONS]
            hits[name], tokens[name] = server.counter("prefix_cache_hits"), tokens_of_cache(server)

    measure("plain", SPEC)
    measure("without", SPEC.model_copy(update={"prefix_caching": False}))
    assert hits["plain"] > 0 == hits["without"], "the setting reaches vLLM"
    assert said["plain"] == said["without"] and all(said["plain"])
    if not {"avx512f", "amx_tile"} & set(Path("/proc/cpuinfo").read_text().split()):
        pytest.skip("vLLM's fp8 cache needs AVX-512 or AMX on a CPU")
    measure("fp8", SPEC.model_copy(update={"kv_cache_dtype": "fp8"}))
    assert tokens["fp8"] == 2 * tokens["plain"] == 2 * tokens["without"]
    assert all(said["fp8"]) and said["fp8"] != said["plain"], "rounded: what a plan with fp8 warns of"
