"""A stack with a machine: plan, refuse or warn, then a group of one VM, or a service or jobs of Cloud Run.

All of them end by themselves, and nothing here outlives ``pulumi destroy``.
"""

from __future__ import annotations

from typing import Any

import pulumi

from infra.components.balancer import Balancer
from infra.components.egress import Egress
from infra.components.exposure import Exposure
from infra.components.foundation_reference import FoundationReference
from infra.components.group import Group
from infra.components.run_service import RunService
from infra.components.run_training import RunTraining
from infra.plan import GroupPlan, plan_groups
from infra.run_plan import ServicePlan, TrainingPlan, plan_service, plan_training
from runners.planning import places, stacks, tables
from runners.planning.parts import Plan
from runners.planning.stacks import ResolvedStack, Stack
from runners.spec import Spec


def build(stack: Stack) -> dict[str, Any]:
    """Declare the stack; returns its outputs. Raises UserError for whatever the plan refuses."""
    found = stacks.look_up(stack.spec)
    plan = stacks.plan_of(stack.name, found)
    _say(plan, found)
    if not found.done:
        plan.accept()
    foundation = FoundationReference(stack.spec)
    money = {"usd_per_hour": round(plan.money.usd_per_hour, 3), "usd_at_most": round(places.usd_at_most(plan), 2)}
    if plan.machine.is_run and plan.role == "serve":
        return _service(stack, plan_service(stack.name, found), foundation) | money
    if plan.machine.is_run and (training := plan_training(stack.name, stack.project, found)):
        return _training(stack, training, foundation) | money
    groups = () if plan.machine.is_run else plan_groups(stack.name, found, plan)
    if not groups:
        return {"status": "complete", "job": found.job_id, "artifact": found.done.name if found.done else ""}
    return _declare(stack, groups, foundation) | money


def _declare(stack: Stack, groups: tuple[GroupPlan, ...], foundation: FoundationReference) -> dict[str, Any]:
    group, *others = groups
    exposure = Exposure(stack.name, group, group.access, foundation) if group.access and group.access.is_open else None
    ways_out = {one.region: one for one in reversed(groups) if one.needs_nat and group.size}
    for region, one in sorted(ways_out.items()):
        Egress(stack.name if region == group.region else f"{stack.name}-{region}", one, foundation)
    made = Group(stack.name, group, foundation, address=exposure.address if exposure else None)
    for one in others:
        Group(f"{stack.name}-{one.place}", one, foundation, address=None)
    outputs: dict[str, Any] = {
        "status": "asked for" if group.size else "stopped",
        "job": group.job_id,
        "group": made.group_name,
        "region": group.region,
        "spec": made.spec_uri,
        "watch": f"elson status {group.job_id}",
    }
    balancer = Balancer(stack.name, group, group.balancing, made.group, foundation) if group.balancing else None
    if others:
        outputs["places"] = [f"{one.name}, {one.region}" for one in groups]
    if group.role == "serve":
        outputs |= _models(group.spec)
        reached = balancer or exposure
        outputs["address"] = reached.address if reached else "through IAP: see infra/README.md"
    return outputs


def _service(stack: Stack, service: ServicePlan, foundation: FoundationReference) -> dict[str, Any]:
    made = RunService(stack.name, service, foundation)
    return {
        "status": "asked for",
        **_models(service.spec),
        "address": made.uri,
        "region": service.region,
        "spec": made.spec_uri,
        "call": f"gcloud run services proxy {service.name} --region {service.region} --port {service.port}",
    }


def _models(spec: Spec) -> dict[str, Any]:
    second = spec.serve.second
    found = {"model": spec.serve.model, "model_id": spec.serve.model_id}
    return found | ({"second_model": second.model, "second_model_id": second.model_id} if second else {})


def _training(stack: Stack, training: TrainingPlan, foundation: FoundationReference) -> dict[str, Any]:
    made = RunTraining(stack.name, training, foundation)
    return {
        "status": "asked for" if training.train.start_token else "stopped",
        "job": training.job_id,
        "jobs": [training.train.name, training.quantize.name],
        "region": training.region,
        "spec": made.spec_uri,
        "watch": f"elson status {training.job_id}",
    }


def _say(plan: Plan, found: ResolvedStack) -> None:
    for line in tables.summary(plan):
        pulumi.log.info(line)
    for warning in plan.warnings:
        pulumi.log.warn(str(warning))
    if found.done:
        pulumi.log.info(f"{found.done.name} ({found.done.id}) is complete: there is nothing to run, and nothing is spent")
    if found.over:
        pulumi.log.warn(
            f"the job {found.job_id} is over ({found.over}); nothing is started. When it is fixed: elson retry {found.job_id}, then pulumi up --refresh"
        )
