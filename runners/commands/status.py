"""``elson status`` and ``elson retry``: what the machines are doing, and letting a fixed job begin again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from runners import log, outside
from runners.cloud import jobs
from runners.commands import completion
from runners.commands.cli import AS_JSON, print_json
from runners.commands.places import Place, place_options
from runners.errors import UserError
from runners.spec import BucketSpec


@click.command()
@click.argument("job", required=False, shell_complete=completion.jobs)
@click.option("--log", "log_lines", type=int, default=0, show_default=True, help="Show so many lines of the newest kept log.")
@AS_JSON
@place_options
def status(place: Place, job: str | None, log_lines: int, as_json: bool) -> None:
    """What the VMs and Cloud Run are doing: state, progress, capacity, cost, logs. Reads the bucket and Google's APIs; no login to a VM is needed.

    With --local: the run that goes on in this folder, and what is left of its stage.

    \b
    Examples:
      elson status                             every job
      elson status --local                     the run on this machine
      elson status dora-0123456789abcdef       one, with its machine
      elson status dora-0123456789abcdef --log 50
    """
    with place.open(reads_only=True) as buckets:
        if job is None:
            rows = jobs.every(buckets)
            running = _running(place.home) if place.home else None
            if as_json:
                print_json([*([running] if running else []), *rows])
                return
            if running:
                _show_run(running)
            elif place.home and not rows:
                log.say(f"nothing runs in {place.home}: `elson run` begins, `elson view --local` shows what ended", err=True)
            elif not rows:
                log.say("no VM has begun a job yet: `pulumi up -s train-h100` starts one", err=True)
            for row in rows:
                when = row.get("updated_at", "")[:19]
                _say(f"{row['job_id']:32} {row['role']:6} {row['status']:10} attempt {row['attempts']}  {when}  {row.get('reason', '')}")
            return
        found = jobs.state(buckets, job)
        found["cost"] = {} if place.home else _of_spec(jobs.cost, buckets, job, found)
        found["models"] = {} if place.home else _of_spec(jobs.models, buckets, job, found)
        found["vm"] = {} if place.home else _machine(buckets, job, found, place.project)
        lines = jobs.last_log(buckets, job, log_lines) if log_lines else []
    if as_json:
        print_json({**found, "log": lines})
        return
    _show(found)
    for line in lines:
        _say(line)


@click.command()
@click.argument("job", shell_complete=completion.jobs)
@place_options
def retry(place: Place, job: str) -> None:
    """Let a job begin again that failed, passed its deadline, or lost its VM: its attempts are forgotten, its checkpoints and results are not.

    Its group gets a VM again where it is still there (with several places, that of the first); else, and on Cloud Run, `pulumi up` starts it.

    \b
    Examples:
      elson retry dora-0123456789abcdef
    """
    with place.open() as buckets:
        found = jobs.retry(buckets, job, project=place.project)
        where = {} if place.home else jobs.where(buckets, job, found, place.project)
        problem = "it is of this machine" if place.home else jobs.start(where)
    if "run_jobs" in where:
        log.say(f"{job} begins again with its stack on Cloud Run: elson up STACK (or pulumi up --refresh -s STACK)")
        return
    log.say(f"{job} begins again: {f'its group was not started ({problem}); now: pulumi up --refresh' if problem else 'its group gets a VM'}")


def _running(home: Path) -> dict[str, Any] | None:
    """The command that writes to the folder now, and how far it is."""
    from runners.artifacts import local_bucket
    from runners.view import progress, runs

    held = local_bucket.holder(home)
    if held is None:
        return None
    at = progress.position(runs.under_way(home)[0])
    return {"role": "run", "status": "running", **held, **at.to_json(), "share": at.share, "left": at.left}


def _show_run(found: dict[str, Any]) -> None:
    _say(f"running   {found['command']} (pid {found['pid']}), since {found['since'][:19].replace('T', ' ')} UTC")
    if found["stage"]:
        _say(f"stage     {found['stage']}")
    if found["what"]:
        _say(f"progress  {found['what']}: {', '.join(part for part in (found['share'], found['left']) if part)}")


def _machine(buckets: BucketSpec, job: str, found: dict[str, Any], project: str) -> dict[str, Any]:
    try:
        return jobs.machine(jobs.where(buckets, job, found, project))
    except UserError as error:
        return {"problem": f"not asked: {error.found}"}


def _of_spec(look: Callable[[BucketSpec, str, dict[str, Any]], dict[str, Any]], buckets: BucketSpec, job: str, found: dict[str, Any]) -> dict[str, Any]:
    try:
        return look(buckets, job, found)
    except (UserError, ValueError):
        return {}  # a spec that is not there, or not the job's: the line of the machine says it


def _say(line: str) -> None:
    """A line of what VMs wrote."""
    log.say(outside.printable(line))


def _show(found: dict[str, Any]) -> None:
    _say(f"job       {found['job_id']} ({found['role']})")
    _say(f"status    {found['status']}{': ' + found['reason'] if found.get('reason') else ''}")
    _say(f"stage     {found.get('stage') or '-'}")
    if models := found.get("models"):
        _say(f"serves    {', '.join(f'{name} ({identity})' for name, identity in models.items())}")
    _say(f"attempts  {found['attempts']} of {found.get('max_attempts', '?')}")
    if found.get("minutes_left") is not None:
        machine = "task" if "run_job" in found.get("machine", {}) else "VM"
        _say(f"deadline  after {found['minutes_left']:g} more minutes of a {machine} (as of {found.get('updated_at', '')[:19]})")
    if cost := found.get("cost"):
        _say(f"cost      about ${cost['usd']:.2f}: {cost['minutes']:g} minutes at ${cost['usd_per_hour']:.2f} an hour, prices of {cost['priced_at']}")
    if progress := found.get("progress"):
        _say(f"progress  {_progress(progress)} (as of {found.get('updated_at', '')[:19]})")
    if phases := _phases(found.get("phases", {})):
        _say(f"start     {', '.join(f'{name} {seconds:g} s' for name, seconds in phases.items())}; {sum(phases.values()):.0f} s together")
    for boot in found.get("boots", []):
        _say(f"boot      {boot['started_at'][:19]} {boot['instance']} in {boot['zone']}")
    _show_machine(found.get("vm", {}))


def _show_machine(machine: dict[str, Any]) -> None:
    if "problem" in machine:
        _say(f"machine   {machine['problem']}")
    elif "executions" in machine:
        for one in machine["executions"]:
            started = f" since {one['started'][:19]}" if one["started"] and not one["ended"] else ""
            again = ", tried again" if one["tried_again"] else ""
            _say(f"execution {one['name']} {one['phase']}{started}{again}{': ' + one['problem'] if one['problem'] else ''}")
        if not machine["executions"]:
            _say("execution none: `pulumi up` starts one")
    elif machine:
        _say(f"group     {machine['group']}, size {machine['size']}{', ' + machine['note'] if 'note' in machine else ''}")
        for one in machine.get("places", []):
            _say(f"place     {one['name']} in {one['region']}, size {one['size']}")
        for instance in machine.get("instances", []):
            _say(f"machine   {instance['name']} {instance['status'] or 'waiting for capacity'} {instance['action']} {instance.get('problem', '')}".rstrip())
            for key, value in instance.get("attributes", {}).items():
                shown = _progress(value) if key == "progress" and isinstance(value, dict) else value
                _say(f"  {key:8} {shown}")


def _phases(found: dict[str, Any]) -> dict[str, float]:
    """The phases of a start, in their order; what is no number was written by nobody of ours."""
    from runners.serving.phases import NAMES

    return {name: found[name] for name in ("system", "docker", "image", "container", *NAMES) if isinstance(found.get(name), int | float)}


def _progress(values: dict[str, Any]) -> str:
    rest = {key: value for key, value in values.items() if key not in ("stage", "message", "done", "total", "unit", "time")}
    extra = " ".join(f"{key}={value}" for key, value in rest.items())
    said = f"{values.get('stage', '')} {values.get('message', '')}"
    return f"{said} {values.get('done', 0):g} of {values.get('total', 0):g} {values.get('unit', '')} {extra}".strip()
