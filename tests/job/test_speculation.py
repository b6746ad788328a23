"""Speculative decoding on a real server: greedy answers are the same with and without, and an evaluation measures what vLLM's own counters say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runners.evaluation.acceptance import Acceptance
from runners.evaluation.assemble import Request
from runners.evaluation.run import perform
from runners.spec import EvaluateSpec, ServeSpec, Spec, SpeculationSpec
from tests.job.real_server import Server, made_model, serving

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


@pytest.mark.timeout(1500)
def test_greedy_answers_are_the_same_and_accepted_drafts_are_measured(tmp_path: Path) -> None:
    base = made_model(tmp_path / "base")
    plain = ServeSpec(max_model_tokens=1024, max_sequences=4, dtype="float32")
    ngram = plain.model_copy(update={"speculation": SpeculationSpec(method="ngram")})
    draft = plain.model_copy(update={"speculation": SpeculationSpec(method="draft", model="itself", draft_tokens=3)})
    with serving(base, plain, tmp_path / "plain") as server:
        expected = [server.ask(question) for question in QUESTIONS]
        assert measured(server, plain, tmp_path / "plain")[0] is None and any(expected), "a server that drafts nothing tells nothing"
    for spec, folder in ((ngram, None), (draft, base)):
        work = tmp_path / ("itself" if folder else "ngram")
        with serving(base, spec, work, folder) as server:
            assert [server.ask(question) for question in QUESTIONS] == expected
            found, counted = measured(server, spec, work)
        assert found and spec.speculation and (found.method, found.draft_tokens) == (spec.speculation.method, spec.speculation.draft_tokens)
        assert found.overall.answers == 6 and set(found.categories) == {"data", "tax"}
        assert (found.overall.drafted, found.overall.accepted) == counted
        assert found.overall.drafted > 0, "questions that repeat themselves have drafts"
        if folder:
            assert found.overall.tokens_a_step > 3.5, "a model that drafts for itself is right, but for the end of an answer"
