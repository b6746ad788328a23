"""``elson view``: look at runs in a browser, or write them in forms that other tools read."""

from __future__ import annotations

from pathlib import Path

import click

from runners import log
from runners.commands.places import Place, place_options
from runners.errors import UserError

FORMS = ("html", "csv", "tensorboard", "wandb", "trackio")


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8600, show_default=True, help="Port on loopback; 0 takes a free one.")
@click.option("--export", "out", metavar="PLACE", help="Write instead of serving: a folder (for wandb and trackio: a project).")
@click.option("--as", "form", type=click.Choice(FORMS), default="html", show_default=True, help="What to write. Inspect logs: `elson evaluate export`.")
@place_options
def view(place: Place, port: int, out: str | None, form: str) -> None:
    """Runs, side by side, case by case, and what goes on now, as a web page on this machine. Reads only; works while a run holds the bucket.

    \b
    Examples:
      elson view --local                              the runs of `elson run`
      elson view                                      those in the project's buckets
      elson view --local --export site                a folder of pages that can be put anywhere
      elson view --export events --as tensorboard
    """
    from runners.view import exports, runs, server, site

    if form != "html" and not out:
        raise UserError(f"--as {form} needs a place to write to", "--export PLACE", f"elson view --export {form} --as {form}")
    with place.open(reads_only=True, stays=not out) as buckets:
        where = f"{place.home}/bucket" if place.home else buckets.models
        if not out:
            server.serve(buckets, where, place.home, port)
            return
        if form == "html":
            done = [str(Path(out) / name) for name in site.export(buckets, where, place.home, Path(out))]
            click.echo(done[0])
        elif form in ("csv", "tensorboard"):
            bucket = runs.load(buckets, where, place.home)
            done = [str(file) for file in (exports.as_csv if form == "csv" else exports.as_tensorboard)(bucket, Path(out))]
            for file in done:
                click.echo(file)
        else:
            done = [out] * exports.to_tracker(runs.load(buckets, where, place.home), form, out)
        log.event("exported", form=form, count=len(done))
