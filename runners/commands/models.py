"""``elson models``: what is published, and which one is in production."""

from __future__ import annotations

from pathlib import Path

import click

from runners.artifacts import registry, storage
from runners.artifacts.record import RECORD
from runners.commands.cli import print_json
from runners.commands.places import Place, place_options


@click.group()
def models() -> None:
    """List, show, promote and deprecate published models and datasets.

    \b
    Examples:
      elson models ls --local
      elson models promote elson-finance-trading-wealth-14b-q4-v2
    """


@models.command()
@click.option("--json", "as_json", is_flag=True, help="Data for machines.")
@place_options
def ls(place: Place, as_json: bool) -> None:
    """List every published name.

    \b
    Examples:
      elson models ls
      elson models ls --local --json
    """
    with place.open(reads_only=True) as buckets:
        live, found = registry.production(buckets), registry.entries(buckets)
    rows = [{**entry.model_dump(), "production": bool(live and live["name"] == entry.name)} for entry in found]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("nothing is published yet: `elson run --profile local` makes a first model here", err=True)
    for row in rows:
        status = "production" if row["production"] else row["status"]
        click.echo(f"{row['name']:56} {row['kind']:8} {status:11} {row['id']:24} {row['bytes'] / 1e6:10.1f} MB  {row['published_at'][:19]}")


@models.command()
@click.argument("name")
@place_options
def show(name: str, place: Place) -> None:
    """Show a name's entry and record, as JSON.

    \b
    Examples:
      elson models show wealth-dora-elson14b-h100-v2
    """
    with place.open(reads_only=True) as buckets:
        entry = registry.read(buckets, name) or registry.usable(buckets, name)
        record = storage.read_json(f"{registry.folder_of(buckets, entry)}/{RECORD}")
    print_json({"entry": entry.model_dump(), "record": record[0] if record else None})


@models.command()
@click.argument("name")
@place_options
def promote(name: str, place: Place) -> None:
    """Make NAME what `serve.model: production` means.

    \b
    Examples:
      elson models promote elson-finance-trading-wealth-14b-q4-v2
    """
    with place.open() as buckets:
        entry = registry.promote(buckets, name)
    click.echo(f"{entry.name} ({entry.id}) is in production; running servers change at the next `pulumi up -s serve-l4`", err=True)


@models.command()
@click.argument("name")
@click.option("--reason", required=True, help="Why nobody should use it any more.")
@click.option("--replacement", help="The name to use instead.")
@place_options
def deprecate(name: str, reason: str, replacement: str | None, place: Place) -> None:
    """Mark NAME so that train, quantize and serve refuse it.

    \b
    Examples:
      elson models deprecate old-v1 --reason "trained on a leaked benchmark" --replacement new-v2
    """
    with place.open() as buckets:
        registry.deprecate(buckets, name, reason=reason, replacement=replacement)
    click.echo(f"{name} is deprecated", err=True)


@models.command()
@click.argument("name")
@place_options
def forget(name: str, place: Place) -> None:
    """Free a NAME whose publication was cut off and cannot be finished.

    \b
    Examples:
      elson models forget wealth-dora-elson14b-h100-v3
    """
    with place.open() as buckets:
        registry.forget(buckets, name)
    click.echo(f"{name} is free again", err=True)


@models.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@place_options
def download(name: str, folder: Path, place: Place) -> None:
    """Bring NAME's files to FOLDER, verified.

    \b
    Examples:
      elson models download wealth-dora-elson14b-h100-v2 ./adapter
    """
    with place.open(reads_only=True) as buckets:
        entry = registry.usable(buckets, name)
        storage.download(registry.folder_of(buckets, entry), folder, label=f"download {name}")
    click.echo(str(folder))
