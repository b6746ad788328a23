"""``elson data``: from sources to a dataset, and what is known about it."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import click

from runners import log, outside
from runners.commands.cli import AS_JSON, CommandGroup, print_json
from runners.commands.places import Place, place_options
from runners.errors import UserError
from runners.spec import Spec, load, parse


@click.group(cls=CommandGroup)
def data() -> None:
    """Build, check and describe datasets.

    \b
    Examples:
      elson data build --out .elson/dataset
      elson data build --publish --local
      elson data check
    """


def _spec(file: Path | None, changes: dict[str, Any]) -> Spec:
    base = load(file) if file else Spec()
    return parse(base.model_dump() | {"data": base.data.model_dump() | {key: value for key, value in changes.items() if value is not None}})


def _named(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE options as a mapping."""
    split = [value.rpartition("=") for value in values]
    if wrong := [value for value, (name, mark, target) in zip(values, split, strict=True) if not (name and mark and target)]:
        raise UserError(f"{parameter.opts[0]} {wrong[0]!r}", "NAME=VALUE", "for example --field Prompt=question")
    return {name: target for name, _, target in split}


_SOURCE_OPTIONS = (
    click.argument("paths", nargs=-1),
    click.option("--field", "fields", multiple=True, callback=_named, metavar="NAME=OURS", help="A column of PATHS that is question, answer, category, …"),
    click.option("--category", help="Category of every pair in PATHS."),
    click.option("--any-category", is_flag=True, help="Keep categories that are none of the 18 domains."),
    click.option("--encoding", help="Encoding of text files in PATHS, for example cp1252. Default: a byte order mark, or UTF-8."),
    click.option("--split", help="Only this split of a Hugging Face datasets folder."),
    click.option("--licence", default="unknown", show_default=True, help="Licence of PATHS, carried into the dataset."),
)


def source_options(command: Any) -> Any:
    """PATHS to read instead of a sources file, and how."""
    for option in reversed(_SOURCE_OPTIONS):
        command = option(command)
    return command


def _given(root: Path, paths: tuple[str, ...], any_category: bool, **options: Any) -> Any:
    """The sources that PATHS make, or None for those of the sources file."""
    from runners.corpus import sources

    if not paths:
        if used := [f"--{name}" for name, value in options.items() if value and name != "licence"]:
            raise UserError(f"{', '.join(used)} without PATHS", "files or folders to read", "name them, or put the setting into the sources file")
        return None
    named = [path if path.startswith("gs://") else sources.shown(Path(path).resolve(), root.resolve(), whole=True) for path in paths]
    return sources.given(named, categories="any" if any_category else "domains", **options)


