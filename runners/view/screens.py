"""The pages of `elson view`: pure functions from what a bucket holds to markup. Each name in ``pages`` is one file of a static folder, too."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from runners.evaluation import statistics, why
from runners.evaluation.report import headline, side_by_side
from runners.evaluation.results import CaseResult, EvaluationResult
from runners.local import grid
from runners.pages import charts, lineage, page
from runners.pages.charts import Series, Span
from runners.pages.lineage import Node
from runners.pages.page import Html, Status, Tile
from runners.view.runs import VARIANTS, Bucket, RunView, SweepView

#: Runs that can be side by side: more do not fit a page, and colours are told apart up to six.
MOST_COMPARED = 6
_TRAINING = {"before": "validation_loss_before", "after": "validation_loss_after", "steps": "steps_done", "examples": "examples"}
_OUTCOME: dict[str, Status] = {"passed": "good", "not passed": "bad", "not shown": "warn", "contaminated": "bad", "unfit": "bad", "incomplete": "warn"}

_SWEPT: dict[str, Status] = {"done": "good", "failed": "bad", "to run": "none"}


def index(bucket: Bucket) -> str:
    """All runs, newest first."""
    rows = [_row(run) for run in bucket.runs]
    headers = ("", "run", "score", "loss", "gates", "finished", "took", "USD", "dataset", "")
    table = (
        page.table(headers, rows, search=len(rows) > 8, cards=True)
        if rows
        else page.paragraph("No run has published a model yet: elson run --profile local makes one.")
    )
    chosen = table
    if len(rows) > 1:
        pick = '<p class="pick" hidden><button type="button">Compare the chosen runs</button></p>'
        chosen = Html(f'<div data-pick="{MOST_COMPARED}">{table}{pick}</div>')
    parts = [page.section("Newest first", chosen)]
    if len(bucket.runs) > 1:
        parts.append(page.section("Training side by side", _losses(bucket.runs[:MOST_COMPARED])))
    if bucket.sweeps:
        swept = [
            (
                _link(f"sweep--{found.name}.html", found.name),
                sum(one.status == "done" for one in found.outcomes),
                len(found.outcomes),
                str(best.trial),
                best.after,
            )
            for found in bucket.sweeps
            if (best := found.outcomes[0])
        ]
        parts.append(page.section("Sweeps", page.table(("sweep", "done", "of", "best", "loss"), swept, cards=True)))
    if bucket.problems:
        parts.append(page.section("What could not be read", page.table(("problem",), [(problem,) for problem in bucket.problems])))
    return framed("Runs", parts, f"{len(bucket.runs)} in {bucket.where}", bucket)


def _row(run: RunView) -> tuple[Any, ...]:
    box = Html(f'<input type="checkbox" hidden value="{html.escape(run.id)}" aria-label="choose {html.escape(run.name)}">')
    before, after = run.training.get("validation_loss_before"), run.training.get("validation_loss_after")
    loss = f"{before:.3f} → {after:.3f}" if isinstance(before, float) and isinstance(after, float) else None
    failed = sum(not gate.passed for _, gate in run.gates)
    gates = page.badge(f"{len(run.gates) - failed} of {len(run.gates)}", "bad" if failed else "good") if run.gates else None
    found = run.result
    score = None
    if found and found.overall:
        interval = f"{charts.percent(found.overall.low)} to {charts.percent(found.overall.high)}"
        badge = page.badge(found.verdict.outcome, _OUTCOME[found.verdict.outcome])
        score = Html(f"{found.overall.passed} of {found.overall.cases} <small>({interval})</small> {badge}")
    note = page.badge("production", "info") if run.in_production else ""
    usd = None if run.usd is None else f"{run.usd:.2f}"
    dataset = _link(f"data--{run.dataset}.html", run.dataset.removeprefix("data-")[:12]) if run.dataset else None
    return (
        box,
        _link(f"run--{run.id}.html", run.name),
        score,
        loss,
        gates,
        run.finished_at[:16].replace("T", " "),
        page.duration(run.seconds),
        usd,
        dataset,
        note,
    )


def one(bucket: Bucket, run: RunView) -> str:
    """One run: what it learned, what it lost, what it scores, what it came from."""
    tiles = [
        Tile("Time", page.duration(run.seconds), "training, merging and quantizing"),
        Tile("Cost", "nothing" if run.usd is None else f"${run.usd:.2f}", "at home" if run.usd is None else "all stages, at list prices"),
    ]
    training = {name: run.training.get(key) for name, key in _TRAINING.items()}
    reasons = why.section(training, run.gates, run.results)
    said = headline(run.result) if run.result else page.banner("info", "Not evaluated: there is no score yet", "elson evaluate --registered NAME measures it.")
    for variant, found in run.results.items():
        if found.overall:
            interval = f"{charts.percent(found.overall.low)} to {charts.percent(found.overall.high)}"
            tiles.append(Tile(f"Score, {variant}", f"{found.overall.passed} of {found.overall.cases}", interval, _OUTCOME[found.verdict.outcome]))
    links = [_link(f"cases--{run.id}.html", "Every case and answer")] if run.results else []
    links += [_link(f"data--{run.dataset}.html", "The pairs it was trained on")] if run.dataset else []
    gates = [(_passed(passed=gate.passed), stage, gate.name, f"{gate.value:.4g}", f"{gate.rule} {gate.bound:.4g}") for stage, gate in run.gates]
    sections = [
        page.section("Result", said, reasons, Html(f"<p>{' · '.join(links)}</p>"), page.stat_tiles(tiles)),
        page.section("Lineage", lineage.drawing(_nodes(run), title="From data to dollars")),
        page.section("Training", _losses([run]), _speed(run)),
        page.section("Gates", page.table(("result", "stage", "measure", "value", "bound"), gates)),
        page.section("Time", charts.timeline(_spans(run), title="Phases of each stage")),
    ]
    if run.results:
        sections.append(page.section("Score by domain", _domains(run.results)))
    sections.append(page.section("Spec", page.details("Every setting", page.facts({key: str(value) for key, value in flat(run.spec).items()}))))
    return framed(run.name, sections, f"{run.id}, finished {run.finished_at[:16].replace('T', ' ')} UTC", bucket)


def sweep(bucket: Bucket, found: SweepView) -> str:
    """A sweep's trainings, the lowest held-out loss first, and the curves of the best."""
    headers, rows = grid.table(found.outcomes)
    runs = [bucket.run(one.id) for one in found.outcomes]
    cells = [
        (*row[:-1], page.badge(one.status, _SWEPT[one.status]), _link(f"run--{run.id}.html", run.name) if run else one.reason)
        for row, one, run in zip(rows, found.outcomes, runs, strict=True)
    ]
    remarks = [page.paragraph(f"{line[0].upper()}{line[1:]}.") for line in grid.remarks(found.outcomes)]
    sections = [page.section("Trainings", *remarks, page.table((*headers[:-1], "status", "run, or why there is none"), cells, cards=True))]
    if curves := [run for run in runs if run][:MOST_COMPARED]:
        sections.append(page.section("Losses", _losses(curves)))
    return framed(f"Sweep {found.name}", sections, "lowest held-out loss first", bucket)


