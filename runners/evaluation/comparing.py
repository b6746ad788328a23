"""Runs of several models on the same cases, and what the difference shows: better, not shown, or worse.

The first run is the one that the others are held against: base, then tuned, then quantized. Cases that both runs asked in the same form are paired, and the
exact McNemar test at 5 % decides. Left out: a verdict per domain, because 18 tests of a few cases each would find a difference by chance.

    elson compare .elson/evaluations/BASE .elson/evaluations/TUNED
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from runners.artifacts.registry import Entry
from runners.errors import UserError
from runners.evaluation.results import CaseResult, EvaluationResult
from runners.evaluation.statistics import Comparison, compare, net_loss
from runners.fields import Strict

LEVEL = 0.05
#: A run with an fp8 cache may lose so many of the cases, by the upper end of the 95 % interval. The benchmark's 100 cases can show this while no more than ten
#: change each way; half of it would need more than 300.
MOST_LOST = 0.10
#: What decides an answer, besides the model and its server.
_DECIDES = ("max_tokens", "temperature", "seed", "system_prompt")
#: A run with one of these outcomes measured nothing.
_NOT_MEASURED = ("contaminated", "unfit", "incomplete")


class Difference(Strict):
    """One run against the first: pairs of cases over all, of unseen kinds, and by domain; mean latencies in ms."""

    model: str
    against: str
    verdict: Literal["better", "not shown", "worse"]
    overall: Comparison
    unseen: Comparison
    categories: dict[str, Comparison]
    latency_ms: float | None
    latency_ms_against: float | None

    @property
    def sentence(self) -> str:
        """One line for people."""
        change = f"{self.overall.only_this} gained, {self.overall.only_other} lost of {self.overall.cases} cases, exact McNemar p = {self.overall.p_value:.3g}"
        return f"{self.model} against {self.against}: {self.verdict} ({change})"


def differences(runs: Sequence[EvaluationResult]) -> list[Difference]:
    """Each later run against the first. Raises UserError for runs that measured nothing or that asked other cases."""
    for run in runs:
        if run.verdict.outcome in _NOT_MEASURED:
            raise UserError(f"the run of {name(run)} is {run.verdict.outcome}", "a run that measured its model", "repeat `elson evaluate` for it")
    return [_difference(run, runs[0]) for run in runs[1:]]


def common(runs: Sequence[EvaluationResult]) -> list[EvaluationResult]:
    """The runs with only the cases that all of them asked in the same form; their rates stay those of all their cases."""
    shared = set.intersection(*({(case.id, case.digest) for case in run.cases} for run in runs))
    return [run.model_copy(update={"cases": tuple(case for case in run.cases if (case.id, case.digest) in shared)}) for run in runs]


def mean_latency_ms(cases: Sequence[CaseResult]) -> float | None:
    """Over the answers that came back or ran into the time limit; None without any."""
    timed = [case.latency_ms for case in cases if case.failure != "error"]
    return fmean(timed) if timed else None


def name(run: EvaluationResult) -> str:
    """What a run's model is called."""
    return str(run.model.get("id") or run.model.get("name") or "a model")


def _difference(this: EvaluationResult, other: EvaluationResult) -> Difference:
    there = {case.id: case for case in other.cases}
    cases = [case for case in this.cases if case.id in there and there[case.id].digest == case.digest]
    if len(cases) < len(this.cases) or len(cases) < len(other.cases):
        counts = f"{len(cases)} of {len(this.cases)} and {len(other.cases)} cases are the same"
        raise UserError(f"the runs asked other cases: {counts}", "runs on one version of the benchmark, whole", "evaluate both on the same --benchmark")

    def over(chosen: Sequence[str]) -> Comparison:
        wanted = set(chosen)
        return compare({c.id: c.passed for c in cases if c.id in wanted}, {c.id: there[c.id].passed for c in cases if c.id in wanted})

    overall = over([case.id for case in cases])
    verdict: Literal["better", "not shown", "worse"] = "not shown"
    if overall.p_value < LEVEL:
        verdict = "better" if overall.only_this > overall.only_other else "worse"
    return Difference(
        model=name(this),
        against=name(other),
        verdict=verdict,
        overall=overall,
        unseen=over([case.id for case in cases if not case.seen and not there[case.id].seen]),
        categories={category: over([case.id for case in cases if case.category == category]) for category in dict.fromkeys(case.category for case in cases)},
        latency_ms=mean_latency_ms(cases),
        latency_ms_against=mean_latency_ms(other.cases),
    )