@data.command()
@source_options
@click.option("--out", type=click.Path(path_type=Path), default=Path(".elson/dataset"), show_default=True, help="The dataset's folder.")
@click.option("--spec", "spec_file", type=click.Path(path_type=Path), help="Settings other than the defaults (the `data` part counts).")
@click.option("--root", type=click.Path(path_type=Path), default=Path(), help="What relative paths are relative to. Default: here.")
@click.option("--sources", help="Another sources file.")
@click.option("--benchmark", help="Another benchmark file or folder.")
@click.option("--drop-leaks", is_flag=True, help="Drop pairs whose question is in the benchmark, instead of refusing.")
@click.option("--drop-junk", is_flag=True, help="Drop pairs with a finding that refuses a build beyond its share (data.refuse_beyond).")
@click.option("--publish", is_flag=True, help="Publish it to the bucket as well.")
@click.option("--name", help="Name to publish under. Default: the spec's dataset name.")
@click.option("--tasks", type=int, help="Build as so many datatrove tasks that can be resumed; see --work, --workers, --slurm.")
@click.option(
    "--work", default=".elson/cluster", show_default=True, help="Folder where the tasks meet: on a disk that all of them reach, or gs://bucket/folder."
)
@click.option("--workers", type=int, default=2, show_default=True, help="Tasks at a time on this machine.")
@click.option("--slurm", metavar="PARTITION", help="Submit the tasks to Slurm; the same command without it finishes the dataset.")
@AS_JSON
@place_options
def build(
    out: Path,
    spec_file: Path | None,
    root: Path,
    sources: str | None,
    benchmark: str | None,
    drop_leaks: bool,
    drop_junk: bool,
    publish: bool,
    name: str | None,
    tasks: int | None,
    work: str,
    workers: int,
    slurm: str | None,
    as_json: bool,
    place: Place,
    **given: Any,
) -> None:
    """Make a dataset from the sources in data/sources.yaml, or from the files and folders at PATHS.

    \b
    Examples:
      elson data build
      elson data build --drop-leaks --publish --local
      elson data build --sources my/sources.yaml --benchmark my/cases.yaml --out my/dataset
      elson data build chats.parquet faq.csv.gz --field Prompt=question --field Reply=answer --category tax
      elson data build --tasks 64 --workers 16 --work /shared/corpus
    """
    from runners.corpus.build import REPORT, build

    changes = {"sources": sources, "benchmark": benchmark, "drop_leaks": drop_leaks or None}
    spec = _spec(spec_file, changes)
    if drop_junk:
        spec = _spec(spec_file, {**changes, "refuse": tuple(dict.fromkeys((*spec.data.refuse, *spec.data.refuse_beyond)))})
    wanted = _given(root, **given)
    if tasks:
        from runners.corpus import cluster

        job = cluster.job_of(spec, root.resolve(), wanted, work if "://" in work else str(Path(work).resolve()), tasks)
        if slurm:
            cluster.submit(job, slurm)
            return
        result = cluster.run(job, out, workers)
    else:
        result = build(spec, root.resolve(), out, wanted=wanted)
    entry = None
    if publish:
        from runners.stages import publish_dataset

        with place.open() as buckets:
            entry = publish_dataset(buckets, out, name or spec.dataset.name)
    if as_json:
        print_json({"id": result.dataset_id, "folder": str(out), "published": entry.name if entry else None, "statistics": result.statistics})
        return
    facts = result.statistics
    log.say(f"{result.dataset_id}  {facts['train']['pairs']:,} training and {facts['validation']['pairs']:,} validation pairs in {out}")
    for line in _said(facts, out / REPORT):
        log.say(line, err=True)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _said(facts: dict[str, Any], report: Path) -> list[str]:
    """The last lines of a build: what was read, what was not taken and why, and what is suspicious in what was."""
    from runners.corpus.refusals import counted

    dropped = ", ".join(_count(count, reason.replace("_", " ")) for reason, count in facts["dropped"].items())
    lines = [f"read {_count(facts['read']['pairs'], 'pair')}, dropped {dropped}; see {report}"]
    if rows := facts["rejected"]["rows"]:
        lines.append(f"rejected {_count(rows, 'row')}: {counted(facts['rejected']['by_reason'], 5)}")
    if any(facts["kept"]["findings"].values()):
        lines.append(f"findings in the {facts['kept']['pairs']:,} pairs kept: {counted(facts['kept']['findings'], 11)}")
    if not facts["leaks"]["checked"]:
        lines.append("not checked for benchmark questions: data.benchmark is empty")
    return lines


