"""``elson run``."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from runners import log
from runners.commands import completion
from runners.commands.cli import print_json

PROFILE = click.option(
    "--profile", shell_complete=completion.profiles, default="local", show_default=True, help="A name below runners/profiles, or a YAML file."
)
HOME = click.option(
    "--home", type=click.Path(file_okay=False, path_type=Path), default=Path(".elson"), show_default=True, help="Folder of the embedded bucket and the work."
)


@click.command()
@PROFILE
@HOME
@click.option(
    "--from", "redo_from", type=click.Choice(["base", "data", "train", "merge", "quantize", "evaluate"]), help="Do this stage and the later ones again."
)
@click.option("--until", type=click.Choice(["data", "train", "merge", "quantize"]), help="Stop after this stage.")
@click.option("--force", is_flag=True, help="Do every stage again.")
@click.option("--keep-serving", is_flag=True, help="Leave the server up at the end, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as data.")
def run(profile: str, home: Path, redo_from: str | None, until: str | None, force: bool, keep_serving: bool, as_json: bool) -> None:
    """Run the whole job on this machine: data, train, merge, quantize, publish, serve, evaluate, report.

    Finished stages are kept: run it again after anything went wrong and it goes on.

    \b
    Examples:
      elson run                    a real 135M model, 10 to 20 minutes
      elson run --profile tiny     a random model, two minutes: a trial
      elson run --from quantize    quantize, serve and evaluate again
      elson run --keep-serving     and then leave the server up
    """
    from runners.local.run import load_profile, run

    log.configure("run")
    # A supervisor's SIGTERM is a Ctrl-C: what runs is ended in order (and a shell's background jobs, which ignore Ctrl-C, can be ended at all).
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    summary = run(load_profile(profile), home, redo_from="base" if force else redo_from, until=until, keep_serving=keep_serving)
    if as_json or until:
        print_json(summary)
        return
    from runners.local.report import as_text

    log.say(as_text(summary))
