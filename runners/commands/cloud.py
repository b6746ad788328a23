"""``elson init``, ``elson up`` and ``elson down``: from an empty project to a trained model or a server, and back to zero."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click

from runners import log
from runners.commands.cli import AS_JSON, DRY_RUN, cli, print_json
from runners.commands.stack_name import stack_name
from runners.errors import UserError

_YES = click.option("--yes", is_flag=True, help="Ask nothing.")


@click.command()
@click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", help="Google Cloud project; it must exist.")
@click.option("--billing-account", help="012345-6789AB-CDEF01. Default: the project's own, else the only one you may use.")
@click.option("--no-budget", is_flag=True, help="Make no budget: for those who may not see the billing account.")
@click.option("--region", default="us-central1", show_default=True, help="Where machines and buckets are.")
@click.option("--operator", "operators", multiple=True, help="Who may reach the server, e.g. user:me@example.org. Default: you.")
@click.option("--email", "emails", multiple=True, help="Who gets the alerts. Default: you.")
@click.option(
    "--budget",
    type=click.FloatRange(1),
    default=50.0,
    show_default=True,
    help="A month, in the billing account's currency; at this sum every machine is stopped.",
)
@click.option("--backend", help="Where Pulumi keeps its state: gs://…, file://…, or a URL. Default: where you are logged in, else gs://PROJECT-elson-state.")
@_YES
@DRY_RUN
@AS_JSON
def init(as_json: bool, dry_run: bool, yes: bool, project: str | None, no_budget: bool, **given: Any) -> None:
    """Make a Google Cloud project ready: login, billing, APIs, Pulumi's state, the stacks, your values. Run it again to change an answer.

    Your values go to infra/stacks/mine, which git ignores. Nothing here is billed by the hour.

    \b
    Examples:
      elson init
      elson init --project my-project --region us-central1 --yes
      elson init --project my-project --dry-run
    """
    from runners.cloud.project import answers, check, log_in, look, shown, tasks, tools

    tools()
    name = project or _asked("Google Cloud project", yes, "--project")
    found = look(name)
    if not (found.account and found.has_application_credentials):
        if yes or dry_run or not sys.stdin.isatty():
            raise UserError("nobody is logged in to Google Cloud, or libraries have no credentials", "both", "gcloud auth login --update-adc")
        log_in()
        found = look(name)
    wanted = answers(name, found, yes=yes, no_budget=no_budget, ask=_asked, **given)
    check(wanted)
    todo = tasks(wanted, found)
    if as_json and dry_run:
        print_json({"wanted": vars(wanted), "tasks": [task.text for task in todo]})
        return
    for line in shown(wanted, found):
        log.say(line, err=True)
    for task in todo:
        log.say(f"  - {task.text}", err=True)
    if dry_run or not _confirmed("Do this?", yes):
        return
    for task in todo:
        log.say(f"{task.text} …", err=True)
        task.run()
    if as_json:
        print_json({"wanted": vars(wanted), "tasks": [task.text for task in todo]})
    log.say("ready. Ask for the GPU quota now if `elson doctor` names one; then: elson up train-h100", err=True)


@click.command()
@stack_name("Stack to bring up.")
@click.option("--follow/--no-follow", default=True, show_default=True, help="Show the log until the job is done or the server is ready.")
@click.option("--bake/--no-bake", default=True, show_default=True, help="Make a boot image where one boot saves more than it costs.")
@_YES
@DRY_RUN
@AS_JSON
def up(stack: str, follow: bool, bake: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Bring a stack up: check, plan, price, ask, build what is missing, `pulumi up`, and follow the job.

    What is missing is built by the commands that are listed first: the foundation, containers, dataset, base model, key, boot image.
    Run it again after an interruption: what is there is found. Ctrl-C while it follows leaves the job running.

    \b
    Examples:
      elson up train-h100                     (or -s train-h100)
      elson up train-h100 --dry-run
      elson up serve-l4 --yes --no-follow --json
    """
    from runners.cloud import bring_up

    made = bring_up.bring_up(
        stack, run=_run, confirmed=lambda text: _confirmed(text, yes), say=lambda line: log.say(line, err=True), bakes=bake, dry_run=dry_run, waits=follow
    )
    if as_json:
        print_json(made)
    elif made.get("next"):
        log.say(made["next"], err=True)


@click.command()
@stack_name("Stack to destroy.", required=False)
@click.option("--all", "everything", is_flag=True, help="Every stack; of the foundation what is protected stays: the models.")
@_YES
@DRY_RUN
@AS_JSON
def down(stack: str | None, everything: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Destroy a stack, or all: nothing by the hour is left. The models stay.

    \b
    Examples:
      elson down serve-l4
      elson down --all --dry-run
      elson down --all --yes
    """
    from runners.cloud import take_down

    if bool(stack) == everything:
        raise UserError(
            "no stack is named" if not stack else "a stack is named, and --all is set", "one of the two", "elson down train-h100, or elson down --all"
        )
    there = take_down.there(stack)
    if not as_json or not dry_run:
        for line in take_down.shown(there):
            log.say(line, err=True)
    going = [name for name, count in there.items() if count]
    if going and not dry_run and _confirmed(f"Destroy {', '.join(going)}?", yes):
        take_down.destroy(going)
    if as_json:
        print_json({"stacks": there, "destroyed": [] if dry_run else going, "left": take_down.LEFT if "foundation" in there else []})
    elif "foundation" in going and not dry_run:
        for line in take_down.LEFT:
            log.say(f"still there: {line}", err=True)


def _run(words: tuple[str, ...]) -> None:
    """One of our own commands, as a person would type it."""
    log.say(f"$ elson {' '.join(words)}", err=True)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for --json alone
        cli.main(list(words), prog_name="elson", standalone_mode=False)


def _asked(what: str, yes: bool, option: str, default: str | None = None) -> str:
    if yes or not sys.stdin.isatty():
        if default is None:
            raise UserError(f"no {what} is given", option, f"pass {option}, or run it in a terminal without --yes")
        return default
    return str(click.prompt(what, default=default, err=True))


def _confirmed(text: str, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError(
            "this needs a yes, and there is no terminal to ask on", "--yes, or a terminal", "run it again with --yes (--dry-run shows what it would do)"
        )
    return click.confirm(text, err=True)
