"""The settings of a server's cache on a real vLLM: prefix caching changes no greedy answer, and fp8 holds twice the tokens, as the planner says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from runners import environments
from runners.local.base_model import TEXT
from runners.spec import ServeSpec
from tests.job.real_server import Server, serving

ROOT = Path(__file__).resolve().parents[2]
#: Longer than a block of the cache, so that the second question finds the first one's beginning.
QUESTIONS = tuple(f"{TEXT} {question}" for question in ("What is an IRA?", "What is a bond?", "What does duration say?"))
SPEC = ServeSpec(max_model_tokens=4096, max_sequences=2, dtype="bfloat16", cpu_kv_cache_mib=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make = "import sys, pathlib; from runners.local.base_model import make_tiny; make_tiny(pathlib.Path(sys.argv[1]))"
    subprocess.run([str(environments.python("train")), "-c", make, str(folder)], cwd=ROOT, check=True)
    return folder


def tokens_of_cache(server: Server) -> int:
    (found,) = re.findall(r"^vllm:cache_config_info\{(.*)\} 1.0$", server.metrics(), re.MULTILINE)
    says = dict(re.findall(r'(\w+)="([^"]*)"', found))
    return int(says["num_gpu_blocks"]) * int(says["block_size"])


@pytest.mark.timeout(1500)
def test_prefix_caching_changes_no_answer_and_fp8_holds_twice_the_tokens(model: Path, tmp_path: Path) -> None:
    said, hits, tokens = {}, {}, {}
    for name, changes in (("plain", {}), ("without", {"prefix_caching": False}), ("fp8", {"kv_cache_dtype": "fp8"})):
        with serving(model, SPEC.model_copy(update=changes), tmp_path / name) as server:
            said[name] = [server.ask(question) for question in QUESTIONS]
            hits[name], tokens[name] = server.counter("prefix_cache_hits"), tokens_of_cache(server)
    assert hits["plain"] > 0 == hits["without"], "the setting reaches vLLM"
    assert said["plain"] == said["without"] and all(said["plain"])
    assert tokens["fp8"] == 2 * tokens["plain"] == 2 * tokens["without"]
    assert all(said["fp8"])
