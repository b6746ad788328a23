"""Speculative decoding on a real server: greedy answers are the same with and without, and an evaluation measures what vLLM's own counters say."""

from __future__ import annotations

import json
import re
import secrets
import urllib.request
from pathlib import Path

import pytest
import yaml

from runners import environments
from runners.artifacts.local_bucket import free_port
from runners.evaluation.acceptance import Acceptance
from runners.evaluation.assemble import Request
from runners.evaluation.run import perform
from runners.serving import group, serve
from runners.spec import EvaluateSpec, ServeSpec, Spec, SpeculationSpec
from tests.job.conftest import Ended

QUESTIONS = ("Repeat: a b c a b c a b c a b c", "What is an IRA?", "1 2 3 1 2 3 1 2 3 1 2 3, go on")


def answers(folder: Path, spec: ServeSpec, work: Path, draft: Path | None) -> tuple[list[str], Acceptance | None, dict[str, float]]:
    """What a server says greedily, what an evaluation says of its drafts, and what its counters say of the same answers."""
    key, port = secrets.token_urlsafe(32), free_port()
    options = serve.vllm_arguments(spec, folder, device="cpu", quantized=False, port=port, draft=draft)
    program = environments.python("serve")
    environment = serve.vllm_environment(key, device="cpu", work=work)
    with group.running([str(program), str(program.parent / "vllm"), *options], environment, work / "vllm.log") as server:
        url = f"http://127.0.0.1:{port}"
        serve.wait_until_ready(url, key, spec.served_model_name, timeout_s=500, alive=server)
        said = [_ask(url, key, spec.served_model_name, question) for question in QUESTIONS]
        before = _counters(url)
        measured = perform(Request(_evaluation(spec), url, key, _cases(work), None, work / "run", unknown_training_data=True))
        after = _counters(url)
    return said, measured.acceptance, {name: after[name] - before[name] for name in after}


def _evaluation(spec: ServeSpec) -> Spec:
    return Spec(serve=spec, evaluate=EvaluateSpec(concurrency=3, max_tokens=40, warmup_requests=0, request_timeout_s=300))


def _cases(work: Path) -> Path:
    """Two categories: one whose questions repeat themselves, and one whose do not."""
    asked = {
        "data": ("Count: 1 2 3 1 2 3 1 2 3", "a b c a b c a b c, go on", "x y x y x y x y"),
        "tax": ("What is an IRA?", "Who files Form 1040?", "When is tax due?"),
    }
    shared = {"difficulty": "easy", "source": "none", "as_of": 2025, "checks": [{"fact": "a word", "accepted": ["word"]}]}
    rows = [{"id": f"{name}-{at}", "category": name, "question": text, **shared} for name, texts in asked.items() for at, text in enumerate(texts)]
    file = work / "cases.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "cases": rows}))
    return file


def _counters(url: str) -> dict[str, float]:
    text = urllib.request.urlopen(f"{url}/metrics", timeout=30).read().decode()
    names = ("num_drafts", "num_draft_tokens", "num_accepted_tokens")
    return {name: sum(map(float, re.findall(rf"^vllm:spec_decode_{name}_total\{{.*?\}} (\S+)$", text, re.MULTILINE))) for name in names}


def _ask(url: str, key: str, model: str, question: str) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 48, "temperature": 0}).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as found:
        return str(json.load(found)["choices"][0]["message"]["content"])


@pytest.mark.timeout(1500)
def test_greedy_answers_are_the_same_with_and_without(whole: tuple[Path, Ended], tmp_path: Path) -> None:
    base = (whole[0] / "work" / "tiny" / "base").resolve()
    plain = ServeSpec(max_model_tokens=1024, max_sequences=4, dtype="float32")
    expected, none, _ = answers(base, plain, tmp_path / "plain", None)
    assert none is None and any(expected), "a server that drafts nothing tells nothing"
    ngram = plain.model_copy(update={"speculation": SpeculationSpec(method="ngram")})
    draft = plain.model_copy(update={"speculation": SpeculationSpec(method="draft", model="itself", draft_tokens=3)})
    for spec, folder in ((ngram, None), (draft, base)):
        said, measured, counted = answers(base, spec, tmp_path / str(spec.speculation and spec.speculation.method), folder)
        assert said == expected
        assert measured and spec.speculation and (measured.method, measured.draft_tokens) == (spec.speculation.method, spec.speculation.draft_tokens)
        assert measured.overall.answers == 6 and set(measured.categories) == {"data", "tax"}
        assert (measured.overall.drafted, measured.overall.accepted) == (counted["num_draft_tokens"], counted["num_accepted_tokens"])
        assert measured.overall.accepted > 0 or folder is None, "a model that drafts for itself is always right"
        assert measured.overall.tokens_a_step > 1 if measured.overall.accepted else measured.overall.tokens_a_step == 1
