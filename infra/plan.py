"""What the cloud is asked to make, decided before anything is declared: a spec in, a frozen plan out. Pure; every ``if spot`` lives here.

What the job needs and costs, and whether it can work at all, is ``runners/planning``. Components only write these decisions down.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from runners.artifacts import layout
from runners.cloud.jobs import group_name
from runners.fields import ReplicaSpec
from runners.outside import digest
from runners.pipeline import images_of
from runners.planning import scaling, starting
from runners.planning.machines import Machine, machine
from runners.planning.parts import Plan, machine_of
from runners.planning.stacks import ResolvedStack
from runners.spec import MachineSpec, Spec, spec_digest
from runners.vm.containers import HEALTH_PORT

#: Google's health checkers, and the range IAP connects from.
HEALTH_CHECK_RANGES = ("35.191.0.0/16", "130.211.0.0/22")
IAP_RANGE = "35.235.240.0/20"
HTTPS_PORT = 443


@dataclass(frozen=True)
class Scheduling:
    """How a VM is bought and how it ends by the platform's hand."""

    provisioning_model: str
    preemptible: bool
    max_run_s: int
    notice_s: int | None
    termination_action: str = "DELETE"
    on_host_maintenance: str = "TERMINATE"
    automatic_restart: bool = False


@dataclass(frozen=True)
class Repair:
    """What the group does about a VM that is lost or unhealthy. ``initial_delay_s`` is set for servers only."""

    on_failure: str
    change_zone: str
    target_shape: str
    size_mode: str
    update_type: str
    health_port: int | None = None
    initial_delay_s: int | None = None
    # Surge and unavailability are counted per zone: a second VM is never started beside the first, unless there may be several.
    replacement_method: str = "RECREATE"
    redistribution: str = "NONE"
    max_surge: int = 0
    max_unavailable: int | None = None


@dataclass(frozen=True)
class Scaling:
    """How an autoscaler sizes a group. ``targets`` are values a VM to keep; at most one VM is taken away in ``scale_in_window_s``."""

    least: int
    most: int
    cooldown_s: int
    targets: tuple[tuple[str, float], ...]
    scale_in_window_s: int = scaling.STABILIZATION_S


@dataclass(frozen=True)
class Balancing:
    """The load balancer before a group of several. Internal without ``is_external``; HTTPS with a certificate.

    A server that is taken away finishes its requests within ``draining_s``, which is as long as any of them may take. ``name`` is another one where a part
    would have to be replaced: the new one is made before the old one goes.
    """

    name: str
    port: int
    certificate: str | None
    is_external: bool
    draining_s: int = scaling.REQUEST_AT_MOST_S


@dataclass(frozen=True)
class Access:
    """Who reaches the server besides IAP. No ranges: no external address at all."""

    ranges: tuple[str, ...]
    port: int

    @property
    def is_open(self) -> bool:
        """Whether the VM has an external, static address."""
        return bool(self.ranges)


@dataclass(frozen=True)
class Bounds:
    """What stops a job from outside its own code: the dead man's switch counts the minutes of its VM, the watchdog those of all VMs, and the VMs."""

    minutes: int
    vms: int


@dataclass(frozen=True)
class GroupPlan:
    """A regional group of one VM, or of as many as its autoscaler says; that and the load balancer are no part of the template, nor of its name."""

    name: str
    job_id: str
    role: str
    size: int
    machine: Machine
    region: str
    zones: tuple[str, ...]
    subnet: str
    image: str
    disk_gb: int
    scheduling: Scheduling
    repair: Repair
    access: Access | None
    spec: Spec
    bounds: Bounds
    labels: tuple[tuple[str, str], ...]
    needs_nat: bool
    scaling: Scaling | None = field(default=None, repr=False)
    balancing: Balancing | None = field(default=None, repr=False)
    place: int = 1
    places: tuple[tuple[tuple[str, str | int], ...], ...] = ()

    def template_name(self, *resolved: str | None) -> str:
        """Templates cannot be changed: another content has another name. ``resolved`` is what only the cloud knows: links and addresses."""
        from runners.vm import payload

        return f"{self.name}-{digest([repr(self), self.metadata('', ''), payload.metadata(), *resolved])[:8]}"

    def metadata(self, secret: str, scratch: str) -> dict[str, str]:
        """The VM's values; the constant part comes from ``runners.vm.payload``. ``scratch`` is unused when empty (for digests)."""
        images = {image: getattr(self.spec.environments, image) for image in images_of(self.role)}
        values = {
            "elson-role": self.role,
            "elson-job-id": self.job_id,
            "elson-group": self.name,
            "elson-region": self.region,
            "elson-spec-uri": f"{scratch or self.spec.buckets.scratch}/{spec_name(self.spec)}",
            "elson-images": json.dumps(images, sort_keys=True),
            "elson-max-minutes": str(self.bounds.minutes),
            "elson-max-vms": str(self.bounds.vms),
            "enable-guest-attributes": "TRUE",
            "enable-oslogin": "TRUE",
            "block-project-ssh-keys": "TRUE",
            "serial-port-enable": "FALSE",
        }
        if self.scaling:
            values["elson-replicas"] = str(self.scaling.most)
        if self.places:
            values["elson-places"] = json.dumps([dict(place) for place in self.places])
        return values | ({"elson-secret": secret} if self.role == "serve" else {})


