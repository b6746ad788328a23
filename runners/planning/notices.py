"""Why a plan is refused and what it warns of, whatever runs on the machine, each with the number found, the number needed, and what would fix it.

What only a training or only a server has: ``training_notices.py``, ``serving_notices.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

from runners.planning import cloud_run, training
from runners.planning.machines import MACHINES, Machine
from runners.planning.parts import Notice, Plan
from runners.planning.session import BAKED_BOOT_S, boot
from runners.spec import BaseModelSpec, Spec
from runners.training.shape import QWEN2_14B, Shape
from runners.vm.decide import AT_WORK_MINUTES


def assumed_shape(spec: Spec, shapes: tuple[Shape, ...]) -> tuple[Notice, ...]:
    """Warn that memory, time and dollars may be another model's: there was no config.json to read, so the default model's shape was taken.

    ``shapes`` are those of the base model, or of what is served, one or two.
    """
    default, serves = BaseModelSpec().name, spec.machine is not None and spec.machine.role == "serve"
    names = [one.model for one in spec.serve.models()] if serves else [spec.base_model.name]
    ours = {"production", default, *spec.names.model_dump().values()} if serves and spec.base_model.name == default else {default}
    return tuple(
        Notice(
            f"the shape of {name} is assumed: {shape.layers} layers of {shape.hidden}, {shape.parameters / 1e9:.1f} billion parameters, as {default} has",
            "the model's own config.json, in the bucket",
            "plan without --offline once the model is published (elson base publish, elson up): memory, time and dollars are another model's until then",
        )
        for name, shape in zip(names, shapes, strict=True)
        if shape is QWEN2_14B and name not in ours
    )


def at_work_elsewhere(job_id: str, machine: str) -> tuple[Notice, ...]:
    """Refuse a second machine for one training: it has one id, one state and one result, on a VM and on Cloud Run alike."""
    if not machine:
        return ()
    fix = f"elson status {job_id}; or elson down the stack that it is of, and wait {AT_WORK_MINUTES} minutes"
    return (Notice(f"{job_id} is at work on {machine}", "one machine for one job: two would be paid for one result", fix),)


def machine_refusals(plan: Plan) -> Iterator[Notice]:
    """What the machine, its price or its disk makes impossible."""
    host, wanted = plan.machine, plan.wanted
    if wanted.provisioning_model not in host.provisioning:
        sold = " or ".join(host.provisioning)
        yield Notice(f"{host.name} is not sold as {wanted.provisioning_model}", sold, f"machine.provisioning_model: {host.provisioning[0]}")
    hourly, replicas = plan.money.usd_per_hour_grown or plan.money.usd_per_hour, plan.spec.serve.replicas
    if wanted.max_usd_per_hour is not None and hourly > wanted.max_usd_per_hour:
        several = f" with {replicas.max} servers" if replicas.several else ""
        yield Notice(
            f"{host.name} in {wanted.region} costs ${hourly:.2f} an hour{several}",
            f"at most machine.max_usd_per_hour, ${wanted.max_usd_per_hour:.2f}",
            "raise it, or choose another machine",
        )
    if host.is_run:
        yield from _run_refusals(plan)
        return
    if not (wanted.zones or host.zones_in(wanted.region)):
        known = ", ".join(region for region, _ in host.zones)
        yield Notice(f"no zone of {wanted.region} is known to have {host.name}", f"machine.zones, or a region in {known}", "set machine.zones")
    if foreign := [zone for zone in wanted.zones if not zone.startswith(wanted.region + "-")]:
        yield Notice(f"zone {foreign[0]} is not in {wanted.region}", f"zones of {wanted.region}", "edit machine.zones or machine.region")
    if plan.disk_needed_gb > wanted.disk_gb:
        parts = ", ".join(f"{name} {gb:.0f}" for name, gb in plan.disk)
        needed = -(-plan.disk_needed_gb // 10) * 10
        yield Notice(
            f"a disk of {wanted.disk_gb} GB fills up: {parts} and a tenth free make {plan.disk_needed_gb:.0f} GB",
            f"at least {needed:.0f} GB (it costs cents while the VM lives, and the job survives a scratch disk that does not mount)",
            f"machine.disk_gb: {needed:.0f}",
        )
    if wanted.role == "train" and wanted.max_run_minutes < wanted.deadline_minutes:
        yield Notice(
            f"machine.max_run_minutes {wanted.max_run_minutes} is below deadline_minutes {wanted.deadline_minutes}: the platform would delete a healthy job",
            "the platform's limit above the job's own",
            f"machine.max_run_minutes: {wanted.deadline_minutes + 30}",
        )


def _run_refusals(plan: Plan) -> Iterator[Notice]:
    """What Cloud Run does not allow. Its disk is its memory."""
    host, wanted, given = plan.machine, plan.wanted, plan.disk_given_gb
    if wanted.region not in host.regions:
        open_there = ", ".join(host.regions)
        yield Notice(f"Cloud Run has no {host.accelerator.name} for everybody in {wanted.region}", open_there, f"machine.region: {host.regions[0]}")
    if plan.disk_needed_gb > given:
        parts = ", ".join(f"{name} {gb:.0f}" for name, gb in plan.disk)
        alike = (other for other in MACHINES.values() if other.is_run and other.accelerator == host.accelerator)
        larger = [other.name for other in alike if training.main_memory_gb(other) >= plan.disk_needed_gb]
        yield Notice(
            f"{host.name} has {host.memory_gb} GiB of memory ({given:.0f} GB), which is its disk too: {parts} "
            f"and a tenth free make {plan.disk_needed_gb:.0f} GB",
            f"at least {plan.disk_needed_gb:.0f} GB",
            f"machine.machine_type: {larger[0]}" if larger else "a VM (provisioning_model SPOT or STANDARD)",
        )
    if wanted.role == "train" and wanted.max_run_minutes > cloud_run.TASK_AT_MOST_MINUTES:
        yield Notice(
            f"machine.max_run_minutes is {wanted.max_run_minutes}",
            f"at most {cloud_run.TASK_AT_MOST_MINUTES}, Cloud Run's limit for a try of a task with a GPU (the next goes on from the checkpoint)",
            f"machine.max_run_minutes: {cloud_run.TASK_AT_MOST_MINUTES}",
        )
    if wanted.role == "train" and not plan.spec.merge.publish:
        yield Notice(
            "merge.publish is false", "true: on Cloud Run a second task quantizes, and reads the merged model from the bucket", "merge: {publish: true}"
        )
    if wanted.role == "serve" and plan.spec.serve.ready_timeout_s > cloud_run.STARTUP_AT_MOST_S:
        yield Notice(
            f"serve.ready_timeout_s is {plan.spec.serve.ready_timeout_s}",
            f"at most {cloud_run.STARTUP_AT_MOST_S}, Cloud Run's limit for a start with a GPU",
            f"serve.ready_timeout_s: {cloud_run.STARTUP_AT_MOST_S}",
        )


def machine_warnings(plan: Plan) -> Iterator[Notice]:
    """What somebody should know of the machine and its price."""
    if "not verified" in plan.money.source:
        yield Notice(f"the prices of {plan.money.priced_at} are {plan.money.source}", "a table read from the billing catalogue", "elson prices refresh")
    if not plan.wanted.image_is_baked and not plan.machine.is_run:
        slow = sum(phase.expected_s for phase in boot(plan.wanted))
        yield Notice(
            f"every boot installs docker and pulls images, about {slow / 60:.0f} minutes", f"{slow - BAKED_BOOT_S.expected:.0f} s less", "elson images bake"
        )


def dotted(host: Machine) -> str:
    """The CUDA compute capability of a machine's cards, as 8.9."""
    return ".".join(map(str, host.accelerator.capability))