@data.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File for the pairs, one a line. Default: stdout.")
@click.option("--endpoint", help="OpenAI-compatible endpoint whose model writes and judges the pairs; each sentence is held against the text it quotes.")
@click.option("--model", default="elson", show_default=True, help="Model to ask there.")
@click.option("--api-key-env", default="OPENAI_API_KEY", show_default=True, help="Environment variable with the endpoint's key.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Requests at a time.")
@click.option(
    "--answers", type=click.Path(path_type=Path), default=Path(".elson/answers"), show_default=True, help="Folder that keeps the answers: none is asked twice."
)
@click.option("--dry-run", is_flag=True, help="Say how many requests and tokens the endpoint would get, and ask nothing.")
def extract(
    paths: tuple[Path, ...], out: Path | None, endpoint: str | None, model: str, api_key_env: str, concurrency: int, answers: Path, dry_run: bool
) -> None:
    """Take question-answer pairs from documents: files or folders at PATHS (md, txt, html, pdf, docx).

    What is not kept is written to rejects.jsonl beside --out, with its reason.

    \b
    Examples:
      elson data extract data/guides
      elson data extract report.pdf notes.docx --out pairs.jsonl
      elson data extract guide.md --endpoint http://127.0.0.1:8000/v1 --model elson --out pairs.jsonl
      elson data extract guide.md --endpoint http://127.0.0.1:8000/v1 --model elson --dry-run
    """
    from runners.corpus import extract, sources
    from runners.corpus.refusals import counted
    from runners.corpus.sources import Source

    if dry_run and not endpoint:
        raise UserError("--dry-run without --endpoint", "an endpoint: without one nothing is asked, and nothing costs", "leave --dry-run out")
    given = [Source(name=path.name, kind="documents", path=str(path), licence="unknown") for path in paths]
    if endpoint == "":
        raise UserError("--endpoint is empty", "the address of an OpenAI-compatible endpoint", "--endpoint http://127.0.0.1:8000/v1, or leave it out")
    read = [(file, source) for source in given for file in sources.files(source, Path())]
    if out and (out.is_dir() or out.name == "rejects.jsonl" or out.resolve() in [file.resolve() for file, _ in read]):
        raise UserError(f"--out {out} is a folder, an input, or the file of what is refused", "another file", "--out pairs.jsonl")
    if endpoint and answers.exists() and not answers.is_dir():
        raise UserError(f"--answers {answers} is a file", "a folder", "another --answers")
    spent = ""
    if endpoint:
        from runners.corpus import asking
        from runners.corpus.endpoint import opened

        with opened(endpoint, model, os.environ.get(api_key_env, ""), answers) as served:
            plan = asking.plan([file for file, _ in read], served)
            if dry_run:
                log.say(asking.forecast(plan, served))
                return
            found = list(asking.rows(plan, served, concurrency))
            spent = str(served.usage)
    else:
        found = [raw for file, source in read for raw in extract.rows(file, file.name, source.model_copy(update={"path": str(file)}))]
    rows = [raw.value for raw in found if raw.error is None]
    refused = [{"file": raw.file, "line": raw.line, "reason": raw.error, "row": raw.value} for raw in found if raw.error is not None]
    text, rejects = ("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in listed) for listed in (rows, refused))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        (out.parent / "rejects.jsonl").write_text(rejects)
    else:
        click.echo(text, nl=False)
    reasons = counted(Counter(str(row["reason"]) for row in refused), 8)
    log.say(f"{len(rows)} pairs from {len(read)} documents; {len(refused)} refused{f': {reasons}' if refused else ''}", err=True)
    if spent:
        log.say(spent, err=True)


@data.command()
@click.argument("catalogue", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="CSV with the verdicts. Default: stdout.")
@click.option("--review", type=click.Path(path_type=Path), help="CSV of unsure rows: fill in its domain column and run again, it is read back.")
@click.option("--taxonomy", type=click.Path(path_type=Path), default=Path("data/taxonomy.yaml"), show_default=True, help="The domains, their hosts and words.")
@click.option("--map", "mapping", multiple=True, callback=_named, metavar="LABEL=DOMAIN", help="What a label of the catalogue is here; `none`: of no domain.")
@click.option("--validate", is_flag=True, help="Instead: measure agreement with the rows that people labelled.")
def categorize(catalogue: Path, out: Path | None, review: Path | None, taxonomy: Path, mapping: dict[str, str], validate: bool) -> None:
    """Give every row of a CATALOGUE (CSV with url, title, …) a domain, an authority tier, a confidence and a reason.

    A label that is none of the 18 domains is set aside: the row is placed by its words and host, the label stays in the column `label`.

    \b
    Examples:
      elson data categorize links.csv --out categorized.csv --review review.csv
      elson data categorize links.csv --map Crypto=trading --map Recipes=none --out categorized.csv
      elson data categorize links.csv --validate
    """
    from runners.corpus import categorize
    from runners.corpus.refusals import counted
    from runners.corpus.validate import accuracy

    rows, strange = categorize.relabelled(categorize.read_catalogue(catalogue), mapping)
    known = categorize.taxonomy(taxonomy)
    if strange:
        log.say(f"{sum(strange.values())} rows have labels that are no domain, set aside: {counted(strange, 8)}; --map LABEL=DOMAIN says what one is", err=True)
    if validate:
        print_json(accuracy(rows, known))
        return
    reviewed = categorize.read_catalogue(review) if review and review.exists() else []
    verdicts = categorize.verdicts(rows, known, reviewed)
    written = [
        dict(row)
        | {"domain": v.domain, "subdomain": v.subdomain, "authority_tier": row.get("authority_tier") or v.tier, "confidence": v.confidence, "reason": v.reason}
        for row, v in zip(rows, verdicts, strict=True)
    ]
    _write_csv(out, written)
    unsure = [(row, v) for row, v in zip(rows, verdicts, strict=True) if v.unsure]
    if review:
        decided = [row for row in reviewed if row.get("domain", "").strip()]
        asked = [
            {"url": row.get("url", ""), "title": row.get("title", ""), "domain": "", "suggested": v.domain, "confidence": v.confidence, "reason": v.reason}
            for row, v in unsure
        ]
        _write_csv(review, [*decided, *asked], ["url", "title", "domain", "suggested", "confidence", "reason"])
    log.say(f"{len(rows)} rows, {len(unsure)} unsure ({100 * len(unsure) / len(rows):.1f} %){f', in {review}' if review else ''}", err=True)


def _write_csv(file: Path | None, rows: list[dict[str, Any]], header: list[str] | None = None) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, header or list(rows[0]), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if file is None:
        click.echo(text.getvalue(), nl=False)
        return
    outside.write_durably(file, text.getvalue())


@data.command()
@source_options
@click.option("--spec", "spec_file", type=click.Path(path_type=Path), help="Settings other than the defaults.")
@click.option("--root", type=click.Path(path_type=Path), default=Path(), help="What relative paths are relative to. Default: here.")
@click.option("--sources", help="Another sources file.")
@click.option("--benchmark", help="Another benchmark file or folder.")
@AS_JSON
def check(spec_file: Path | None, root: Path, sources: str | None, benchmark: str | None, as_json: bool, **given: Any) -> None:
    """Say what is wrong with the sources, or the files at PATHS, pair by pair, without building anything. Exit code 1 when something is.

    \b
    Examples:
      elson data check
      elson data check --sources my/sources.yaml --json
    """
    from runners.corpus.build import inspect

    problems = inspect(_spec(spec_file, {"sources": sources, "benchmark": benchmark}), root.resolve(), _given(root, **given))
    if as_json:
        print_json(problems)
    else:
        for problem in problems:
            log.say(f"{problem['file']}:{problem['line']}: {problem['kind']}: {problem['detail']}")
    log.say(f"{len(problems)} findings", err=True)
    if problems:
        raise click.exceptions.Exit(1)


@data.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path(".elson/dataset"))
@AS_JSON
def stats(folder: Path, as_json: bool) -> None:
    """Show the statistics of a dataset FOLDER.

    \b
    Examples:
      elson data stats
      elson data stats .elson/dataset --json
    """
    from runners.corpus.build import STATISTICS

    try:
        facts = outside.read_json(folder / STATISTICS)
    except UserError:
        raise UserError(f"{folder} holds no {STATISTICS}", "a dataset", "elson data build") from None
    if as_json:
        print_json(facts)
        return
    for part in ("read", "kept"):
        answers = facts[part]["answer_characters"]
        click.echo(
            f"{part:6} {facts[part]['pairs']:8,} pairs, {facts[part]['distinct_questions']:,} distinct questions, mean answer {answers['mean']:.0f} characters"
        )
    for category, count in facts["kept"]["by_category"].items():
        click.echo(f"  {category:28} {count:8,}")
    for finding, count in facts["kept"]["findings"].items():
        if count:
            click.echo(f"  ! {finding:26} {count:8,}")