def spec_uri(spec: Spec) -> str:
    """Where a spec is in the scratch bucket."""
    return layout.spec(spec.buckets, spec_digest(spec))


def spec_name(spec: Spec) -> str:
    """The name of that object."""
    return spec_uri(spec).removeprefix(spec.buckets.scratch + "/")


def labels(stack: str, role: str, job_id: str) -> tuple[tuple[str, str], ...]:
    """What everything that a stack starts is labelled with."""
    return (("elson-stack", stack), ("elson-role", role), ("elson-job", job_id))


def plan_groups(stack: str, found: ResolvedStack, plan: Plan) -> tuple[GroupPlan, ...]:
    """The group of a stack, then one of size 0 for each other place that may be used; none when its artifact is complete: the same spec again spends nothing.

    Each place has a group of its own. A group's instance flexibility policy could hold several machine types, but one template holds their disk type (an H100
    wants Hyperdisk Balanced, which an A100 does not take), their provisioning model and the spec whose price and plan the records name.
    """
    if found.done:
        return ()
    first = plan_group(stack, found, plan)
    usable = [place for place in plan.places if not place.left_out]
    if len(usable) < 2 or usable[0].rank != 1:
        return (first,)
    groups = [first]
    for place in usable[1:]:
        made = plan_group(stack, replace(found, spec=place.spec), plan)
        groups.append(replace(made, name=f"{first.name}-{place.rank}", size=0, place=place.rank, bounds=first.bounds))
    asked = tuple((("group", group.name), ("region", group.region), ("patience", machine_of(stack, group.spec).patience_minutes)) for group in groups)
    return tuple(replace(group, places=asked) for group in groups)


def plan_group(stack: str, found: ResolvedStack, plan: Plan) -> GroupPlan:
    """The group of a train or serve stack. Raises UserError for a stack without a machine."""
    wanted = machine_of(stack, found.spec)
    spec = _with_planned_dtype(found.spec, plan)
    return GroupPlan(
        name=group_name(found.job_id),
        job_id=found.job_id,
        role=wanted.role,
        # A job that ended without an artifact stays ended, also under `pulumi up --refresh`, until somebody says otherwise.
        size=0 if found.over else spec.serve.replicas.min,
        machine=machine(wanted.machine_type),
        region=wanted.region,
        zones=wanted.zones or machine(wanted.machine_type).zones_in(wanted.region),
        subnet=wanted.subnet,
        image=wanted.image,
        disk_gb=wanted.disk_gb,
        scheduling=plan_scheduling(wanted),
        repair=plan_repair(wanted, spec),
        access=plan_access(spec) if wanted.role == "serve" else None,
        spec=spec,
        bounds=plan_bounds(wanted, spec.serve.replicas),
        scaling=plan_scaling(spec, plan.expected_s),
        balancing=plan_balancing(stack, spec) if spec.serve.replicas.several else None,
        labels=labels(stack, wanted.role, found.job_id),
        # A baked image fetches nothing but what private Google access reaches.
        needs_nat=not wanted.image_is_baked and not (wanted.role == "serve" and plan_access(spec).is_open),
    )


