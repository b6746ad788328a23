"""``elson plan``, ``elson doctor``, ``elson prices`` and ``elson key``: what is checked before money is spent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runners import log
from runners.cloud import api_key
from runners.commands import completion
from runners.commands.cli import AS_JSON, CommandGroup, print_json
from runners.commands.stack_name import stack_name
from runners.errors import UserError

if TYPE_CHECKING:
    from runners.planning.parts import Plan
    from runners.planning.serving import TokensAStep
    from runners.spec import Spec


@click.command()
@click.argument("stacks_named", metavar="[STACK]...", nargs=-1, shell_complete=completion.stacks)
@click.option(
    "-s", "--stack", "stack_names", multiple=True, shell_complete=completion.stacks, help="Stack to plan; again for more. Left out: every stack with a machine."
)
@click.option("--offline", is_flag=True, help="Do not ask the bucket: plan the 14B base with an assumed corpus.")
@click.option("--model-format", type=click.Choice(["awq", "bf16"]), default="awq", show_default=True, help="Served model when offline: qdora, or dora/base.")
@click.option("--whole-logits", is_flag=True, help="Plan for a trainer that keeps a micro-batch's logits whole, as stock ones do.")
@click.option("--requests-per-hour", type=click.FloatRange(0, min_open=True), help="Use of a server: what it costs on Cloud Run and on VMs, and which to take.")
@click.option("--hours-per-day", type=click.FloatRange(0, 24, min_open=True), default=2.0, show_default=True, help="Hours of a day with such use.")
@click.option("--days-per-month", type=click.FloatRange(0, 31, min_open=True), default=22.0, show_default=True, help="Days of a month with such use.")
@click.option(
    "--evaluation", type=click.Path(exists=True, path_type=Path), help="Folder of an `elson evaluate` run: its accepted tokens count for the latency."
)
@click.option("--markdown", is_flag=True, help="The README's cost table.")
@click.option("-v", "--verbose", is_flag=True, help="The tables behind the lines: memory, disk, each phase, what each saving is worth.")
@AS_JSON
def plan(
    stacks_named: tuple[str, ...],
    stack_names: tuple[str, ...],
    offline: bool,
    model_format: Any,
    whole_logits: bool,
    requests_per_hour: float | None,
    hours_per_day: float,
    days_per_month: float,
    evaluation: Path | None,
    markdown: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Memory, disk, time, dollars and latency of a stack, before any money is spent. Exit code 1 when a plan is refused.

    \b
    Examples:
      elson plan -s train-h100
      elson plan -s train-h100 --verbose
      elson plan -s serve-l4 --offline --json
      elson plan --offline --markdown
      elson plan --offline --requests-per-hour 4 --hours-per-day 2
      elson plan -s serve-l4 --evaluation .elson/evaluations/0123456789abcdef-1
    """
    from runners.planning import choices, stacks, tables

    named = tuple(dict.fromkeys((*stacks_named, *stack_names)))
    wanted = [stacks.load(name) for name in named or stacks.names()]
    if named and any(stack.role == "foundation" for stack in wanted):
        raise UserError("the foundation has no machine, so there is nothing to plan", "a stack that trains or serves", "pulumi preview -s foundation")
    measured = measured_tokens(evaluation, [stack.spec for stack in wanted if stack.role == "serve"]) if evaluation else None
    plans = [
        stacks.planned(stack, offline=offline or markdown, model_format=model_format, whole_logits=whole_logits, measured=measured)
        for stack in wanted
        if stack.role != "foundation"
    ]
    if evaluation:
        refuse_another_model(evaluation, plans)
    if markdown:
        click.echo(tables.cost_table(plans), nl=False)
    elif as_json:
        print_json([tables.as_json(made) for made in plans])
    else:
        for made in plans if requests_per_hour is None else ():
            tables.show(made, verbose=verbose)
        if requests_per_hour is not None or verbose or len(plans) > 1:
            _compare(plans, choices.Use(requests_per_hour or choices.Use().requests_per_hour, hours_per_day, days_per_month), offline, model_format)
    if any(made.refusals for made in plans):
        sys.exit(1)


def measured_tokens(run: Path, servers: list[Spec]) -> TokensAStep:
    """What a run of `elson evaluate` says of speculative decoding. Raises UserError where it was measured with other settings than these servers have."""
    from runners.evaluation.run import read
    from runners.planning.serving import TokensAStep

    found = read(run).acceptance
    wanted = {(spec.serve.speculation.method, spec.serve.speculation.draft_tokens) for spec in servers if spec.serve.speculation}
    if found is None:
        fix = "evaluate a server that elson started with serve.speculation"
        raise UserError(f"{run} holds no accepted tokens: its server told nothing of drafted ones", "a run on a server with speculative decoding", fix)
    if not wanted:
        raise UserError("no stack that is planned has serve.speculation", "the settings that the run was made with", "set serve.speculation in the stack file")
    for method, drafts in sorted(wanted):
        if found.method not in (None, method) or found.draft_tokens != drafts:
            raise UserError(
                f"{run} was measured with {found.method or 'a method'} that drafts {found.draft_tokens} tokens",
                f"{method} and {drafts}, as in the stack file",
                "evaluate a server with these settings, or change serve.speculation",
            )
    each = [group.tokens_a_step for group in found.categories.values()]
    return TokensAStep(found.overall.tokens_a_step, min(each), max(each), f"measured on {found.overall.answers} answers, {run.name}")


