"""The report of a run: one page that shows what was trained on what, how it went, what it lost on the way, and what it can do.

Drawn from the records in the bucket, so the same page can be drawn for a run in the cloud.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from runners.artifacts import layout, registry, storage
from runners.artifacts.record import RECORD, Record, Stopwatch, now
from runners.artifacts.registry import Entry
from runners.evaluation import why
from runners.evaluation.comparing import common
from runners.evaluation.report import MEANING, all_cases, headline, sentence, side_by_side, whisker
from runners.evaluation.results import CaseResult, EvaluationResult
from runners.identity import model_name
from runners.local import comparison
from runners.pages import charts, page
from runners.pages.charts import Bar, Interval, Series, Span
from runners.pages.page import Html, Tile
from runners.pipeline import MAKERS
from runners.planning.machines import load_prices, machine
from runners.planning.plan import make_plan
from runners.planning.training import CorpusSize
from runners.spec import MachineSpec, Spec
from runners.training.shape import Shape

#: Cases whose answers are on the page as they are; the table has all.
SHOWN_ANSWERS = 10


def write(
    settings: Spec, run_id: str, served: Entry, by_model: Mapping[str, EvaluationResult], watch: Stopwatch, peak_mib: dict[str, float], base: Path, out: Path
) -> dict[str, Any]:
    """Write ``report.html`` and ``summary.json`` into ``out``; returns the summary. The last of ``by_model`` is what is served."""
    results = list(by_model.values())[-1]
    records = _records(settings)
    shape = Shape.of_config(json.loads((base / "config.json").read_text()), str(base / "config.json"))
    summary = _summary(settings, run_id, served, records, results, watch, peak_mib) | {"in_the_cloud": cloud_cost(settings, shape, records["train"], results)}
    compared = comparison.compare(by_model)
    summary["compared"] = compared if isinstance(compared, str) else [one.model_dump(mode="json") | {"sentence": one.sentence} for one in compared]
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    page.write(out / "report.html", document(settings, records, by_model, summary))
    return summary


def document(settings: Spec, records: dict[str, Record], by_model: Mapping[str, EvaluationResult], summary: dict[str, Any]) -> str:
    """The page."""
    results = list(by_model.values())[-1]
    sections = [
        _head(records, summary, by_model),
        _answers(by_model),
        comparison.section(by_model, comparison.compare(by_model)),
        _quality(results),
        _training(records["train"]),
        _gates(records),
        _time(summary),
        _lineage(settings, records, summary),
    ]
    return page.page(
        f"elson run {summary['run']}",
        sections,
        f"{summary['finished_at'][:16].replace('T', ' ')} UTC, profile {settings.profile}, served as {summary['served']}",
    )


def cloud_cost(settings: Spec, shape: Shape, trained: Record, results: EvaluationResult) -> dict[str, Any]:
    """What the same job would have cost in the cloud, by the planner: the training session on a spot H100, and the benchmark's time on an L4."""
    prices = load_prices()
    corpus = CorpusSize(
        trained.metrics["examples"], trained.metrics["tokens"] / max(1, trained.metrics["steps_done"]) / settings.train.batch_examples, "this run"
    )
    wanted = settings.model_copy(update={"machine": MachineSpec(machine_type="a3-highgpu-1g")})
    session = make_plan("train-h100", wanted, prices, shape=shape, corpus=corpus)
    serving = prices.of(machine("g2-standard-8"), "STANDARD")
    benchmark_s = results.latency.wall_s if results.latency else 0.0
    return {
        "session_s": round(session.expected_s),
        "session_usd": round(session.money.usd_expected, 2),
        "benchmark_usd": round(serving.usd_per_hour * benchmark_s / 3600, 4),
        "machines": "a3-highgpu-1g (spot), g2-standard-8",
        "prices_of": prices.as_of,
    }


def as_text(summary: dict[str, Any]) -> str:
    """The summary for a terminal: what was learned, what it cost in quality, the score with its meaning, where to look, what to do next."""
    train, gates, quality = summary["training"], summary["gates"], summary["evaluation"]
    failed = [gate for gate in gates if not gate["passed"]]
    missed = "".join(f"; {gate['stage']} {gate['name']} {gate['value']:.3g} ({gate['rule']} {gate['bound']:.3g})" for gate in failed)
    spent = sum(phase["seconds"] for phase in summary["phases"])
    peak = max(summary["peak_mib"].values(), default=0.0)
    skipped = f"; done before: {', '.join(summary['skipped'])}" if summary["skipped"] else ""
    lines = [
        f"learned   validation loss {train['before']:.3f} -> {train['after']:.3f} in {train['steps']} steps on {train['examples']} pairs",
        f"quality   {len(gates) - len(failed)} of {len(gates)} gates passed{missed}",
        f"score     {quality.get('sentence') or quality['line']}",
        f"          {MEANING.get(quality['outcome'], 'see the report')}",
        *(f"{head:10}{line}" for head, line in zip(("compared", "", ""), _compared(summary), strict=False)),
        f"took      {page.duration(spent)}, at most {peak / 1024:.1f} GiB{skipped}; in the cloud about ${summary['in_the_cloud']['session_usd']:.2f}",
        f"model     {summary['served']}",
        f"look      {summary['report']}",
        "          elson view --local: this run beside others, case by case",
        "next      elson run --keep-serving: ask the model yourself; elson plan -s train-h100: the same with a 14B model",
    ]
    return "\n".join(lines)


