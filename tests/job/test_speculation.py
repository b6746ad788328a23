"""Speculative decoding on a real server: greedy answers are the same with and without, and drafted tokens are accepted."""

from __future__ import annotations

import json
import re
import secrets
import urllib.request
from pathlib import Path

import pytest

from runners import environments
from runners.artifacts.local_bucket import free_port
from runners.serving import group, serve
from runners.spec import ServeSpec, SpeculationSpec
from tests.job.conftest import Ended

QUESTIONS = ("Repeat: a b c a b c a b c a b c", "What is an IRA?", "1 2 3 1 2 3 1 2 3 1 2 3, go on")


def answers(folder: Path, spec: ServeSpec, work: Path, draft: Path | None) -> tuple[list[str], float]:
    """What a server says greedily, and how many drafted tokens it accepted."""
    key, port = secrets.token_urlsafe(32), free_port()
    options = serve.vllm_arguments(spec, folder, device="cpu", quantized=False, port=port, draft=draft)
    program = environments.python("serve")
    environment = serve.vllm_environment(key, device="cpu", work=work)
    with group.running([str(program), str(program.parent / "vllm"), *options], environment, work / "vllm.log") as server:
        url = f"http://127.0.0.1:{port}"
        serve.wait_until_ready(url, key, spec.served_model_name, timeout_s=500, alive=server)
        said = [_ask(url, key, spec.served_model_name, question) for question in QUESTIONS]
        metrics = urllib.request.urlopen(f"{url}/metrics", timeout=30).read().decode()
    return said, sum(float(value) for value in re.findall(r"^vllm:spec_decode_num_accepted_tokens_total\{.*?\} (\S+)$", metrics, re.MULTILINE))


def _ask(url: str, key: str, model: str, question: str) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 48, "temperature": 0}).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as found:
        return str(json.load(found)["choices"][0]["message"]["content"])


@pytest.mark.timeout(1500)
def test_greedy_answers_are_the_same_with_and_without(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    base = (whole[0] / "work" / "tiny" / "base").resolve()
    plain = ServeSpec(max_model_tokens=1024, max_sequences=4, dtype="float32")
    expected, none = answers(base, plain, tmp_path / "plain", None)
    assert none == 0 and any(expected)
    ngram = plain.model_copy(update={"speculation": SpeculationSpec(method="ngram")})
    draft = plain.model_copy(update={"speculation": SpeculationSpec(method="draft", model="itself", draft_tokens=3)})
    for spec, folder in ((ngram, None), (draft, base)):
        said, accepted = answers(base, spec, tmp_path / str(spec.speculation and spec.speculation.method), folder)
        assert said == expected
        assert accepted > 0 or folder is None, "a model that drafts for itself is always right"
