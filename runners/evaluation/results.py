"""What an evaluation found: ``results.json``, as plain data with a version, and the one line for a log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, computed_field, model_validator

from runners.artifacts.served_with import ServedWith
from runners.evaluation.acceptance import Acceptance, Drafts
from runners.evaluation.baselines import Baseline
from runners.evaluation.cases import Case
from runners.evaluation.client import Reply
from runners.evaluation.contamination import Contamination
from runners.evaluation.judge import Judged, Judgement
from runners.evaluation.scoring import Score
from runners.evaluation.statistics import Comparison, Mean, Rate, judge_mean, judge_rate, percentile
from runners.fields import Strict

#: passed: every bar held. not passed: one did not. not shown: all rates are above their bars, the sample cannot show it. The rest: not measured.
Outcome = Literal["passed", "not passed", "not shown", "contaminated", "unfit", "incomplete"]
EXIT_CODES: dict[Outcome, int] = {"passed": 0, "not passed": 1, "not shown": 1, "contaminated": 2, "unfit": 2, "incomplete": 2}
#: Why a case did not pass; "wrong" is an answer that came back whole and failed a check.
FAILURES = ("wrong", "judged wrong", "truncated", "empty", "timeout", "error")


class CaseResult(Strict):
    """One case: what came back, how it was scored, how long it took."""

    id: str
    digest: str
    category: str
    difficulty: str
    kind: str
    computation: str | None = None
    seen: str = Field("", description="how the training data has this kind of question; empty: it does not")
    worded: bool = Field(False, description="wordings decide it; without a judge nothing else does")
    question: str
    passed: bool
    failure: str = ""
    answer: str
    checks: tuple[dict[str, Any], ...] = ()
    latency_ms: float
    first_token_ms: float | None = None
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    drafts: Drafts | None = None
    finish_reason: str | None = None
    error: str = ""
    attempts: tuple[dict[str, Any], ...] = ()
    judged: Judged | None = None


class Latency(Strict):
    """Times of the requests that brought an answer or ran into the time limit; other errors are counted, never averaged in."""

    concurrency: int
    mean: Mean | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    slowest_ms: float | None
    first_token_mean_ms: float | None
    first_token_p50_ms: float | None
    first_token_p95_ms: float | None
    first_token_p99_ms: float | None
    tokens_per_s: float | None = Field(description="completion tokens of all requests over the time of the run")
    tokens_per_s_per_request: float | None = Field(description="median over requests, after the first token")
    requests_per_s: float | None
    wall_s: float
    retried: int


class Verdict(Strict):
    """The outcome, one sentence, and what led to it."""

    outcome: Outcome
    headline: str
    reasons: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 passed, 1 not passed, 2 could not be measured."""
        return EXIT_CODES[self.outcome]


class EvaluationResult(Strict):
    """Everything one evaluation found."""

    version: Literal[1] = 1
    verdict: Verdict
    benchmark: dict[str, Any]
    model: dict[str, Any]
    settings: dict[str, Any]
    served_with: ServedWith | None = Field(None, description="as every answer's server said; None: one said nothing, or they differ")
    overall: Rate | None = None
    unseen: Rate | None = Field(None, description="cases of kinds that the training data does not have: what the overall bar is held against")
    seen: Rate | None = None
    categories: dict[str, Rate] = Field(default_factory=dict)
    difficulties: dict[str, Rate] = Field(default_factory=dict)
    kinds: dict[str, Rate] = Field(default_factory=dict)
    failures: dict[str, int] = Field(default_factory=dict)
    latency: Latency | None = None
    acceptance: Acceptance | None = Field(None, description="of drafted tokens; None: not measured, because the server tells nothing of drafts")
    contamination: Contamination
    baselines: tuple[Baseline, ...] = ()
    comparison: Comparison | None = None
    compared_with: dict[str, Any] | None = None
    judge: Judgement | None = None
    on_wordings: tuple[str, ...] = Field((), description="passed cases that wordings alone decide, because no believed judge read them")
    cases: tuple[CaseResult, ...] = ()
    started_at: str
    finished_at: str
    code: dict[str, Any] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _derived_is_not_read(cls, value: Any) -> Any:
        return {key: part for key, part in value.items() if key != "line"} if isinstance(value, dict) else value

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way to write a property out
    @property
    def line(self) -> str:
        """One line for a CI log."""
        parts = [f"elson evaluate: {self.verdict.outcome.upper()}"]
        if self.overall:
            parts.append(f"{self.overall.passed}/{self.overall.cases} ({self.overall.rate:.1%}, 95 % {self.overall.low:.1%}-{self.overall.high:.1%})")
        if self.unseen and self.seen:
            parts.append(f"unseen kinds {self.unseen.passed}/{self.unseen.cases}, seen kinds {self.seen.passed}/{self.seen.cases}")
        if self.latency and self.latency.mean and self.latency.p95_ms is not None:
            parts.append(f"mean {self.latency.mean.mean:.0f} ms p95 {self.latency.p95_ms:.0f} ms at concurrency {self.latency.concurrency}")
        if self.acceptance:
            parts.append(f"{self.acceptance.overall.tokens_a_step:.2f} tokens a step")
        parts += [f"{count} {name}" for name, count in self.failures.items() if count and name != "wrong"]
        return " | ".join([*parts, self.verdict.headline])


