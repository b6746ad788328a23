"""``elson sweep``."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from runners import log
from runners.commands import completion
from runners.commands.cli import print_json
from runners.commands.run import HOME, PROFILE


@click.command()
@click.option("--vary", "texts", multiple=True, required=True, metavar="KEY=VALUE,VALUE", help="A setting of train and its values; give it once a setting.")
@PROFILE
@HOME
@click.option("-s", "--stack", shell_complete=completion.stacks, help="Plan the grid for a training stack instead: time and dollars. Nothing is started.")
@click.option("--offline", is_flag=True, help="With --stack: plan without reading the bucket.")
@click.option("--dry-run", is_flag=True, help="Print the plan and train nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan and the results as data.")
def sweep(texts: tuple[str, ...], profile: str, home: Path, stack: str | None, offline: bool, dry_run: bool, as_json: bool) -> None:
    """Train every combination of some settings on this machine, and list them by held-out loss.

    The plan comes first: what is done already, and how long the rest will take. Trainings that are done are not run again, whoever made them; after
    anything went wrong the same command goes on. Exit code 1 when a training failed.

    \b
    Examples:
      elson sweep --vary train.learning_rate=1e-4,2e-4 --vary train.rank=8,16 --dry-run
      elson sweep --vary train.learning_rate=1e-4,2e-4 --vary train.rank=8,16
      elson sweep --profile tiny --vary train.adapter=dora,lora --json
      elson sweep -s train-h100 --vary train.rank=64,128      what the same costs in the cloud
    """
    from runners.local import grid
    from runners.local.run import load_profile
    from runners.local.sweep import sweep

    log.configure("sweep")
    if stack:
        _in_the_cloud(stack, texts, offline, as_json)
        return
    # A supervisor's SIGTERM is a Ctrl-C: what runs is ended in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    base = load_profile(profile)
    made = sweep(base, grid.varied(base, texts), home, dry_run=dry_run, say=log.event if as_json else click.echo)
    if as_json:
        print_json(made.as_data())
    elif not dry_run:
        for line in ("", *grid.text(made.outcomes), f"report: {made.as_data()['report']}"):
            click.echo(line)
    if any(one.status == "failed" for one in made.outcomes):
        sys.exit(1)


def _in_the_cloud(name: str, texts: tuple[str, ...], offline: bool, as_json: bool) -> None:
    """The plan of each training as a session of its own on a stack. Exit code 1 when one is refused."""
    from runners.errors import UserError
    from runners.local import grid
    from runners.planning import stacks

    found = stacks.load(name)
    if found.role != "train":
        raise UserError(f"{name} does not train", "a stack that trains", "elson sweep -s train-h100")
    trials = grid.trials(found.spec, grid.varied(found.spec, texts))
    rows: list[dict[str, Any]] = []
    for trial in trials:
        plan = stacks.planned(replace(found, spec=trial.spec), offline=offline)
        settings = {f"train.{key}": value for key, value in trial.settings.items()}
        money = {"usd_expected": round(plan.money.usd_expected, 2), "usd_at_most": round(plan.money.usd_at_most, 2), "prices_of": plan.money.priced_at}
        rows.append({"settings": settings, "minutes": round(plan.expected_s / 60), **money, "refused": "; ".join(one.found for one in plan.refusals)})
    if as_json:
        print_json(rows)
    else:
        for trial, row in zip(trials, rows, strict=True):
            click.echo(f"{trial}: " + (f"refused: {row['refused']}" if row["refused"] else f"about {row['minutes']} min, ${row['usd_expected']:.2f}"))
        usd, most = (sum(row[key] for row in rows if not row["refused"]) for key in ("usd_expected", "usd_at_most"))
        click.echo(f"together: ${usd:.2f}, at most ${most:.2f} at their deadlines; prices of {rows[0]['prices_of']}. nothing was started")
        click.echo(f"each is a session that trains, merges and quantizes: set its values in infra/stacks/mine/Pulumi.{name}.yaml, then elson up {name}")
    if any(row["refused"] for row in rows):
        sys.exit(1)