def _compared(summary: dict[str, Any]) -> list[str]:
    """The verdicts on the training, a line each."""
    found = summary["compared"]
    return [found] if isinstance(found, str) else [one["sentence"] for one in found]


def _records(settings: Spec) -> dict[str, Record]:
    """The record of each stage, from the bucket."""
    found = {}
    for stage in MAKERS:
        stored = storage.read_json(f"{layout.model(settings.buckets, model_name(settings, stage.name))}/{RECORD}")
        if stored:
            found[stage.name] = Record.model_validate(stored[0])
    return found


def _summary(
    settings: Spec, run_id: str, served: Entry, records: dict[str, Record], results: EvaluationResult, watch: Stopwatch, peak_mib: dict[str, float]
) -> dict[str, Any]:
    train = records["train"].metrics
    gates = [{"stage": stage, **gate.model_dump(), "passed": gate.passed} for stage, record in records.items() for gate in record.gates]
    return {
        "run": run_id,
        "served": served.name,
        "served_id": served.id,
        "dataset": settings.dataset.id,
        "base_model": settings.base_model.name,
        "finished_at": now(),
        "training": {
            "examples": train["examples"],
            "steps": train["steps_done"],
            "before": train["validation_loss_before"],
            "after": train["validation_loss_after"],
            "tokens_per_s": train["tokens_per_s"],
        },
        "gates": gates,
        "evaluation": {"line": results.line, "outcome": results.verdict.outcome, "sentence": sentence(results)},
        "phases": [phase.model_dump() for phase in watch.phases],
        "peak_mib": peak_mib,
        "bytes": {entry.name: entry.bytes for entry in registry.entries(settings.buckets)},
    }


def _head(records: dict[str, Record], summary: dict[str, Any], by_model: Mapping[str, EvaluationResult]) -> str:
    """Whether the run was good, why, and what it took."""
    results, total, cloud = list(by_model.values())[-1], sum(phase["seconds"] for phase in summary["phases"]), summary["in_the_cloud"]
    peak = max(summary["peak_mib"].values(), default=0.0)
    tiles = [
        Tile("Time", page.duration(total), "this run, without what was done already"),
        Tile("Most memory", f"{peak / 1024:.1f} GiB" if peak else None, "of the largest stage"),
        Tile(
            "In the cloud",
            f"${cloud['session_usd']:.2f}",
            f"planned: {page.duration(cloud['session_s'])} of {cloud['machines']}, prices of {cloud['prices_of']}",
        ),
        Tile("Served model", f"{summary['bytes'].get(summary['served'], 0) / 1e6:.0f} MB", summary["served"]),
    ]
    gates = [(stage, gate) for stage, record in records.items() for gate in record.gates]
    return page.section("Result", headline(results), why.section(summary["training"], gates, by_model), page.stat_tiles(tiles))


def _quality(results: EvaluationResult) -> str:
    rows = [
        Interval(name, rate.rate, *whisker(rate), "good" if rate.outcome == "passed" else "bad", f"{rate.passed} of {rate.cases}")
        for name, rate in ({"all": results.overall} | results.categories if results.overall else results.categories).items()
        if rate
    ]
    parts = [
        charts.interval_bars(rows, title="Benchmark cases passed, by category", limit=results.settings.get("category_bar"), limit_label="bar of a category")
    ]
    times = [case.latency_ms / 1000 for case in results.cases if case.failure != "error"]
    timing = results.latency
    if times and timing:
        marks = {name: value / 1000 for name, value in (("p50", timing.p50_ms), ("p95", timing.p95_ms)) if value is not None}
        parts.append(charts.histogram(times, title=f"Latency at concurrency {timing.concurrency}", x_label="seconds for a whole answer", marks=marks))
    baselines = [Bar(baseline.name, baseline.result.rate, "bad" if baseline.passes else "none") for baseline in results.baselines]
    if results.overall:
        parts.append(
            charts.bars(
                [Bar("the model", results.overall.rate, "info"), *baselines], title="Beside answers that need no model", maximum=1.0, written=charts.percent
            )
        )
    return page.section("Quality and latency", *parts)


