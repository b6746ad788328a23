"""Did training help, and what did quantizing cost? Base, tuned and quantized over the cases that all of them were asked: a section of the report."""

from __future__ import annotations

from collections.abc import Mapping

from runners.errors import UserError
from runners.evaluation.comparing import Difference, common, differences, mean_latency_ms
from runners.evaluation.results import EvaluationResult
from runners.pages import page
from runners.pages.page import Html, Status

_STATUS: dict[str, Status] = {"better": "good", "not shown": "warn", "worse": "bad"}


def compare(results: Mapping[str, EvaluationResult]) -> list[Difference] | str:
    """Tuned and quantized against the base, and quantized against tuned, by the names of ``results``; or why there is no comparison."""
    if len(results) < 2:
        return "base and tuned were not evaluated: evaluate.compared_cases is 0"
    names, runs = list(results), common(list(results.values()))
    pairs = [(names[place], names[0], runs[place], runs[0]) for place in range(1, len(names))]
    if len(names) > 2:
        pairs.append((names[-1], names[-2], runs[-1], runs[-2]))
    try:
        return [differences([other, this])[0].model_copy(update={"model": name, "against": against}) for name, against, this, other in pairs]
    except UserError as error:
        return error.found


def section(results: Mapping[str, EvaluationResult], found: list[Difference] | str) -> Html:
    """The verdicts first, then each model's figures, then every domain."""
    title = "Did training help?"
    if isinstance(found, str):
        return page.section(title, page.paragraph(f"Not compared: {found}."))
    runs = dict(zip(results, common(list(results.values())), strict=True))
    asked = len(next(iter(runs.values())).cases)
    verdicts = [
        (
            f"{one.model} against {one.against}",
            page.badge(one.verdict, _STATUS[one.verdict]),
            one.overall.only_this,
            one.overall.only_other,
            f"{one.overall.p_value:.3g}",
            f"{one.unseen.only_this} gained, {one.unseen.only_other} lost of {one.unseen.cases}",
        )
        for one in found
    ]
    figures = [
        ("cases passed", *(f"{sum(case.passed for case in run.cases)} of {asked}" for run in runs.values())),
        ("mean latency", *(f"{ms:,.0f} ms" if (ms := mean_latency_ms(run.cases)) is not None else None for run in runs.values())),
        ("cut off", *(sum(case.failure == "truncated" for case in run.cases) for run in runs.values())),
    ]
    domains = [
        (domain, *(f"{sum(passed)} of {len(passed)}" for run in runs.values() if (passed := [case.passed for case in run.cases if case.category == domain])))
        for domain in found[0].categories
    ]
    intro = (
        f"The same {asked} cases were asked of each model. The exact McNemar test at 5 % decides: with fewer than six cases changed, nothing can be shown. "
        "Latencies are those of this machine; a quantized model has no fast kernel on a CPU."
    )
    return page.section(
        title,
        page.table(("", "verdict", "gained", "lost", "p", "of unseen kinds"), verdicts),
        page.table(("", *runs), figures),
        page.details("By domain", page.table(("domain", *runs), domains)),
        intro=intro,
    )
