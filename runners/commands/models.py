"""``elson models``: what is published, and which one is in production."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from runners import log
from runners.artifacts import fetch, registry, storage
from runners.artifacts.record import RECORD
from runners.commands import completion
from runners.commands.cli import AS_JSON, CommandGroup, print_json
from runners.commands.places import Place, place_options
from runners.errors import UserError


@click.group(cls=CommandGroup)
def models() -> None:
    """List, show, promote and deprecate published models and datasets.

    \b
    Examples:
      elson models ls --local
      elson models promote elson-finance-trading-wealth-14b-q4-v2
    """


@models.command()
@AS_JSON
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
    rows = [{**entry.model_dump(), "production": bool(live and live.name == entry.name)} for entry in found]
    if as_json:
        print_json(rows)
        return
    if not rows:
        log.say("nothing is published yet: `elson run --profile local` makes a first model here", err=True)
        return
    for line in table(rows, shutil.get_terminal_size((80, 24)).columns):
        click.echo(line)


def table(rows: list[dict[str, Any]], columns: int) -> list[str]:
    """A header and a line a name, within ``columns`` where names allow it: ids only where there is room."""
    cells = [("name", "kind", "status", "size", "published", "id")]
    for row in rows:
        status = "production" if row["production"] else row["status"]
        cells.append((row["name"], row["kind"], status, _size(row["bytes"]), row["published_at"][:10], row["id"]))
    width = [max(len(cell[place]) for cell in cells) for place in range(6)]
    shown = next((most for most in (6, 5, 4) if sum(width[:most]) + most - 1 <= columns), 4)
    return [" ".join(cell[place].rjust(width[place]) if place == 3 else cell[place].ljust(width[place]) for place in range(shown)).rstrip() for cell in cells]


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


@models.command()
@click.argument("name", shell_complete=completion.models)
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
@click.argument("name", shell_complete=completion.models)
@click.option("--compared", nargs=2, type=click.Path(exists=True, path_type=Path), metavar="BASE RUN", help="Runs of its base model and of NAME.")
@click.option("--fp8-cache", nargs=2, type=click.Path(exists=True, path_type=Path), metavar="AUTO FP8", help="Runs of NAME with each kv_cache_dtype.")
@click.option("--anyway", is_flag=True, help="Promote it although it is not shown better than its base.")
@place_options
def promote(name: str, compared: tuple[Path, Path] | None, fp8_cache: tuple[Path, Path] | None, anyway: bool, place: Place) -> None:
    """Make NAME what `serve.model: production` means.

    A model with a base model has to be shown better than it: by two runs of `elson evaluate` on the same cases.
    `serve.kv_cache_dtype: fp8` is refused of what is in production until two runs of its servers, with auto and with fp8, show no loss (--fp8-cache).

    \b
    Examples:
      elson models promote elson-finance-trading-wealth-14b-q4-v2 --compared .elson/evaluations/BASE-1 .elson/evaluations/TUNED-1
      elson models promote elson-finance-trading-wealth-14b-q4-v2 --fp8-cache .elson/evaluations/AUTO-1 .elson/evaluations/FP8-1
      elson models promote elson-finance-trading-wealth-14b-q4-v2 --anyway
    """
    with place.open() as buckets:
        entry = registry.usable(buckets, name)
        proven = bool(fp8_cache and not compared and registry.is_live(registry.production(buckets), entry))
        if entry.parents.get("base_model") and not anyway and not proven:
            log.say(_shown_better(entry, compared), err=True)
        shown = _cache_kept(entry, fp8_cache) if fp8_cache else ""
        entry = registry.promote(buckets, name, fp8_cache=shown)
    log.say(f"{entry.name} ({entry.id}) is in production; running servers change at the next `pulumi up -s serve-l4`", err=True)


def _shown_better(entry: registry.Entry, compared: tuple[Path, Path] | None) -> str:
    """One line on how much better a model is than its base. Raises UserError where that is not shown."""
    from runners.evaluation.comparing import shown_better
    from runners.evaluation.run import read

    if compared is None:
        ways = "elson evaluate both, then pass --compared BASE RUN; or --anyway"
        raise UserError(f"{entry.name} is not shown better than its base model", "two runs of `elson evaluate` on the same cases", ways)
    base, tuned = (read(run) for run in compared)
    return shown_better(entry, base, tuned).sentence


def _cache_kept(entry: registry.Entry, runs: tuple[Path, Path]) -> str:
    """One line on what an fp8 cache loses. Raises UserError where that is too much, or not known."""
    from runners.evaluation.comparing import cache_kept
    from runners.evaluation.run import read

    auto, fp8 = (read(run) for run in runs)
    shown = cache_kept(entry, auto, fp8)
    log.say(shown, err=True)
    return shown


@models.command()
@click.argument("name", shell_complete=completion.models)
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
    log.say(f"{name} is deprecated", err=True)


@models.command()
@click.argument("name", shell_complete=completion.models)
@place_options
def forget(name: str, place: Place) -> None:
    """Free a NAME whose publication was cut off and cannot be finished.

    \b
    Examples:
      elson models forget wealth-dora-elson14b-h100-v3
    """
    with place.open() as buckets:
        registry.forget(buckets, name)
    log.say(f"{name} is free again", err=True)


@models.command()
@click.argument("name", shell_complete=completion.models)
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
        fetch.download(buckets, entry, folder)
    click.echo(str(folder))


@models.command()
@click.argument("job", shell_complete=completion.jobs)
@place_options
def compiled(job: str, place: Place) -> None:
    """Publish the code that the server JOB compiled, so that every later start of the same model, image and card reads it.

    \b
    Examples:
      elson models compiled serve-0123456789abcdef    then: pulumi up, so that the plan names it
    """
    from runners.serving.compiled import publish

    with place.open() as buckets:
        made = publish(buckets, job)
    click.echo(made.id)