def compare(bucket: Bucket, runs: list[RunView]) -> str:
    """Runs over each other: curves, what differs in the spec, what each case did."""
    names = [run.name for run in runs]
    specs = [flat(run.spec) for run in runs]
    keys = [key for key in dict.fromkeys(key for spec in specs for key in spec) if len({str(spec.get(key)) for spec in specs}) > 1]
    differs = (
        page.table(("setting", *names), [(key, *(str(spec.get(key, "–")) for spec in specs)) for key in keys], cards=True)
        if keys
        else page.paragraph("The same spec.")
    )
    figures = [
        ("validation loss before", *(run.training.get("validation_loss_before") for run in runs)),
        ("validation loss after", *(run.training.get("validation_loss_after") for run in runs)),
        ("optimizer steps", *(run.training.get("steps_done") for run in runs)),
        ("gates failed", *(sum(not gate.passed for _, gate in run.gates) for run in runs)),
        ("cases passed", *(f"{r.overall.passed} of {r.overall.cases}" if (r := run.result) and r.overall else None for run in runs)),
        ("mean latency, ms", *(round(r.latency.mean.mean) if (r := run.result) and r.latency and r.latency.mean else None for run in runs)),
        ("USD", *(run.usd for run in runs)),
        ("took", *(page.duration(run.seconds) for run in runs)),
    ]
    sections = [
        page.section("Beside each other", page.table(("", *names), figures)),
        page.section("What differs in the spec", differs),
        page.section("Losses", _losses(runs)),
    ]
    measured = [(run, result) for run in runs if (result := run.result)]
    if len(measured) > 1:
        sections.append(_case_by_case(measured))
    return framed("Runs side by side", sections, ", ".join(names), bucket)


