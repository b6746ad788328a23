"""``elson evaluate``: measure a served model, import an old benchmark, export results to another tool's format."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runners import log, outside
from runners.commands.places import Place, place_options
from runners.errors import CannotMeasure, UserError

if TYPE_CHECKING:
    from runners.evaluation.assemble import PreparedRun, Request
    from runners.spec import Spec

KEY_VARIABLE, JUDGE_KEY_VARIABLE = "ELSON_API_KEY", "ELSON_JUDGE_API_KEY"


@click.group(invoke_without_command=True)
@click.option("--api-url", help="Any OpenAI-compatible server, e.g. http://127.0.0.1:8000.")
@click.option("--benchmark", type=click.Path(path_type=Path), help="File or folder of cases; left out, the spec's.")
@click.option("--dataset", help="What the model was trained on: a folder, a JSON file of pairs, a dataset id, or 'none' when nobody knows.")
@click.option("--registered", default="production", show_default=True, help="Registry name of the served model; its lineage names the dataset.")
@click.option("--model", help="Name the server serves it under; left out, the spec's or the only one.")
@click.option("--spec", "spec_file", help="Spec with bars and prompt: a file, a gs:// URI, or a profile's name.")
@click.option("--concurrency", type=click.IntRange(1), help="Requests at a time.")
@click.option("--max-cases", type=click.IntRange(1), help="Only the first so many cases of each category.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of this run; left out, one below .elson/evaluations.")
@click.option("--fresh", is_flag=True, help="Throw an earlier run in --out away instead of going on with it.")
@click.option("--baseline", type=click.Path(exists=True, path_type=Path), help="Folder of an earlier run to compare with, case by case.")
@click.option("--api-key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=f"File with the key; left out, ${KEY_VARIABLE}.")
@click.option("--judge-url", help="OpenAI-compatible server of a judge, another model than the one tested.")
@click.option("--judge-model", help="The judge's served name.")
@click.option("--dry-run", is_flag=True, help="Check the cases, say what the run would take, ask nothing.")
@click.option("--usd-per-hour", type=float, help="Price of the serving machine, for --dry-run (`elson plan` knows it).")
@click.option("--json", "as_json", is_flag=True, help="Print the results as data.")
@place_options
@click.pass_context
def evaluate(ctx: click.Context, /, place: Place, **options: Any) -> None:
    """Measure a served model on the benchmark: quality with intervals, latency, and a verdict.

    Exit codes: 0 every bar held, 1 one did not or the sample cannot show it, 2 it could not be measured (no server, a contaminated
    or unfit benchmark, the deadline). An interrupted run goes on at the next case when the command is repeated.

    \b
    Examples:
      elson evaluate --api-url http://127.0.0.1:8000 --dataset .elson/local/work/dataset
      elson evaluate --api-url https://elson.example.org --registered wealth-dora-elson14b-h100-v2 --concurrency 8
      elson evaluate --dry-run --dataset none
      elson evaluate --api-url http://127.0.0.1:8000 --dataset none --baseline .elson/evaluations/0123456789abcdef-1
    """
    if ctx.invoked_subcommand is not None:
        return
    log.configure("evaluate")
    try:
        sys.exit(_evaluate(place, **options))
    except CannotMeasure:
        raise
    except UserError as error:
        raise CannotMeasure(error.found, error.expected, error.fix) from None


@evaluate.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--map", "columns", multiple=True, metavar="OURS=THEIRS", help="A column by another name, e.g. question=Prompt. May be repeated.")
def import_(file: Path, columns: tuple[str, ...]) -> None:
    """Convert other people's benchmarks; prints YAML, marks what a person should sharpen.

    Reads FinQA, TAT-QA, FinanceBench, MMLU-style choices, lists of keywords, and any JSON, JSON lines or CSV with columns that --map names
    (question, answer, choices, category, difficulty, id, passage).

    \b
    Examples:
      elson evaluate import evaluation_benchmark.json > imported.yaml
      elson evaluate import questions.csv --map question=Prompt --map answer=Gold > imported.yaml
    """
    import yaml

    from runners.evaluation.importer import convert

    pairs = [column.split("=", 1) for column in columns]
    if wrong := [column for column, pair in zip(columns, pairs, strict=True) if len(pair) != 2]:
        raise UserError(f"--map {wrong[0]!r} has no =", "--map OURS=THEIRS", "e.g. --map question=Prompt")
    made = convert(file, {theirs: ours for ours, theirs in pairs})
    click.echo(yaml.safe_dump({"version": 1, "cases": made.cases}, sort_keys=False, allow_unicode=True, width=140), nl=False)
    for problem in made.problems:
        log.warning("left out", because=problem)
    log.event(f"{len(made.cases)} cases imported, {len(made.problems)} left out; {made.marked} have marks under `sharpen` for a person to work off")


@evaluate.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File to write; left out, inspect/ below the run's folder.")
def export(run: Path, out: Path | None) -> None:
    """Write a run as an Inspect AI log, for `inspect view` and its data frames.

    \b
    Examples:
      elson evaluate export .elson/evaluations/0123456789abcdef-1
      inspect view --log-dir .elson/evaluations/0123456789abcdef-1/inspect
    """
    from runners.evaluation.exporter import file_name, inspect_log
    from runners.evaluation.run import read

    found = read(run)
    target = out or (run if run.is_dir() else run.parent) / "inspect" / file_name(found)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(inspect_log(found), indent=1, ensure_ascii=False))
    click.echo(str(target))


def _evaluate(place: Place, **options: Any) -> int:
    from runners.evaluation.assemble import Request
    from runners.evaluation.run import perform, prepare, throw_away

    spec = _spec(options)
    url = options["api_url"] or ("" if options["dry_run"] else _missing("--api-url"))
    benchmark = options["benchmark"] or Path(spec.evaluate.benchmark)
    try:
        dataset, model_id, unknown = _dataset(place, options["dataset"], options["registered"])
        if options["dataset"] and options["registered"] != "production":
            model_id = _registered(place, options["registered"])
    except UserError as error:
        if options["dataset"] or not options["dry_run"]:
            ways = "" if options["dataset"] else "; or --dataset DIR; or --dataset none, to measure without the contamination check"
            raise UserError(error.found, error.expected, error.fix + ways) from None
        log.warning("the training data is not known here, so the plan leaves the contamination check out", because=error.found.splitlines()[0])
        dataset, model_id, unknown = None, None, True
    key = outside.text(options["api_key_file"], "a file with the key").strip() if options["api_key_file"] else os.environ.get(KEY_VARIABLE)
    out = options["out"] or _folder(spec, url, benchmark, options["model"])
    request = Request(spec, url, key, benchmark, dataset, out, options["model"], model_id, options["baseline"], os.environ.get(JUDGE_KEY_VARIABLE), unknown)
    if options["dry_run"]:
        _say_plan(request, prepare(request), options["usd_per_hour"], options["as_json"])
        return 0
    if options["fresh"]:
        throw_away(out)
    found = perform(request)
    if options["as_json"]:
        click.echo(found.model_dump_json(indent=1))
    else:
        click.echo(found.line)
        click.echo(f"report: {out / 'report.html'}")
    return found.verdict.exit_code


def _missing(option: str) -> str:
    raise UserError(f"{option} is missing", "the address of a running server", f"elson evaluate {option} http://127.0.0.1:8000, or --dry-run")


def _spec(options: dict[str, Any]) -> Spec:
    """The spec with what the command line changes."""
    from runners.spec import JudgeSpec, Spec, load

    named = options["spec_file"]
    if named is None:
        spec = Spec()
    elif named.startswith("gs://") or Path(named).exists():
        from runners.stages import load_spec

        spec = load_spec(named)
    else:
        spec = load(Path(__file__).resolve().parents[1] / "profiles" / f"{named}.yaml")
    changes: dict[str, Any] = {name: options[name] for name in ("concurrency", "max_cases") if options[name]}
    if bool(options["judge_url"]) != bool(options["judge_model"]):
        raise UserError("--judge-url and --judge-model go together", "both or none", "pass both")
    if options["judge_url"]:
        changes["judge"] = JudgeSpec(api_url=options["judge_url"], model=options["judge_model"])
    return spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update=changes)})


def _dataset(place: Place, named: str | None, registered: str) -> tuple[Path | None, str | None, bool]:
    """(folder or file of the training data, registry id of the served model, whether the user says that the data is unknown)."""
    if named == "none":
        return None, None, True
    if named and Path(named).exists():
        return Path(named), None, False
    from runners.artifacts import fetch, registry

    with place.open(reads_only=True) as buckets:
        model_id = None
        if named and re.fullmatch(r"data-[0-9a-f]{16}", named):
            dataset = named
        elif named:
            dataset = registry.usable(buckets, named).id
        else:
            entry = registry.to_serve(buckets, registered)
            model_id = entry.id
            if "dataset" not in entry.parents:
                fix = "pass --dataset DIR, or --dataset none to measure without that check"
                raise UserError(f"the lineage of {entry.name} names no dataset", "the data it was trained on, to check for contamination", fix)
            dataset = entry.parents["dataset"]
        folder = Path(".elson") / "evaluations" / "datasets" / dataset
        fetch.download_dataset(buckets, dataset, folder)
    return folder, model_id, False


def _registered(place: Place, registered: str) -> str:
    """The id of a published name."""
    from runners.artifacts import registry

    with place.open(reads_only=True) as buckets:
        return registry.usable(buckets, registered).id


def _folder(spec: Spec, url: str, benchmark: Path, model: str | None) -> Path:
    """Where this run belongs: an interrupted one with the same request, else a new folder."""
    from runners.evaluation.store import RESULTS
    from runners.outside import digest

    name = digest([url, str(benchmark.resolve()), model, spec.evaluate.model_dump(mode="json")])
    number = 1
    while True:
        folder = Path(".elson") / "evaluations" / f"{name}-{number}"
        if not (folder / RESULTS).exists() or json.loads((folder / RESULTS).read_text())["verdict"]["outcome"] == "incomplete":
            return folder
        number += 1


def _say_plan(request: Request, prepared: PreparedRun, usd_per_hour: float | None, as_json: bool) -> None:
    """What a run would ask and take."""
    bars, cases = request.spec.evaluate, prepared.benchmark.cases
    characters = sum(len(request.spec.chat.system_prompt) + len(case.prompt) + sum(len(turn.content) for turn in case.history) for case in cases)
    hours = len(cases) / bars.concurrency * bars.mean_latency_bar_ms / 3.6e6
    plan: dict[str, Any] = {
        "benchmark": prepared.benchmark.digest,
        "cases": len(cases),
        "by_category": dict(Counter(str(case.category) for case in cases)),
        "by_difficulty": dict(Counter(case.difficulty for case in cases)),
        "by_kind": dict(Counter(case.kind for case in cases)),
        "checks": sum(len(case.checks) for case in cases),
        "to_sharpen": sum(bool(case.sharpen) for case in cases),
        "requests": len(cases) + bars.warmup_requests,
        "prompt_tokens_about": round(characters / 4),
        "completion_tokens_at_most": len(cases) * bars.max_tokens,
        "minutes_at_the_latency_bar": round(hours * 60, 2),
        "minutes_at_most": round(bars.deadline_s / 60, 1),
        "usd_at_the_latency_bar": None if usd_per_hour is None else round(hours * usd_per_hour, 4),
        "usd_at_most": None if usd_per_hour is None else round(bars.deadline_s / 3600 * usd_per_hour, 4),
        "contaminated_cases": prepared.contamination.leaked if prepared.contamination.pairs else None,
        "baselines": {baseline.name: baseline.result.passed for baseline in prepared.baselines},
        "fit": not any(baseline.passes for baseline in prepared.baselines) and not prepared.contamination.leaks,
    }
    if as_json:
        click.echo(json.dumps(plan, indent=1))
        return
    for key, value in plan.items():
        shown = ", ".join(f"{name} {count}" for name, count in value.items()) if isinstance(value, dict) else "unknown" if value is None else value
        click.echo(f"{key.replace('_', ' '):28} {shown}")