def table(runs: Sequence[EvaluationResult], found: Sequence[Difference]) -> list[str]:
    """Lines for a terminal: a column a run, a row a domain, then the verdicts."""
    titles = [name(run)[:28] for run in runs]
    rows = [("cases passed", *(f"{run.overall.passed} of {run.overall.cases}" if run.overall else "none" for run in runs))]
    rows += [("of unseen kinds", *(f"{run.unseen.passed} of {run.unseen.cases}" if run.unseen else "none" for run in runs))]
    for category in dict.fromkeys(case.category for case in runs[0].cases):
        asked = [[case.passed for case in run.cases if case.category == category] for run in runs]
        rows.append((category, *(f"{sum(passed)} of {len(passed)}" for passed in asked)))
    rows.append(("mean latency", *(f"{run.latency.mean.mean:,.0f} ms" if run.latency and run.latency.mean else "none" for run in runs)))
    widths = [max(len(row[place]) for row in [("", *titles), *rows]) for place in range(len(runs) + 1)]
    lines = [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [("", *titles), *rows]]
    return [*lines, *(difference.sentence for difference in found)]


def shown_better(entry: Entry, base: EvaluationResult, tuned: EvaluationResult) -> Difference:
    """The difference that lets a model be promoted. Raises UserError when the runs are of other models, or do not show it to be better than its base."""
    wanted = entry.parents.get("base_model", "")
    for run, model, role in ((base, wanted, "its base model"), (tuned, entry.id, entry.name)):
        if run.model.get("id") != model:
            fix = "elson evaluate --registered NAME for both, base first; --dataset names what the tuned model was trained on"
            raise UserError(f"the run of {role} is of {run.model.get('id')}", f"a run of {model}", fix)
    (found,) = differences([base, tuned])
    if found.verdict != "better":
        raise UserError(found.sentence, "a model that is shown better than its base", "train on more or other data, or promote it with --anyway")
    return found


def cache_kept(entry: Entry, auto: EvaluationResult, fp8: EvaluationResult) -> str:
    """One line on why a model may be served with an fp8 cache: by two runs that differ in the cache alone.

    Raises UserError when the runs are of another model, when their servers did not say that they ran with `auto` and with `fp8`, when the second run is
    shown worse, and when it has too few cases to rule out a loss of ``MOST_LOST``.
    """
    for run, dtype in ((auto, "auto"), (fp8, "fp8")):
        if run.model.get("id") != entry.id:
            fix = "elson evaluate --registered NAME --dataset DATASET, of a server of each kind"
            raise UserError(f"the run with {dtype} is of {run.model.get('id')}", f"a run of {entry.id}", fix)
        said = run.served_with.kv_cache_dtype if run.served_with else "nothing, or several things"
        if said != dtype:
            fix = f"serve it by its name with serve.kv_cache_dtype: {dtype}, and evaluate that server; the run with auto comes first"
            raise UserError(f"the server of the run with {dtype} said of its cache: {said}", f"answers that all say kv_cache_dtype={dtype}", fix)
    if other := [name for name in _DECIDES if auto.settings.get(name) != fp8.settings.get(name)]:
        raise UserError(f"the runs differ in {', '.join(other)}, too", "runs that differ in the cache alone", "evaluate both with the same --spec")
    (found,) = differences([auto, fp8])
    most = net_loss(found.overall)[1]
    line = f"{entry.name} with an fp8 cache against auto: {found.overall.sentence}; at most {most:.1%} of the cases lost (95 % interval)"
    if found.verdict == "worse" or most > MOST_LOST:
        fix = "serve.kv_cache_dtype: auto" + ("" if found.verdict == "worse" else "; or evaluate both on more cases")
        raise UserError(line, f"no loss shown, and one above {MOST_LOST:.0%} of the cases ruled out", fix)
    return line
