"""``elson compare``: runs of several models on the same cases."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runners import log
from runners.commands.cli import print_json


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The differences as data.")
def compare(runs: tuple[Path, ...], as_json: bool) -> None:
    """Hold each run of `elson evaluate` against the first: better, not shown, or worse.

    Exit codes: 0 every later run is better, 1 one is not.

    \b
    Examples:
      elson compare .elson/evaluations/BASE-1 .elson/evaluations/TUNED-1
      elson compare BASE TUNED QUANTIZED --json
    """
    from runners.evaluation.comparing import differences, table
    from runners.evaluation.run import read

    if len(runs) < 2:
        raise click.UsageError("give two runs or more, the base's first")
    found = [read(run) for run in runs]
    made = differences(found)
    if as_json:
        print_json([difference.model_dump(mode="json") for difference in made])
    else:
        for line in table(found, made):
            log.say(line)
    sys.exit(0 if all(difference.verdict == "better" for difference in made) else 1)