def plan_scheduling(wanted: MachineSpec) -> Scheduling:
    """Spot VMs get their notice; flex-start and standard ones are not preempted. All are deleted when their time is up."""
    spot = wanted.provisioning_model == "SPOT"
    return Scheduling(
        provisioning_model=wanted.provisioning_model,
        preemptible=spot,
        max_run_s=wanted.max_run_minutes * 60,
        notice_s=wanted.preemption_notice_s or None if spot else None,
    )


def plan_repair(wanted: MachineSpec, spec: Spec) -> Repair:
    """A lost VM is made again, in another zone if need be; a server also when it answers no completion.

    Flex-start is asked for in bulk mode, as the platform wants it, in one zone, and is not repaired: its VM either runs to its end or is asked for again.
    """
    flex = wanted.provisioning_model == "FLEX_START"
    serving, several = wanted.role == "serve", spec.serve.replicas.several
    zones = len(wanted.zones or machine(wanted.machine_type).zones_in(wanted.region))
    return Repair(
        on_failure="DO_NOTHING" if flex else "REPAIR",
        change_zone="NO" if flex else "YES",
        # An autoscaler works with EVEN and proactive redistribution alone (cloud.google.com/compute/docs/instance-groups/regional-mig-distribution-shape).
        target_shape="ANY_SINGLE_ZONE" if flex else "EVEN" if several else "ANY",
        size_mode="BULK" if flex else "INDIVIDUAL",
        # A training VM takes a new template when it is made again; a server is replaced at once.
        update_type="PROACTIVE" if serving else "OPPORTUNISTIC",
        health_port=HEALTH_PORT if serving else None,
        initial_delay_s=starting.healed_after_s(spec.serve, wanted) if serving else None,
        # A new server answers before an old one goes. A surge is at least the number of zones.
        replacement_method="SUBSTITUTE" if several else "RECREATE",
        redistribution="PROACTIVE" if several else "NONE",
        max_surge=zones if several else 0,
        max_unavailable=0 if several else max(1, zones),
    )


def plan_scaling(spec: Spec, starts_in_s: float) -> Scaling | None:
    """None for one server. A VM's figures count from when it is expected to be ready."""
    replicas = spec.serve.replicas
    if not replicas.several:
        return None
    return Scaling(replicas.min, replicas.max, round(starts_in_s), scaling.TARGETS)


def plan_balancing(stack: str, spec: Spec) -> Balancing:
    """Internal, unless the spec says so twice (a certificate and ``open_to_the_internet``, which spec.py holds together)."""
    serve = spec.serve
    port, is_external = HTTPS_PORT if serve.certificate else serve.port, serve.open_to_the_internet
    return Balancing(f"elson-{stack}-{'external' if is_external else 'internal'}-{port}", port, serve.certificate, is_external)


def plan_bounds(wanted: MachineSpec, replicas: ReplicaSpec) -> Bounds:
    """A little more than the job allows itself, so that it ends by itself when it can: half an hour over the deadline, two VMs over the attempts.

    A server has no deadline: its VMs together live no longer than one may, and a spot server may be taken often while it is in use. A group of several
    also makes a VM whenever it grows again, which is at most once in the time that it takes to lose one.
    """
    if wanted.role == "train":
        return Bounds(wanted.deadline_minutes + 30, wanted.max_attempts + 2)
    growing = wanted.max_run_minutes * 60 // scaling.STABILIZATION_S if replicas.max > replicas.min else 0
    return Bounds(wanted.max_run_minutes + 15, (3 * wanted.max_attempts + 2) * replicas.max + growing)


def plan_access(spec: Spec) -> Access:
    """Named ranges, or everybody where the spec says so twice (``open_to_the_internet`` and a domain, which spec.py holds together).

    Several servers are reached through their load balancer: none of them has an address of its own.
    """
    if spec.serve.replicas.several:
        return Access((), spec.serve.port)
    return Access(("0.0.0.0/0",) if spec.serve.open_to_the_internet else spec.serve.allowed_cidrs, service_port(spec))


def service_port(spec: Spec) -> int:
    """443 with a certificate when there is a domain, else the gateway's own port."""
    return HTTPS_PORT if spec.serve.domain else spec.serve.port


def _with_planned_dtype(spec: Spec, plan: Plan) -> Spec:
    # On a card without bf16 vLLM's "auto" would follow the model's config into a refusal.
    if plan.serving is None or plan.serving.dtype == "bfloat16":
        return spec
    return spec.model_copy(update={"serve": spec.serve.model_copy(update={"dtype": plan.serving.dtype})})