def _case_by_case(measured: list[tuple[RunView, EvaluationResult]]) -> Html:
    first, *others = measured
    verdicts = []
    for run, result in others:
        before = {case.id + case.digest: case.passed for case in first[1].cases}
        counted = statistics.compare({case.id + case.digest: case.passed for case in result.cases}, before)
        if counted.cases:
            verdicts.append(page.paragraph(f"{run.name} against {first[0].name}: {counted.sentence}"))
    by_case = [{case.id: case for case in result.cases} for _, result in measured]
    ids = [case_id for case_id in by_case[0] if all(case_id in cases for cases in by_case)]
    rows = [
        (case_id, by_case[0][case_id].category, *(_passed(passed=cases[case_id].passed) for cases in by_case), by_case[0][case_id].question)
        for case_id in ids
        if len({cases[case_id].passed for cases in by_case}) > 1
    ]
    table = (
        page.table(("case", "domain", *(run.name for run, _ in measured), "question"), rows, search=len(rows) > 8)
        if rows
        else page.paragraph("No case differs.")
    )
    return page.section("Case by case", *verdicts, table, intro=f"{len(ids)} cases were asked of all; those that came out differently:")


def cases(bucket: Bucket, run: RunView) -> str:
    """Every case with the answers of the base, the tuned and the quantized model, and each check with its place in the answer."""
    variants = [name for name in VARIANTS if name in run.results]
    by_variant = {name: {case.id: case for case in run.results[name].cases} for name in variants}
    shown = variants[-1] if variants else ""
    items = [(_attributes(case), side_by_side(case, {name: by_variant[name].get(case.id) for name in variants})) for case in by_variant.get(shown, {}).values()]
    body = page.filtered(items, label="cases") if items else page.paragraph("Nothing was evaluated.")
    return framed("Cases", [page.section("Questions and answers", body)], f"{run.name}: {', '.join(variants)}", bucket, back=(f"run--{run.id}.html", run.name))


def _attributes(case: CaseResult) -> dict[str, str]:
    return {"domain": case.category, "outcome": "passed" if case.passed else case.failure or "failed", "kind": case.kind, "difficulty": case.difficulty}


