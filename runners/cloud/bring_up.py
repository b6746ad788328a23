"""``elson up``: doctor, plan, the dollars, a confirmation, what is missing, ``pulumi up``, and the job's log."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runners.cloud import bake, deploy, doctor, follow, images, jobs, steps
from runners.errors import UserError
from runners.planning import places, stacks, tables
from runners.planning.machines import machine
from runners.planning.parts import Plan, machine_of
from runners.planning.stacks import Stack

Say = Callable[[str], None]


def bring_up(
    name: str, *, run: Callable[[tuple[str, ...]], None], confirmed: Callable[[str], bool], say: Say, bakes: bool, dry_run: bool, waits: bool
) -> dict[str, Any]:
    """Bring a stack up; returns what `--json` prints. Raises UserError.

    Args:
        name: the stack.
        run: runs one of our own commands.
        confirmed: asks, once, after the dollars.
        say: takes lines for a person.
        bakes: whether a boot image may be made.
        dry_run: stop before the question.
        waits: wait for the job.
    """
    stack = stacks.load(name)
    needs = _checked(stack, say)
    plan = _planned(stack, say)
    todo = [*needs.steps, *_bake_step(stack, plan, bakes)]
    total = sum(step.usd for step in todo) + (plan.money.usd_expected if plan else 0.0)
    for step in todo:
        say(f"  {step}")
    say(f"  pulumi up -s {name}" + (f"   ({_price(plan)})" if plan else "   (nothing by the hour)"))
    result: dict[str, Any] = {
        "stack": name,
        "steps": [step.call for step in todo],
        "usd_expected": round(total, 2),
        "usd_at_most": round(places.usd_at_most(plan), 2) if plan else 0,
    }
    if dry_run:
        return result
    if not confirmed(f"About ${total:.2f}. Go on?"):
        raise UserError("nothing was done", "a yes", f"elson up {name}")
    _build(stack, todo, run, say)
    return result | _pulumi_up(name, say, waits)


def _checked(stack: Stack, say: Say) -> steps.Needs:
    findings = doctor.examine(stack)
    region = stack.spec.machine.region if stack.spec.machine else "us-central1"
    unresolved = any(not base["digest"] for base in images.bases().values())
    needs = steps.needed(findings, stack.spec, stack.project, region, unresolved=unresolved)
    for finding in findings:
        if not finding.ok and finding not in needs.blockers:  # those are the error's
            say(str(finding))
    if needs.blockers:
        first, *rest = needs.blockers
        more = "".join(f"; {finding.name}: {finding.found}" for finding in rest)
        fixes = "; ".join(dict.fromkeys(finding.fix for finding in needs.blockers))
        raise UserError(f"{stack.name} cannot go up: {first.name}: {first.found}{more}", "what only you can give", fixes)
    return needs


def _planned(stack: Stack, say: Say) -> Plan | None:
    if stack.role == "foundation":
        return None
    plan = stacks.planned(stack)
    for line in tables.summary(plan):
        say(line)
    for warning in plan.warnings:
        say(f"warning: {warning}")
    return plan.accept()


def _price(plan: Plan) -> str:
    money = plan.money
    usual = f"${money.usd_expected:.2f} for the job" if plan.role == "train" else f"${money.usd_per_hour:.2f} an hour"
    return f"{usual}, at most ${places.usd_at_most(plan):.2f}"


def _bake_step(stack: Stack, plan: Plan | None, allowed: bool) -> list[steps.BuildStep]:
    if plan is None or not allowed:
        return []
    wanted = machine_of(stack.name, stack.spec)
    if wanted.provisioning_model == "RUN":  # Cloud Run has no boot image
        return []
    zone = (wanted.zones or machine(wanted.machine_type).zones_in(wanted.region))[0]
    try:
        image = bake.plan(stack.spec, plan.role, stack.project, zone, Path(tempfile.gettempdir()), wanted.baked_model).image
    except UserError:  # the containers are not built yet, so there is no image of them either
        image = ""
    step = steps.bake(plan, stack.name, stack.project, zone, image)
    return [step] if step else []


def _build(stack: Stack, todo: list[steps.BuildStep], run: Callable[[tuple[str, ...]], None], say: Say) -> None:
    for step in todo:
        if step.call == ("up", "foundation"):
            deploy.up("foundation")
            # The foundation shows what could not be looked at before: a quota, a model that is there already.
            _checked(stacks.load(stack.name), say)
        elif step.call[:2] == ("images", "bake"):
            _try(run, step, say)
        else:
            run(step.call)


def _try(run: Callable[[tuple[str, ...]], None], step: steps.BuildStep, say: Say) -> None:
    try:
        run(step.call)
    except UserError as error:
        say(f"the boot image was not made, and the stock one does too, {step.why.split(':')[0]} aside: {error.found}")


def _pulumi_up(name: str, say: Say, waits: bool) -> dict[str, Any]:
    outputs = deploy.up(name)
    stack = stacks.load(name)
    result: dict[str, Any] = {"outputs": outputs}
    if stack.role == "foundation":
        return result | {"next": "next: elson up train-h100"}
    job, status = outputs.get("job", ""), outputs.get("status", "")
    if status == "complete":
        return result | {
            "next": f"{outputs.get('artifact')} is there already: nothing ran. To serve it: elson models promote {outputs.get('artifact')}; elson up serve-l4"
        }
    if status == "stopped":
        raise UserError(
            f"{job} ended without a result, and its group stays at 0",
            "a job that may begin",
            f"elson status {job} --log 200; elson retry {job}; elson up {name}",
        )
    of = {"run_jobs": " ".join(outputs["jobs"])} if outputs.get("jobs") else {"group": outputs.get("group", "")}
    where = {"project": stack.project, "region": outputs.get("region", ""), **of}
    # Pulumi leaves the sizes of several places to the watchdog, and one that was stopped meanwhile is 1 in its state: a job without a VM begins here.
    if where.get("group") and (problem := jobs.begin(stack.spec.buckets, job, where)):
        say(f"no VM could be asked for ({problem}): elson retry {job}")
    if not waits or not job:
        return result | {"next": f"follow it: elson status {job}"}
    say(f"following {job}; Ctrl-C leaves it running")
    try:
        result["state"] = follow.follow(stack.spec.buckets, job, stack.role, where, say)
    except KeyboardInterrupt:
        say(f"{job} goes on without this terminal: elson status {job}; elson down {name} ends it")
        raise
    after = f"elson models promote {stack.spec.names.qdora}; elson up serve-l4" if stack.role == "train" else "infra/README.md, section 4, says how to ask it"
    return result | {"next": f"{result['state']['status']}. Next: {after}"}