def refuse_another_model(run: Path, plans: list[Plan]) -> None:
    """Raise UserError where the run asked another model than a server would load. Nothing is known of either offline, or without --registered."""
    from runners.evaluation.run import read

    asked = read(run).model.get("id")
    for made in plans:
        planned = made.spec.serve.model_id if made.serving else None  # the first of two: speculation is its own
        if asked and planned and asked != planned:
            raise UserError(f"{run} asked {asked}, and {made.stack} serves {planned}", "a run on that model", "elson evaluate it, or leave --evaluation out")


def _compare(plans: list[Any], use: Any, offline: bool, model_format: Any) -> None:
    """The stacks of each planned role beside each other, also those that were not asked for, and which to take."""
    from runners.planning import choices, stacks

    others = [stacks.load(name) for name in stacks.names() if name not in {made.stack for made in plans}]
    for role in dict.fromkeys(made.role for made in plans):
        beside = [stacks.planned(stack, offline=offline, model_format=model_format) for stack in others if stack.role == role]
        same = [*(made for made in plans if made.role == role), *beside]
        lines = choices.training_text(same) if role == "train" else choices.text(choices.options(same, use), use)
        for line in lines:
            log.say(line)


@click.command()
@stack_name("Stack whose needs are checked.", default="train-h100")
@AS_JSON
def doctor(stack: str, as_json: bool) -> None:
    """Check credentials, APIs, quotas, images, the base model and the key. Exit code 1 when something is missing.

    \b
    Examples:
      elson doctor
      elson doctor -s serve-l4 --json
    """
    from runners.cloud.doctor import examine
    from runners.planning import stacks

    findings = examine(stacks.load(stack))
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            log.say(str(finding))
    if any(not finding.ok for finding in findings):
        sys.exit(1)


@click.group(cls=CommandGroup)
def prices() -> None:
    """The dated price table that plans use.

    \b
    Examples:
      elson prices show
      elson prices refresh --region us-central1
    """


@prices.command()
@click.option("--region", default="us-central1", show_default=True, help="Region of the table.")
@AS_JSON
def show(region: str, as_json: bool) -> None:
    """Show the table and its date.

    \b
    Examples:
      elson prices show
    """
    from dataclasses import asdict

    from runners.planning.machines import load_prices

    table = load_prices(region)
    if as_json:
        print_json(asdict(table))
        return
    log.say(f"{region}, {table.as_of} ({table.source})", err=True)
    for machine, models in table.machines.items():
        for model, price in models.items():
            click.echo(f"{machine:22} {model:11} {price.usd_per_hour:8.3f} $/h   at most {price.high_usd_per_hour:.3f}")


@prices.command()
@click.option("--region", default="us-central1", show_default=True, help="Region to read.")
@click.option("--file", type=click.Path(path_type=Path), help="Table to write; left out, the one that plans read.")
def refresh(region: str, file: Path | None) -> None:
    """Read the prices of every machine again from Google's billing catalogue; needs credentials.

    \b
    Examples:
      elson prices refresh
      elson prices refresh --region europe-west4
    """
    from runners.cloud import billing
    from runners.planning.machines import PRICES_FILE

    changed = billing.refresh(region, file or PRICES_FILE)
    for line in changed:
        click.echo(line)
    log.say(f"{len(changed)} prices changed in {file or PRICES_FILE}", err=True)


@click.group(cls=CommandGroup)
def key() -> None:
    """The API key of the servers, in Secret Manager.

    \b
    Examples:
      elson key rotate
      elson key ls
      elson key revoke 3f2a9c0d1e4b
    """


_PROJECT = click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", required=True, show_envvar=True, help="Project of the foundation.")
_SECRET = click.option("--secret", default=api_key.NAME, show_default=True, help="Secret of the foundation.")


@key.command("ls")
@_PROJECT
@_SECRET
def list_keys(project: str, secret: str) -> None:
    """Show the marks of the accepted keys, newest first: the beginning of each key's SHA-256, never the key.

    \b
    Examples:
      elson key ls
      printf %s "$LEAKED" | sha256sum | cut -c1-12     the mark of a key
    """
    from runners.cloud import api_key

    for mark in api_key.marks(project, secret):
        click.echo(mark)


@key.command()
@click.argument("mark")
@_PROJECT
@_SECRET
def revoke(mark: str, project: str, secret: str) -> None:
    """Refuse the key with this MARK from now on: servers that run read the keys again within a minute.

    \b
    Examples:
      elson key revoke 3f2a9c0d1e4b
    """
    from runners.cloud import api_key

    version, _ = api_key.revoke(project, secret, mark)
    log.say(f"{version} is without it; running VMs refuse it within a minute. If it was the last key, a new one was made.", err=True)


@key.command()
@_PROJECT
@_SECRET
@click.option("--keep", type=click.IntRange(0), default=1, show_default=True, help="Earlier keys that stay valid beside the new one.")
def rotate(project: str, secret: str, keep: int) -> None:
    """Make a new random key; the one before it stays valid until the next rotation. Keys go from this process to Secret Manager and nowhere else.

    \b
    Examples:
      elson key rotate --project my-project
      elson key rotate --project my-project --keep 0     a key has leaked
      gcloud secrets versions access latest --secret elson-api-key | head -1
    """
    from runners.cloud import api_key

    version, disabled = api_key.rotate(project, secret, keep)
    log.say(f"{version} holds the new key; {len(disabled)} older versions disabled. Running VMs accept it within a minute.", err=True)
