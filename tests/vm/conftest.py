"""Simulated VMs: what they need, made once; a world for each test that asks for one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.artifacts import layout
from runners.cloud import jobs
from runners.identity import stage_id
from runners.spec import BaseModelSpec, BucketSpec, CodeDigests, DatasetSpec, MachineSpec, Spec, spec_digest
from tests.vm.simulation import golden, images, world
from tests.vm.simulation.world import World


def missing() -> str:
    """Why no VM can be simulated here, or an empty text."""
    if os.geteuid() != 0:
        return "no root: simulated VMs need mounts and network namespaces"
    programs = ("systemd-nspawn", "dockerd", "docker-registry", "runc", "ip", "iptables", "openssl", "gpg", "buildah", "dpkg-deb")
    absent = [program for program in programs if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    return f"not installed: {', '.join(absent)} (`make system` installs them)" if absent else ""


@pytest.fixture(scope="session")
def simulation() -> Iterator[dict[str, str]]:
    """Golden root, certificates, images in a registry; yields the images' pinned references. Made by one session at a time, used by all."""
    if reason := missing():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    golden.STATE.mkdir(parents=True, exist_ok=True)
    with (golden.STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            world.remove_what_a_killed_run_left()
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_SH)  # another worker of this run has made everything, and its worlds are alive
        golden.prepare()
        pinned = images.pushed()
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield pinned


@pytest.fixture
def cloud(simulation: dict[str, str], request: pytest.FixtureRequest) -> Iterator[World]:
    """An empty cloud of the test's own."""
    with world.opened(request.node.name.removeprefix("test_")[:20].strip("_")) as opened:
        yield opened
        print(opened.story())  # shown when the test fails


@pytest.fixture
def spec() -> Spec:
    """A resolved spec for a VM, as far as the agent reads one."""
    return Spec(
        buckets=BucketSpec(models="gs://models", scratch="gs://scratch"),
        base_model=BaseModelSpec(id="base-1"),
        dataset=DatasetSpec(id="data-1"),
        code=CodeDigests(train="a", merge="b", quantize="c"),
        machine=MachineSpec(machine_type="a3-highgpu-1g", region="us-central1", max_attempts=3),
    )


@pytest.fixture
def start(cloud: World, simulation: dict[str, str]) -> Callable[..., World]:
    """Start the group with a spec, under the names that a plan gives job and group; stand-in containers unless told otherwise."""

    def started(
        spec: Spec, role: str = "train", standin: dict[str, Any] | None = None, job: str = "", state: dict[str, Any] | None = None, **attributes: str
    ) -> World:
        job = job or stage_id(spec, "quantize")
        planned = layout.spec(spec.buckets, spec_digest(spec))
        cloud.put(planned, spec.model_dump_json().encode())
        if state:
            cloud.put(f"gs://scratch/jobs/{job}/state.json", json.dumps({"job_id": job, "role": role, **state}).encode())
        stages = ("train", "quantize", "serve", "gateway")
        pinned = {stage: simulation["standin" if standin is not None and stage != "gateway" else stage] for stage in stages}
        cloud.start_group(
            {
                "elson-role": role,
                "elson-job-id": job,
                "elson-group": jobs.group_name(job),
                "elson-region": "us-central1",
                "elson-spec-uri": planned,
                "elson-images": json.dumps(pinned),
                "elson-max-minutes": "150",
                "elson-max-vms": "5",
                "elson-secret": "projects/proj/secrets/elson-api-key",
                "standin": json.dumps(standin or {}),
                **attributes,
            }
        )
        return cloud

    return started


@pytest.fixture
def state_folder() -> Path:
    """Where the simulation keeps its files."""
    return golden.STATE
