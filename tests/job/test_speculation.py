"""Speculative decoding on a real server: greedy answers are the same with and without, and an evaluation measures what vLLM's own counters say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from runners import environments
from runners.evaluation.acceptance import Acceptance
from runners.evaluation.assemble import Request
from runners.evaluation.run import perform
from runners.fields import SpeculationSpec
from runners.spec import EvaluateSpec, ServeSpec, Spec
from runners.training.examples import messages
from tests.job.real_server import ROOT, Server, serving

QUESTIONS = ("Repeat: a b c a b c a b c a b c", "What is an IRA?", "1 2 3 1 2 3 1 2 3 1 2 3, go on")


def measured(server: Server, spec: ServeSpec, work: Path) -> tuple[Acceptance | None, tuple[float, float]]:
    """What an evaluation says of the drafts of its answers, and what the counters say: (drafted, accepted) tokens."""
    asked = Spec(serve=spec, evaluate=EvaluateSpec(concurrency=3, max_tokens=40, warmup_requests=0, request_timeout_s=300))
    before = _counted(server)
    found = perform(Request(asked, server.url, server.key, _cases(work), None, work / "run", unknown_training_data=True)).acceptance
    after = _counted(server)
    return found, (after[0] - before[0], after[1] - before[1])


def _counted(server: Server) -> tuple[float, float]:
    return server.counter("spec_decode_num_draft_tokens"), server.counter("spec_decode_num_accepted_tokens")


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


def _taught(folder: Path) -> dict[str, float]:
    """A model that knows what it says, and the head that was trained on it, made where torch is; what the gate says of the head."""
    command = [str(environments.python("train")), "-m", "tests.torch.taught", str(folder)]
    found: dict[str, float] = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return found


def _tokens_a_step(server: Server, folder: Path) -> float:
    """Tokens a step on the held-out questions, by the server's counters: those the gate drafts answers to, asked as the gate asks them."""
    before = server.counter("spec_decode_num_drafts"), server.counter("spec_decode_num_accepted_tokens")
    for line in (folder / "data" / "validation.jsonl").read_text().splitlines():
        server.say(messages(json.loads(line), Spec().chat.system_prompt))
    after = server.counter("spec_decode_num_drafts"), server.counter("spec_decode_num_accepted_tokens")
    return 1 + (after[1] - before[1]) / (after[0] - before[0])


@pytest.mark.timeout(2400)
def test_greedy_answers_are_the_same_and_accepted_drafts_are_measured(tmp_path: Path) -> None:
    gate = _taught(tmp_path)
    base, head = tmp_path / "merged", tmp_path / "head"
    plain = ServeSpec(max_model_tokens=1024, max_sequences=4, dtype="float32")
    ngram = plain.model_copy(update={"speculation": SpeculationSpec(method="ngram")})
    draft = plain.model_copy(update={"speculation": SpeculationSpec(method="draft", model="itself", draft_tokens=3)})
    eagle = plain.model_copy(update={"speculation": SpeculationSpec(method="eagle3", draft_tokens=int(gate["drafted_a_step"]))})
    with serving(base, plain, tmp_path / "plain") as server:
        expected = [server.ask(question) for question in QUESTIONS]
        assert measured(server, plain, tmp_path / "plain")[0] is None and any(expected), "a server that drafts nothing tells nothing"
    for spec, folder in ((ngram, None), (draft, base), (eagle, head)):
        work = tmp_path / str(spec.speculation and spec.speculation.method)
        with serving(base, spec, work, folder) as server:
            assert [server.ask(question) for question in QUESTIONS] == expected
            found, counted = measured(server, spec, work)
            if folder == head:
                held_out = _tokens_a_step(server, tmp_path)
        assert found and spec.speculation and (found.method, found.draft_tokens) == (spec.speculation.method, spec.speculation.draft_tokens)
        assert found.overall.answers == 6 and set(found.categories) == {"data", "tax"}
        assert (found.overall.drafted, found.overall.accepted) == counted
        assert found.overall.drafted > 0, "questions that repeat themselves have drafts"
        if folder == base:
            assert found.overall.tokens_a_step > 3.5, "a model that drafts for itself is right, but for the end of an answer"
    # The gate counts a step's tokens without a server. Here is the server, with other kernels, on the same questions.
    assert gate["tokens_a_step_untrained"] < 1.1 < 1.5 < held_out
    assert held_out == pytest.approx(gate["tokens_a_step"], rel=0.1)
    # In 4 bits vLLM computes in 16, so a near tie may go the other way; that the head's layers are packed is in its log, for the model's are not.
    with serving(base, eagle.model_copy(update={"dtype": "bfloat16"}), tmp_path / "packed", tmp_path / "head-4-bit") as server:
        assert _tokens_a_step(server, tmp_path) == pytest.approx(gate["tokens_a_step_4_bit"], rel=0.2)
        assert "for AutoAWQMarlinLinearMethod" in (tmp_path / "packed" / "vllm.log").read_text()