def case_result(case: Case, reply: Reply, scored: Score, judged: Judged | None = None, seen: str = "") -> CaseResult:
    """Put a reply and its score together. Only a whole answer can pass; a judge that gave a grade can take the pass away."""
    failure: str = reply.status if reply.status != "answered" else "" if scored.passed else "wrong"
    if not failure and judged and judged.score is not None and not judged.passed:
        failure = "judged wrong"
    passed = not failure
    return CaseResult(
        id=case.id,
        digest=case.digest,
        category=case.category,
        difficulty=case.difficulty,
        kind=case.kind,
        computation=case.computation,
        seen=seen,
        worded=case.worded,
        question=case.question,
        passed=passed,
        failure=failure,
        answer=reply.text,
        checks=tuple(check.to_json() for check in scored.checks),
        latency_ms=reply.latency_ms,
        first_token_ms=reply.first_token_ms,
        completion_tokens=reply.completion_tokens,
        prompt_tokens=reply.prompt_tokens,
        drafts=reply.drafts,
        finish_reason=reply.finish_reason,
        error=reply.error,
        attempts=tuple(vars(attempt) for attempt in reply.attempts),
        judged=judged,
    )


def rates(cases: Sequence[CaseResult], key: str, bar: float) -> dict[str, Rate]:
    """Rates by category, difficulty or kind, in the order of their first case."""
    groups: dict[str, list[bool]] = {}
    for case in cases:
        groups.setdefault(getattr(case, key), []).append(case.passed)
    return {name: judge_rate(sum(passed), len(passed), bar) for name, passed in groups.items()}


def failures(cases: Sequence[CaseResult]) -> dict[str, int]:
    """How many cases failed in each way."""
    return {name: sum(case.failure == name for case in cases) for name in FAILURES}


def latency(cases: Sequence[CaseResult], *, concurrency: int, wall_s: float, bar_ms: float) -> Latency:
    """Latency figures. A time-out counts with the time it took; a refused connection is no fast answer and is left out."""
    timed = [case.latency_ms for case in cases if case.failure != "error"]
    first = [case.first_token_ms for case in cases if case.first_token_ms is not None]
    tokens = sum(case.completion_tokens or 0 for case in cases)
    speeds = [
        (case.completion_tokens - 1) / (case.latency_ms - case.first_token_ms) * 1000
        for case in cases
        if case.completion_tokens and case.completion_tokens > 1 and case.first_token_ms is not None and case.latency_ms > case.first_token_ms
    ]
    return Latency(
        concurrency=concurrency,
        mean=judge_mean(timed, bar_ms),
        p50_ms=percentile(timed, 0.5),
        p95_ms=percentile(timed, 0.95),
        p99_ms=percentile(timed, 0.99),
        slowest_ms=max(timed, default=None),
        first_token_mean_ms=sum(first) / len(first) if first else None,
        first_token_p50_ms=percentile(first, 0.5),
        first_token_p95_ms=percentile(first, 0.95),
        first_token_p99_ms=percentile(first, 0.99),
        tokens_per_s=tokens / wall_s if tokens and wall_s else None,
        tokens_per_s_per_request=percentile(speeds, 0.5),
        requests_per_s=len(timed) / wall_s if timed and wall_s else None,
        wall_s=wall_s,
        retried=sum(len(case.attempts) > 1 for case in cases),
    )
