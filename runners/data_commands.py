"""``elson data``: from sources to a dataset, and what is known about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from runners import spec as specs
from runners.cli import print_json
from runners.errors import UserError
from runners.places import Place, place_options


@click.group()
def data() -> None:
    """Build, check and describe datasets.

    \b
    Examples:
      elson data build --out .elson/dataset
      elson data build --publish --local
      elson data stats .elson/dataset
    """


def _spec(file: Path | None, changes: dict[str, Any]) -> specs.Spec:
    base = specs.load(file) if file else specs.Spec()
    return specs.parse(base.model_dump() | {"data": base.data.model_dump() | {key: value for key, value in changes.items() if value is not None}})


@data.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path(".elson/dataset"), show_default=True, help="The dataset's folder.")
@click.option("--spec", "spec_file", type=click.Path(path_type=Path), help="Settings other than the defaults (the `data` part counts).")
@click.option("--root", type=click.Path(path_type=Path), default=Path(), help="What relative paths are relative to. Default: here.")
@click.option("--sources", help="Another sources file.")
@click.option("--benchmark", help="Another benchmark file or folder.")
@click.option("--drop-leaks", is_flag=True, help="Drop pairs whose question stands in the benchmark, instead of refusing.")
@click.option("--publish", is_flag=True, help="Publish it to the bucket as well.")
@click.option("--name", help="Name to publish under. Default: the spec's dataset name.")
@click.option("--json", "as_json", is_flag=True, help="Data for machines.")
@place_options
def build(
    out: Path,
    spec_file: Path | None,
    root: Path,
    sources: str | None,
    benchmark: str | None,
    drop_leaks: bool,
    publish: bool,
    name: str | None,
    as_json: bool,
    place: Place,
) -> None:
    """Make a dataset from the sources in data/sources.yaml.

    \b
    Examples:
      elson data build
      elson data build --drop-leaks --publish --local
      elson data build --sources my/sources.yaml --benchmark my/cases.yaml --out my/dataset
    """
    from runners.corpus.build import REPORT
    from runners.corpus.build import build as make

    spec = _spec(spec_file, {"sources": sources, "benchmark": benchmark, "drop_leaks": drop_leaks or None})
    result = make(spec, root.resolve(), out)
    entry = None
    if publish:
        from runners.stages import publish_dataset

        with place.open() as buckets:
            entry = publish_dataset(buckets, out, name or spec.dataset.name, result.dataset_id)
    if as_json:
        print_json({"id": result.dataset_id, "folder": str(out), "published": entry.name if entry else None, "statistics": result.statistics})
        return
    facts = result.statistics
    click.echo(f"{result.dataset_id}  {facts['train']['pairs']:,} training and {facts['validation']['pairs']:,} validation pairs in {out}")
    dropped = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in facts["dropped"].items())
    click.echo(f"read {facts['read']['pairs']:,} pairs, rejected {facts['rejected']['rows']:,} rows, dropped {dropped}; see {out / REPORT}", err=True)


@data.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path(".elson/dataset"))
@click.option("--json", "as_json", is_flag=True, help="Data for machines.")
def stats(folder: Path, as_json: bool) -> None:
    """Show the statistics of a dataset FOLDER.

    \b
    Examples:
      elson data stats
      elson data stats .elson/dataset --json
    """
    from runners.corpus.build import STATISTICS

    try:
        facts = json.loads((folder / STATISTICS).read_text())
    except (OSError, ValueError):
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