def _answers(by_model: Mapping[str, EvaluationResult]) -> str:
    """Ten cases, as each model answered them: domains in turn, so that none is shown twice before all are shown once."""
    cases = {name: {case.id: case for case in found.cases} for name, found in by_model.items()}
    last = list(by_model.values())[-1]
    by_domain: dict[str, list[CaseResult]] = {}
    for case in common(list(by_model.values()))[-1].cases or last.cases:
        by_domain.setdefault(case.category, []).append(case)
    turns = [case for rank in itertools.zip_longest(*by_domain.values()) for case in rank if case]
    shown = [
        side_by_side(case, {name: found.get(case.id) for name, found in cases.items()}, is_open=place == 0) for place, case in enumerate(turns[:SHOWN_ANSWERS])
    ]
    intro = f"{len(shown)} of {len(last.cases)} cases, by domain in turn, answered by: {', '.join(by_model)}. Open one to read the answers."
    return Html(page.section("What the model says", *shown, intro=intro) + all_cases(last.cases))


def _training(record: Record) -> str:
    history, validation = record.metrics["history"], record.metrics["validation"]
    loss = charts.line_chart(
        [
            Series("training, each step", [(row["step"], row["loss"]) for row in history]),
            Series("validation", [(row["step"], row["loss"]) for row in validation], marks=True),
        ],
        title="Loss on the answers",
        x_label="optimizer step",
        y_label="nats per token",
    )
    rate = charts.line_chart(
        [Series("learning rate", [(row["step"], row["learning_rate"]) for row in history])], title="Learning rate", x_label="optimizer step", from_zero=True
    )
    speed = charts.line_chart(
        [Series("tokens per second", [(row["step"], row["tokens"] / row["seconds"]) for row in history if row["seconds"]])],
        title="Speed",
        x_label="optimizer step",
        y_label="tokens per second",
        from_zero=True,
    )
    metrics = {key: value for key, value in record.metrics.items() if isinstance(value, (int, float, str, bool))}
    return page.section("Training", loss, page.columns(rate, speed), page.details("All figures", page.facts(metrics)))


def _gates(records: dict[str, Record]) -> str:
    rows = [
        (
            page.badge("passed" if gate.passed else "failed", "good" if gate.passed else "bad"),
            stage,
            gate.name,
            f"{gate.value:.4g}",
            f"{gate.rule} {gate.bound:.4g}",
        )
        for stage, record in records.items()
        for gate in record.gates
    ]
    intro = (
        "Each step is held against the one before it on held-out text: the merge must say what the adapter said, 4 bits must stay close to the merged model. "
        "Questions outside finance show whether training cost general ability."
    )
    measured = [
        page.details(f"{stage}: all figures", page.facts({key: value for key, value in record.metrics.items() if isinstance(value, (int, float, str, bool))}))
        for stage, record in records.items()
        if stage != "train"
    ]
    return page.section("What merging and quantizing cost", page.table(("result", "stage", "measure", "value", "bound"), rows), *measured, intro=intro)


def _time(summary: dict[str, Any]) -> str:
    phases = summary["phases"]
    begin = datetime.fromisoformat(phases[0]["started_at"])
    spans = [Span(phase["name"], (datetime.fromisoformat(phase["started_at"]) - begin).total_seconds(), phase["seconds"]) for phase in phases]
    memory = [Bar(stage, value / 1024) for stage, value in summary["peak_mib"].items() if value]
    parts = [charts.timeline(spans, title="Phases")]
    if memory:
        parts.append(charts.bars(memory, title="Peak memory of each stage, GiB"))
    return page.section("Time and memory", *parts)


def _lineage(settings: Spec, records: dict[str, Record], summary: dict[str, Any]) -> str:
    rows: list[tuple[str | None, ...]] = [
        ("base model", settings.base_model.name, settings.base_model.id, ""),
        ("dataset", settings.dataset.name, settings.dataset.id, ""),
    ]
    rows += [(stage, record.name, record.id, ", ".join(f"{role} {parent}" for role, parent in record.parents.items())) for stage, record in records.items()]
    versions = {f"{stage}: {name}": version for stage, record in records.items() for name, version in record.packages.items()}
    code = next((record.code for record in records.values()), {})
    return page.section(
        "Lineage",
        page.table(("what", "name", "id", "made from"), rows),
        page.facts({"code": f"{code.get('commit')}{' with changes' if code.get('dirty') else ''}"}),
        page.details("Locks and images", page.facts({f"{stage}: {key}": value for stage, record in records.items() for key, value in _made_with(record)})),
        page.details("Packages", page.facts(versions)),
        page.details("The whole spec", page.code(json.dumps(settings.model_dump(mode="json"), indent=1))),
    )


def _made_with(record: Record) -> list[tuple[str, str]]:
    return [(key, str(record.code[key])) for key in ("code_digest", "lock", "lock_sha256", "image") if record.code.get(key)]
