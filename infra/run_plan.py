"""What Cloud Run is asked to make, decided before anything is declared: a service that serves, or the two jobs that train. Pure, like plan.py."""

from __future__ import annotations

import re
from dataclasses import dataclass

from infra.plan import labels, plan_bounds, spec_uri
from runners.errors import UserError
from runners.outside import digest
from runners.planning import cloud_run
from runners.planning.machines import Machine, machine
from runners.planning.parts import machine_of
from runners.planning.stacks import ResolvedStack
from runners.spec import Spec
from runners.vm import routes

#: Beside vLLM in each instance: the only container that others reach.
GATEWAY_CPU, GATEWAY_MEMORY = "1", "512Mi"
#: The platform's bound: https://docs.cloud.google.com/run/docs/about-concurrency
REQUESTS_AT_ONCE = 1000
#: The watcher of vLLM, on loopback, which the containers of an instance share; vLLM's own ports are those of a VM.
READY_PORT = 8002
WORK = "/tmp/elson"  # noqa: S108 - an instance of its own; its file system is memory
KEYS_FOLDER = "/secrets/elson"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,47}[a-z0-9])?")


@dataclass(frozen=True)
class ContainerPlan:
    """One container: ``limits`` as Cloud Run writes them."""

    name: str
    image: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    limits: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ServicePlan:
    """A service: gateway and vLLM in each instance."""

    name: str
    region: str
    accelerator: str
    spec: Spec
    gateway: ContainerPlan
    server: ContainerPlan
    port: int
    probe: dict[str, int]
    requests_at_once: int
    instances: tuple[int, int]
    is_open: bool
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class JobPlan:
    """One job of one task."""

    name: str
    container: ContainerPlan
    timeout_s: int
    retries: int
    start_token: str | None


@dataclass(frozen=True)
class TrainingPlan:
    """Training and merging, then quantizing: two jobs, since a task has one container and each stage its own packages."""

    job_id: str
    region: str
    accelerator: str
    spec: Spec
    train: JobPlan
    quantize: JobPlan
    labels: tuple[tuple[str, str], ...]


def plan_service(stack: str, found: ResolvedStack) -> ServicePlan:
    """The service of a serve stack. Raises UserError for a stack whose name no service can have."""
    spec, wanted = found.spec, machine_of(stack, found.spec)
    host = machine(wanted.machine_type)
    if not _NAME.fullmatch(f"elson-{stack}"):
        raise UserError(f"elson-{stack} is no name for a service of Cloud Run", "at most 49 of a-z 0-9 -", "rename the stack file")
    serve = spec.serve.model_dump(mode="json")
    at_once = min(sum(routes.requests(serve)), REQUESTS_AT_ONCE)
    gateway = {
        "ELSON_SITE": f":{spec.serve.port}",
        **routes.gateway(serve),
        "ELSON_HEALTH": "health_by_server",
        "ELSON_HEALTH_UPSTREAM": f"127.0.0.1:{READY_PORT}",
        "ELSON_KEYS": f"{KEYS_FOLDER}/keys",
        "ELSON_SECRETS": WORK,
        "ELSON_STORE": f"{WORK}/store",
    }
    most = str(plan_bounds(wanted, spec.serve.replicas).minutes)  # read by the watchdog
    server = {"HOME": WORK, "ELSON_JOB": found.job_id, "ELSON_MAX_MINUTES": most, "ELSON_GATEWAY_KEYS": f"{KEYS_FOLDER}/keys"}
    arguments = ("serve", "--spec", spec_uri(spec), "--work", WORK, *routes.serve_ports(serve), "--ready-port", str(READY_PORT))
    return ServicePlan(
        name=f"elson-{stack}",
        region=wanted.region,
        accelerator=host.accelerator.type,
        spec=spec,
        gateway=ContainerPlan(
            "gateway",
            _image(spec, "gateway"),
            ("/bin/sh", "/usr/local/bin/start-gateway"),
            tuple(gateway.items()),
            (("cpu", GATEWAY_CPU), ("memory", GATEWAY_MEMORY)),
        ),
        server=ContainerPlan("serve", _image(spec, "serve"), arguments, tuple(server.items()), _limits(host)),
        port=spec.serve.port,
        probe=cloud_run.startup_probe(spec.serve.ready_timeout_s),
        requests_at_once=at_once,
        instances=(wanted.min_instances, wanted.max_instances),
        is_open=spec.serve.open_to_the_internet,
        labels=labels(stack, "serve", found.job_id),
    )


def plan_training(stack: str, project: str, found: ResolvedStack) -> TrainingPlan | None:
    """The jobs of a train stack; None when the artifact is complete. A job that ended without one is not started again until somebody says so."""
    if found.done:
        return None
    spec, wanted = found.spec, machine_of(stack, found.spec)
    host = machine(wanted.machine_type)
    suffix = found.job_id.rsplit("-", 1)[-1][:8]
    second = f"elson-quantize-{suffix}"
    most = str(plan_bounds(wanted, spec.serve.replicas).minutes)  # read by the watchdog
    place = {"ELSON_JOB": found.job_id, "ELSON_MAX_MINUTES": most, "ELSON_PROJECT": project, "ELSON_REGION": wanted.region, "HOME": WORK}
    parts = {"train": {"ELSON_TASK": "train merge", "ELSON_NEXT": f"projects/{project}/locations/{wanted.region}/jobs/{second}"}, "quantize": {}}
    # A used token is the name of an execution that is there: each new beginning has its own.
    token = None if found.over else f"r{digest([found.job_id, found.retries])[:6]}"
    jobs = {
        stage: JobPlan(
            name=f"elson-{stage}-{suffix}",
            container=ContainerPlan(
                stage,
                _image(spec, stage),
                ("job", "--spec", spec_uri(spec), "--work", WORK),
                tuple({**place, "ELSON_TASK": stage, **more}.items()),
                _limits(host),
            ),
            timeout_s=wanted.max_run_minutes * 60,
            retries=wanted.max_attempts - 1,
            start_token=token if stage == "train" else None,
        )
        for stage, more in parts.items()
    }
    return TrainingPlan(found.job_id, wanted.region, host.accelerator.type, spec, jobs["train"], jobs["quantize"], labels(stack, "train", found.job_id))


def _image(spec: Spec, image: str) -> str:
    found = getattr(spec.environments, image)
    return str(found)


def _limits(host: Machine) -> tuple[tuple[str, str], ...]:
    return (("cpu", str(host.vcpus)), ("memory", f"{host.memory_gb}Gi"), ("nvidia.com/gpu", "1"))
