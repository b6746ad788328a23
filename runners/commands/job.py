"""``elson job``: the entry point of a training task on Cloud Run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from runners import log
from runners.commands.stages import stage_options


@click.command()
@stage_options
def job(spec_uri: str, work: Path) -> None:
    """One try of a task on Cloud Run: the stages that ELSON_TASK names, from where the job stands. The platform starts it.

    \b
    Examples:
      ELSON_TASK="train merge" elson job --spec gs://PROJECT-elson-scratch/specs/0123456789abcdef.json --work /tmp/elson
    """
    from runners import stages
    from runners.cloud_run.job import Task, run_task

    log.configure("job")
    task = Task.from_environment(os.environ)
    work.mkdir(parents=True, exist_ok=True)
    sys.exit(run_task(stages.load_spec(spec_uri), spec_uri, work, task))
