"""Measured tokens a step in the plan of a server: from an evaluation's record, from the spec, or assumed; and what the latency bar needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from runners.commands.plan import measured_tokens, plan, refuse_another_model
from runners.errors import UserError
from runners.evaluation.acceptance import Acceptance, Accepted
from runners.evaluation.contamination import Contamination
from runners.evaluation.results import EvaluationResult, Verdict
from runners.fields import SpeculationSpec
from runners.planning import stacks, tables
from runners.planning.machines import MACHINES, machine
from runners.planning.serving import ANSWERS, TokensAStep, plan_serving, tokens_a_step, tokens_a_step_needed
from runners.serving.compiled import compiled_id
from runners.spec import ServeSpec, Spec, parse
from runners.training.shape import QWEN2_14B
from tests.planning.plans import serve_plan

L4 = machine("g2-standard-8")
NGRAM = {"speculation": {"method": "ngram"}}


def group(tokens: int, accepted: int) -> Accepted:
    steps = tokens - accepted
    return Accepted(answers=5, tokens=tokens, steps=steps, drafted=2 * accepted, accepted=accepted, tokens_a_step=tokens / steps, share=0.5)


def recorded(folder: Path, *, method: str | None = "ngram", drafts: int = 4, model: str | None = None, measured: bool = True) -> Path:
    """The folder of a run: a category of 1.25 tokens a step, one of 2.5."""
    found = Acceptance(method=method, draft_tokens=drafts, overall=group(1000, 400), categories={"tax": group(500, 100), "data": group(500, 300)})
    result = EvaluationResult(
        verdict=Verdict(outcome="passed", headline="all"),
        benchmark={"cases": 10, "digest": "d"},
        model={"id": model},
        settings={},
        acceptance=found if measured else None,
        contamination=Contamination(cases=10, threshold=0.5, pairs=0, dataset=None, leaks=()),
        started_at="2026-11-27T00:00:00Z",
        finished_at="2026-11-27T00:00:00Z",
    )
    folder.mkdir()
    (folder / "results.json").write_text(result.model_dump_json())
    return folder


@pytest.mark.parametrize("method", ["ngram", "draft", "eagle3"])
def test_an_assumption_may_hold_for_no_question(method: str) -> None:
    spec = ServeSpec(speculation=SpeculationSpec(method=method, model=None if method == "ngram" else "small"))
    found = tokens_a_step(spec)
    assert found and found.source == "assumed" and found.fewest == 1 and found.mean == found.most > 1
    made = plan_serving(QWEN2_14B, "awq", L4, spec, ANSWERS)
    plain = plan_serving(QWEN2_14B, "awq", L4, ServeSpec(), ANSWERS)
    assert made.slowest_ms > plain.expected_ms, "drafts that are never right cost time"
    assert made.fastest_ms == made.expected_ms < plain.expected_ms


def test_the_spec_goes_before_an_assumption_and_a_measurement_before_the_spec() -> None:
    spec = ServeSpec(speculation=SpeculationSpec(accepted_tokens=2.5))
    assert tokens_a_step(spec) == TokensAStep(2.5, 2.5, 2.5, "serve.speculation.accepted_tokens")
    measured = TokensAStep(1.7, 1.2, 2.2, "measured")
    assert plan_serving(QWEN2_14B, "awq", L4, spec, ANSWERS, measured=measured).tokens_a_step == measured
    assert plan_serving(QWEN2_14B, "awq", L4, ServeSpec(), ANSWERS, measured=measured).tokens_a_step is None, "a server that does not draft"


@given(st.floats(1, 17), st.floats(1, 17), st.sampled_from(sorted(MACHINES)))
def test_more_tokens_a_step_are_never_slower(one: float, other: float, name: str) -> None:
    few, many = sorted((one, other))
    spec = ServeSpec(speculation=SpeculationSpec(draft_tokens=16))
    slow, fast = (plan_serving(QWEN2_14B, "awq", machine(name), spec, ANSWERS, measured=TokensAStep(each, few, many, "measured")) for each in (few, many))
    assert fast.expected_ms <= slow.expected_ms and fast.floor_ms <= slow.floor_ms
    for made in (slow, fast):
        assert made.fastest_ms <= made.expected_ms <= made.slowest_ms and made.floor_ms <= made.expected_ms


@given(st.floats(300, 20_000), st.sampled_from(sorted(MACHINES)))
def test_what_a_bar_needs_meets_it_exactly(target_ms: float, name: str) -> None:
    spec = ServeSpec(speculation=SpeculationSpec(draft_tokens=16))
    made = plan_serving(QWEN2_14B, "awq", machine(name), spec, ANSWERS)
    needed = tokens_a_step_needed(target_ms, made, ANSWERS)
    assert (needed is None) == (made.prefill_ms >= target_ms)
    if needed:
        there = plan_serving(QWEN2_14B, "awq", machine(name), spec, ANSWERS, measured=TokensAStep(needed, needed, needed, "needed"))
        assert there.expected_ms == pytest.approx(target_ms)


def test_a_plan_says_what_it_counts_with_and_what_two_seconds_need() -> None:
    made = serve_plan(serve=NGRAM)
    (line,) = [line for line in tables.brief(made) if line.startswith("latency")]
    assert line == "latency  4.1 s for 140 tokens, never under 2.62 s; 1.50 tokens a step (assumed); 2 s needs 3.16"
    (rows,) = [rows for title, _, rows in tables.sections(made) if title == "Speculative decoding (assumed)"]
    assert [row[0] for row in rows] == ["all questions", "the slowest category", "the fastest category", "needed for evaluate.mean_latency_bar_ms"]
    assert rows[1][1:] == ("1.00", "6.12") and rows[-1][1:] == ("3.16", "2.00")
    assert not [title for title, _, _ in tables.sections(serve_plan()) if "Speculative" in title]


def test_a_run_is_read_with_its_categories(tmp_path: Path) -> None:
    spec = Spec(serve=ServeSpec(speculation=SpeculationSpec()))
    for at, method in enumerate(("ngram", None)):
        found = measured_tokens(recorded(tmp_path / f"run-{at}", method=method), [spec])
        assert (found.mean, found.fewest, found.most) == (1000 / 600, 1.25, 2.5) and found.source == f"measured on 5 answers, run-{at}"


@pytest.mark.parametrize(
    ("run", "serve", "says"),
    [
        ({"measured": False}, NGRAM, "told nothing of drafted"),
        ({}, {}, "no stack that is planned"),
        ({"drafts": 3}, NGRAM, "drafts 3 tokens"),
        ({"method": "draft"}, NGRAM, "measured with draft"),
    ],
)
def test_a_run_with_other_settings_is_refused(run: dict[str, Any], serve: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        measured_tokens(recorded(tmp_path / "run", **run), [Spec(serve=ServeSpec(**serve))])


@pytest.mark.parametrize(
    "lie",
    [
        {"tokens_a_step": 0},
        {"tokens_a_step": 9.5},
        {"tokens_a_step": float("nan")},
        {"tokens_a_step": float("inf")},
        {"steps": 0},
        {"tokens": 10},
        {"share": 2},
        {"answers": 0},
    ],
)
def test_a_record_that_does_not_add_up_is_refused(lie: dict[str, float], tmp_path: Path) -> None:
    run = recorded(tmp_path / "run")
    found = json.loads((run / "results.json").read_text())
    for group in (found["acceptance"]["overall"], found["acceptance"]["categories"]["tax"]):
        group.update(lie)
    (run / "results.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match="holds no results"):
        measured_tokens(run, [Spec(serve=ServeSpec(speculation=SpeculationSpec()))])


def test_a_run_on_another_model_is_refused(tmp_path: Path) -> None:
    made = serve_plan(serve=NGRAM | {"model_id": "qdora-1"})
    refuse_another_model(recorded(tmp_path / "same", model="qdora-1"), [made])
    refuse_another_model(recorded(tmp_path / "unknown"), [made])
    with pytest.raises(UserError, match="asked qdora-2, and serve-l4 serves qdora-1"):
        refuse_another_model(recorded(tmp_path / "other", model="qdora-2"), [made])


def test_the_command_counts_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = yaml.safe_load((stacks.FOLDER / "Pulumi.serve-l4.yaml").read_text())
    values["config"]["elson:spec"].setdefault("serve", {})["speculation"] = {"method": "ngram"}
    (tmp_path / "Pulumi.serve-l4.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(stacks, "FOLDER", tmp_path)
    run = str(recorded(tmp_path / "run"))
    done = CliRunner().invoke(plan, ["-s", "serve-l4", "--offline", "--evaluation", run])
    assert done.exit_code == 0, done.output
    assert "1.67 tokens a step (measured on 5 answers, run, 1.25 to 2.50 by category); 2 s needs 3.16" in done.output
    (data,) = json.loads(CliRunner().invoke(plan, ["-s", "serve-l4", "--offline", "--json", "--evaluation", run]).stdout)
    assert data["serving"]["tokens_a_step"]["mean"] == pytest.approx(5 / 3) and data["serving"]["fastest_ms"] < data["serving"]["slowest_ms"]


def test_a_figure_for_the_planner_starts_no_other_server_and_compiles_nothing_again() -> None:
    plain, said = (Spec(serve=ServeSpec(speculation=SpeculationSpec(accepted_tokens=tokens))) for tokens in (None, 2.0))
    assert compiled_id(plain) == compiled_id(said)


@pytest.mark.parametrize("tokens", [0.5, 5.01, float("inf"), float("nan")])
def test_a_figure_that_cannot_be_is_refused(tokens: float) -> None:
    with pytest.raises(UserError, match="accepted_tokens"):
        parse({"serve": {"speculation": {"method": "ngram", "draft_tokens": 4, "accepted_tokens": tokens}}})
