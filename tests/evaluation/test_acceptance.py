"""What a server tells of its drafted tokens, from the event of a stream to the record and the page."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.evaluation.acceptance import Drafts, acceptance, read
from runners.evaluation.cases import Benchmark
from runners.evaluation.results import CaseResult, EvaluationResult
from runners.evaluation.store import ANSWERS
from runners.fields import SpeculationSpec
from runners.spec import Spec
from tests.evaluation.stub_server import Play, perfect, serving
from tests.evaluation.test_servers import run


def told(checks: int, drafted: int, accepted: int, most: int = 4) -> dict[str, Any]:
    """As vLLM 0.32 writes it; the histogram and the means are not read."""
    counts = {"num_spec_steps": checks, "num_draft_tokens": drafted, "num_accepted_draft_tokens": accepted, "num_spec_tokens": most}
    return counts | {"mean_acceptance_length": 0.0, "draft_acceptance_rate": 0.0, "acceptance_histogram": [0] * (most + 1)}


def case(category: str, tokens: int | None, drafts: Drafts | None) -> CaseResult:
    fixed: dict[str, Any] = {"id": "a", "digest": "d", "difficulty": "easy", "kind": "figure", "question": "?", "answer": "!"}
    return CaseResult(**fixed, passed=True, latency_ms=1.0, category=category, completion_tokens=tokens, drafts=drafts)


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        None,
        {"metrics": None},
        {"metrics": []},
        {"metrics": {"speculative_decoding": None}},
        {"metrics": {"speculative_decoding": 3}},
        {"metrics": {"speculative_decoding": {}}},
        {"metrics": {"speculative_decoding": told(1, 4, 5)}},
        {"metrics": {"speculative_decoding": told(1, 5, 4)}},
        {"metrics": {"speculative_decoding": told(-1, 0, 0)}},
        {"metrics": {"speculative_decoding": told(1, 4, -1)}},
        {"metrics": {"speculative_decoding": told(1, 0, 0, most=0)}},
        {"metrics": {"speculative_decoding": told(1, 4, 2) | {"num_draft_tokens": "many"}}},
    ],
)
def test_what_does_not_add_up_is_no_measurement(event: Any) -> None:
    assert read(event) is None


def test_an_event_with_drafts_is_read() -> None:
    assert read({"metrics": {"speculative_decoding": told(10, 36, 20)}, "usage": {}}) == Drafts(most=4, checks=10, drafted=36, accepted=20)
    assert read({"metrics": {"speculative_decoding": told(0, 0, 0)}}) == Drafts(most=4, checks=0, drafted=0, accepted=0), "nothing to repeat: measured, too"


def test_tokens_a_step_count_the_steps_without_a_draft() -> None:
    none = Drafts(most=4, checks=0, drafted=0, accepted=0)
    found = acceptance([case("tax", 30, Drafts(most=4, checks=5, drafted=20, accepted=10)), case("tax", 10, none)], None)
    assert found and found.overall.tokens_a_step == pytest.approx(40 / 30) and found.overall.share == 0.5
    nothing = acceptance([case("tax", 10, none)], None)
    assert nothing and nothing.overall.tokens_a_step == 1 and nothing.overall.share is None


def test_accepted_tokens_beyond_the_end_of_an_answer_make_no_steps_of_zero() -> None:
    found = acceptance([case("tax", 3, Drafts(most=4, checks=1, drafted=4, accepted=4))], None)
    assert found and found.overall.steps == 1 and found.overall.tokens_a_step == 3


def test_without_drafts_or_with_two_servers_nothing_was_measured() -> None:
    four, two = Drafts(most=4, checks=1, drafted=4, accepted=1), Drafts(most=2, checks=1, drafted=2, accepted=1)
    assert acceptance([], None) is None and acceptance([case("tax", 9, None), case("tax", None, four)], None) is None
    assert acceptance([case("tax", 9, four), case("tax", 9, two)], None) is None


@st.composite
def drafts(draw: st.DrawFn) -> tuple[str, int, Drafts]:
    checks = draw(st.integers(0, 50))
    drafted = draw(st.integers(0, checks * 4))
    accepted = draw(st.integers(0, drafted))
    return draw(st.sampled_from("abc")), draw(st.integers(1, 400)), Drafts(most=4, checks=checks, drafted=drafted, accepted=accepted)


@given(st.lists(drafts(), min_size=1))
def test_categories_add_up_to_the_whole(answers: list[tuple[str, int, Drafts]]) -> None:
    found = acceptance([case(*answer) for answer in answers], "ngram")
    assert found
    for part in ("answers", "tokens", "steps", "drafted", "accepted"):
        assert sum(getattr(group, part) for group in found.categories.values()) == getattr(found.overall, part)
    several = [group.tokens_a_step for group in found.categories.values()]
    assert all(group.tokens_a_step >= 1 for group in (found.overall, *found.categories.values())), "a step yields a token or more"
    assert min(several) - 1e-9 <= found.overall.tokens_a_step <= max(several) + 1e-9
    assert found == acceptance([case(*answer) for answer in reversed(answers)], "ngram"), "the order of the answers does not matter"


def test_a_run_records_it_by_category_and_goes_on_with_it(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    speculates = spec.model_copy(update={"serve": spec.serve.model_copy(update={"speculation": SpeculationSpec()})})
    play = Play(perfect, drafts=lambda number, tokens: told(tokens // 4, tokens // 4 * 4, tokens // 4 * (number % 4)))
    with serving(benchmark, play) as url:
        found = run(speculates, url, benchmark_file, tmp_path / "run")
        file = tmp_path / "run" / ANSWERS
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:30]))
        again = run(speculates, url, benchmark_file, tmp_path / "run")
    measured = found.acceptance
    assert measured and measured.method == "ngram" and measured.draft_tokens == 4 and measured.overall.answers == 40
    assert measured == again.acceptance
    assert list(measured.categories) == ["retirement", "tax", "estate", "investing"]
    speeds = [group.tokens_a_step for group in measured.categories.values()]
    assert speeds[0] == 1 and speeds == sorted(speeds) and "tokens a step" in found.line
    assert EvaluationResult.model_validate_json((tmp_path / "run" / "results.json").read_text()) == again
    shown = (tmp_path / "run" / "report.html").read_text()
    assert "Speculative decoding" in shown and "`elson" not in shown and shown.index("tokens a step</th>") < shown.index("drafted</th>")


def test_a_plain_server_and_an_old_record_have_none(spec: Spec, benchmark: Benchmark, benchmark_file: Path, tmp_path: Path) -> None:
    with serving(benchmark, Play(perfect)) as url:
        found = run(spec, url, benchmark_file, tmp_path / "run")
    assert found.acceptance is None and "tokens a step" not in found.line
    assert "Speculative decoding" not in (tmp_path / "run" / "report.html").read_text()
    old = json.loads((tmp_path / "run" / "results.json").read_text())
    del old["acceptance"]
    for row in old["cases"]:
        del row["drafts"]
    assert EvaluationResult.model_validate(old) == found