def dataset(bucket: Bucket, dataset_id: str, rows: list[dict[str, Any]]) -> str:
    """The pairs of a dataset."""
    items = [
        (
            {"domain": str(row.get("category", "")), "split": str(row.get("split", "")), "source": str(row.get("source", ""))},
            page.details(row.get("question", ""), page.paragraph(row.get("answer", "")), kind="case"),
        )
        for row in rows
    ]
    return framed("Pairs", [page.section("Questions and answers", page.filtered(items, label="pairs"))], f"{len(rows):,} pairs of {dataset_id}", bucket)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names, for a table of what differs."""
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def _nodes(run: RunView) -> list[Node]:
    spec = run.spec
    base, data = spec.get("base_model", {}), spec.get("dataset", {})
    nodes = [
        Node("base model", str(base.get("name", "?")), (_short(str(base.get("id", ""))),)),
        Node("dataset", str(data.get("name", "?")), (_short(run.dataset),)),
    ]
    previous: tuple[int, ...] = (0, 1)
    for stage, record in run.records.items():
        failed = any(not gate.passed for gate in record.gates)
        took = page.duration(sum(phase.seconds for phase in record.phases))
        usd = f", ${record.cost.usd:.2f}" if record.cost else ""
        nodes.append(
            Node(stage, record.name or record.id, (_short(record.id), f"{took}{usd}"), previous, "bad" if failed else "good" if record.gates else "none")
        )
        previous = (len(nodes) - 1,)
    found = run.result
    if found and found.overall:
        nodes.append(
            Node("evaluation", f"{found.overall.passed} of {found.overall.cases}", (found.verdict.outcome,), previous, _OUTCOME[found.verdict.outcome])
        )
        previous = (len(nodes) - 1,)
    nodes.append(Node("together", "at home" if run.usd is None else f"${run.usd:.2f}", (page.duration(run.seconds),), previous))
    return nodes


def _short(content_id: str) -> str:
    """An id with twelve of its digits, as many as tell any two apart."""
    kind, dash, digits = content_id.rpartition("-")
    return f"{kind}{dash}{digits[:12]}"


def _losses(runs: list[RunView] | tuple[RunView, ...]) -> Html:
    series = []
    for run in runs:
        if len(runs) == 1:
            series.append(Series("training, each step", [(row["step"], row["loss"]) for row in run.training.get("history", ())]))
        name = "validation" if len(runs) == 1 else run.name
        series.append(Series(name, [(row["step"], row["loss"]) for row in run.training.get("validation", ())], marks=True))
    title = "Loss on the answers" if len(runs) == 1 else "Validation loss"
    return charts.line_chart(series, title=title, x_label="optimizer step", y_label="nats per token")


def _speed(run: RunView) -> Html:
    history = [(row["step"], row["tokens"] / row["seconds"]) for row in run.training.get("history", ()) if row.get("seconds")]
    return charts.line_chart([Series("tokens per second", history)], title="Speed", x_label="optimizer step", y_label="tokens per second", from_zero=True)


def _spans(run: RunView) -> list[Span]:
    from datetime import datetime

    phases = [(stage, phase) for stage, record in run.records.items() for phase in record.phases]
    if not phases:
        return []
    spans, offset = [], 0.0
    for stage, phase in sorted(phases, key=lambda item: datetime.fromisoformat(item[1].started_at)):
        # Stages may run days apart: only the time that was spent is drawn.
        spans.append(Span(f"{stage}: {phase.name}", offset, phase.seconds))
        offset += phase.seconds
    return spans


def _domains(results: Mapping[str, EvaluationResult]) -> Html:
    rows = [
        (name, *(f"{rate.passed} of {rate.cases}" if (rate := found.categories.get(name)) else None for found in results.values()))
        for name in dict.fromkeys(name for found in results.values() for name in found.categories)
    ]
    return page.table(("domain", *results), rows)


def _passed(*, passed: bool) -> Html:
    return page.badge("passed", "good") if passed else page.badge("failed", "bad")


def _link(target: str, name: str) -> Html:
    return Html(f'<a href="{html.escape(target)}">{html.escape(name)}</a>')


def framed(title: str, sections: list[Html], subtitle: str, bucket: Bucket, *, back: tuple[str, str] | None = None, refresh_s: int = 0) -> str:
    """A page with the way to the others above it."""
    links = [_link("index.html", "Runs")]
    links += [_link("live.html", "Under way" if bucket.holder else "The last log")] if bucket.under_way else []
    links += [_link("jobs.html", "Machines")] if bucket.jobs else []
    links += [_link(*back)] if back else []
    above = f'<nav aria-label="Pages">{"".join(links)}</nav>' if len(links) > 1 or title != "Runs" else ""
    return page.page(title, sections, subtitle, above=above, refresh_s=refresh_s)
