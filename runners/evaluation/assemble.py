"""From answers to a result: score, count, compare, decide. Pure: the same answers give the same result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.artifacts import record, served_with
from runners.evaluation import results
from runners.evaluation.acceptance import acceptance
from runners.evaluation.baselines import Baseline
from runners.evaluation.cases import Benchmark
from runners.evaluation.contamination import Contamination
from runners.evaluation.judge import Judgement
from runners.evaluation.results import CaseResult, EvaluationResult, Latency, Verdict
from runners.evaluation.scoring import score
from runners.evaluation.statistics import Comparison, Rate, compare, judge_rate
from runners.evaluation.store import Answer
from runners.evaluation.verdict import contaminated, decide
from runners.spec import Spec


@dataclass(frozen=True)
class Request:
    """What to measure, and against what.

    Args:
        spec: bars, limits and the system prompt; ``spec.evaluate`` is this stage's section.
        api_url: ``http://host:8000``, with or without ``/v1``.
        api_key: sent as a bearer token; None sends none.
        benchmark: a file or a folder of cases.
        dataset: the folder (or file of pairs) the model was trained on; None when there is none to compare with.
        out: folder of this run.
        model: the served name; left out, the spec's, or the only one there is.
        model_id: the registry id behind it, for the record.
        baseline: folder of an earlier run to compare with, case by case.
        judge_key: bearer token of the judge's endpoint, when ``spec.evaluate.judge`` names one.
        unknown_training_data: accept that contamination cannot be checked; said in the results.
    """

    spec: Spec
    api_url: str
    api_key: str | None
    benchmark: Path
    dataset: Path | None
    out: Path
    model: str | None = None
    model_id: str | None = None
    baseline: Path | None = None
    judge_key: str | None = None
    unknown_training_data: bool = False


@dataclass(frozen=True)
class PreparedRun:
    """What is known before the first request."""

    benchmark: Benchmark
    contamination: Contamination
    baselines: tuple[Baseline, ...]
    other: EvaluationResult | None


@dataclass(frozen=True)
class Measured:
    """What the server said; empty when it was not asked."""

    answers: Mapping[str, Answer] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0
    judgement: Judgement | None = None


def assemble(request: Request, prepared: PreparedRun, measured: Measured, started_at: str) -> EvaluationResult:
    """Everything one evaluation found."""
    bars, every = request.spec.evaluate, prepared.benchmark.cases
    judged = measured.judgement.cases if measured.judgement and measured.judgement.fit else {}
    answered = [(case, measured.answers[case.id].reply) for case in every if case.id in measured.answers]
    known = prepared.contamination.seen
    done = [results.case_result(case, reply, score(case, reply.text), judged.get(case.id), known.get(case.id, "")) for case, reply in answered]
    overall = _rate(done, bars.overall_bar)
    # A kind that the training data has is a template; what the bars are held against is the rest.
    gated = [case for case in done if not case.seen] or done
    categories = results.rates(gated, "category", bars.category_bar)
    timing = results.latency(done, concurrency=bars.concurrency, wall_s=measured.wall_s, bar_ms=bars.mean_latency_bar_ms) if done else None
    comparison, compared_with = _compared(request, prepared.other, done)
    served_as = sorted({reply.served_model for _, reply in answered if reply.served_model})
    speculation = request.spec.serve.speculation
    not_measured = {"warmup_requests_not_measured": bars.warmup_requests, "deadline_s": bars.deadline_s, "unknown_training_data": request.unknown_training_data}
    return EvaluationResult(
        verdict=_verdict(request, prepared, measured, done, _rate(gated, bars.overall_bar), categories, timing),
        benchmark={
            "id": prepared.benchmark.id,
            "digest": prepared.benchmark.digest,
            "cases": len(every),
            "place": request.benchmark.name,
            "sampled": bars.max_cases,
        },
        model={"name": measured.shared.get("model"), "id": request.model_id, "served_as": served_as},
        settings={**measured.shared, **not_measured, "overall_bar": bars.overall_bar, "category_bar": bars.category_bar},
        served_with=served_with.told(reply.fingerprint for _, reply in answered if reply.came_back),
        overall=overall,
        unseen=_rate([case for case in done if not case.seen], bars.overall_bar),
        seen=_rate([case for case in done if case.seen], bars.overall_bar),
        categories=categories,
        difficulties=results.rates(done, "difficulty", bars.overall_bar),
        kinds=results.rates(done, "kind", bars.overall_bar),
        failures=results.failures(done),
        latency=timing,
        acceptance=acceptance(done, speculation.method if speculation else None),
        contamination=prepared.contamination,
        baselines=prepared.baselines,
        comparison=comparison,
        compared_with=compared_with,
        judge=measured.judgement,
        on_wordings=tuple(case.id for case in done if case.passed and case.worded and not (case.judged and case.judged.score is not None)),
        cases=tuple(done),
        started_at=started_at,
        finished_at=record.now(),
        code=record.code_version(),
        machine=record.machine(),
    )


def _rate(done: Sequence[CaseResult], bar: float) -> Rate | None:
    return judge_rate(sum(case.passed for case in done), len(done), bar) if done else None


def _verdict(
    request: Request,
    prepared: PreparedRun,
    measured: Measured,
    done: list[CaseResult],
    overall: Rate | None,
    categories: Mapping[str, Rate],
    timing: Latency | None,
) -> Verdict:
    if prepared.contamination.leaks:
        return contaminated(prepared.contamination)
    missing = len(prepared.benchmark.cases) - len(done)
    if missing or overall is None or timing is None:
        within = f"{request.spec.evaluate.deadline_s:g} s"
        return Verdict(
            outcome="incomplete", headline=f"{missing} of {len(prepared.benchmark.cases)} cases were not asked within {within}: the same command goes on"
        )
    if all(case.failure in ("error", "timeout") for case in done):
        return Verdict(outcome="incomplete", headline=f"not one of {len(done)} cases was answered: {done[0].error}")
    unknown = request.unknown_training_data
    verdict = decide(request.spec.evaluate, overall, categories, timing, prepared.contamination, prepared.baselines, unknown_training_data=unknown)
    if (alone := sum(case.passed and case.worded and case.judged is None for case in done)) and not measured.judgement:
        note = f"{alone} of {sum(case.passed for case in done)} passed cases rest on wordings alone; --judge-url lets a second model read them"
        verdict = verdict.model_copy(update={"reasons": (*verdict.reasons, note)})
    if measured.judgement and not measured.judgement.fit:
        note = f"the judge is not believed: {len(measured.judgement.fooled)} of {measured.judgement.injections} injected answers got marks from it"
        return verdict.model_copy(update={"reasons": (*verdict.reasons, note)})
    return verdict


def _compared(request: Request, other: EvaluationResult | None, done: list[CaseResult]) -> tuple[Comparison | None, dict[str, Any] | None]:
    """The earlier run, pair by pair, over the cases that both have in the same form."""
    if other is None:
        return None, None
    there = {case.id: case for case in other.cases}
    same = {case.id: case for case in done if case.id in there and there[case.id].digest == case.digest}
    changed = {name: [there[name].passed, case.passed] for name, case in same.items() if there[name].passed != case.passed}
    compared_with = {
        "folder": str(request.baseline),
        "model": other.model,
        "finished_at": other.finished_at,
        "only_there": sorted(there.keys() - same.keys()),
        "only_here": sorted({case.id for case in done} - same.keys()),
        "changed": changed,
        "answers": {name: there[name].answer for name in changed},
        "overall": other.overall.model_dump() if other.overall else None,
        "mean_latency_ms": other.latency.mean.mean if other.latency and other.latency.mean else None,
    }
    return compare({name: case.passed for name, case in same.items()}, {name: there[name].passed for name in same}), compared_with
