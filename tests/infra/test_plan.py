"""What the cloud is asked for, decided without a cloud: every machine, every way to buy it, every way to open it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from conftest import IMAGES, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.plan import GroupPlan, Scheduling, plan_groups, plan_scheduling, service_port
from runners.artifacts.registry import Entry
from runners.planning import stacks
from runners.planning.machines import MACHINES, load_prices
from runners.planning.plan import make_plan
from runners.planning.stacks import ResolvedStack
from runners.spec import MachineSpec, ServeSpec, Spec, parse

NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = re.compile(r"[a-z0-9_-]{0,63}")


def planned(
    job: str = "qdora-0123456789abcdef", over: str = "", done: Entry | None = None, serve: dict[str, Any] | None = None, **host: Any
) -> tuple[GroupPlan, ...]:
    machine = MachineSpec(**{"machine_type": "a3-highgpu-1g", "disk_gb": 200, "max_run_minutes": 1440, **host})
    spec = parse({"machine": machine.model_dump(), "environments": IMAGES, "serve": serve or {}})
    return plan_groups("a-stack", ResolvedStack(spec, job, over=over, done=done), make_plan("a-stack", spec, load_prices()))


def group(**values: Any) -> GroupPlan:
    (found,) = planned(**values)
    return found


@settings(deadline=None)
@given(
    st.sampled_from([(name, model) for name, machine in sorted(MACHINES.items()) for model in machine.provisioning if model != "RUN"]),
    st.sampled_from(["train", "serve"]),
    st.sampled_from(["qdora-0123456789abcdef", "serve-fedcba9876543210"]),
    st.booleans(),
)
def test_whatever_is_asked_for_has_valid_names_and_an_end(what: tuple[str, Any], role: Any, job: str, baked: bool) -> None:
    name, model = what
    found = group(job=job, role=role, machine_type=name, provisioning_model=model, image_is_baked=baked)
    assert NAME.fullmatch(found.name)
    assert NAME.fullmatch(found.template_name())
    assert found.template_name().startswith(found.name)
    assert all(LABEL.fullmatch(value) for _, value in found.labels)
    assert found.scheduling.termination_action == "DELETE"
    assert 0 < found.scheduling.max_run_s <= 7 * 86_400
    assert not found.scheduling.automatic_restart
    assert found.scheduling.preemptible == (model == "SPOT")
    assert (found.scheduling.notice_s == 120) == (model == "SPOT")
    assert found.zones
    assert (found.repair.health_port is not None) == (role == "serve")
    assert (found.repair.size_mode == "BULK") == (model == "FLEX_START")
    assert found.repair.initial_delay_s is None or found.repair.initial_delay_s <= 3600
    assert found.needs_nat == (not baked)
    images = json.loads(found.metadata("s", "gs://b")["elson-images"])
    assert set(images) == ({"train", "quantize"} if role == "train" else {"serve", "gateway"})
    assert ("elson-secret" in found.metadata("s", "gs://b")) == (role == "serve")


def test_a_template_is_named_by_what_it_holds() -> None:
    assert group().template_name("subnet") == group().template_name("subnet")
    assert group().template_name() != group(disk_gb=300).template_name()
    assert len({group().template_name(*values) for values in (("a", "b"), ("a", "c"), ("b", "b"), ("a", "b", "203.0.113.7"))}) == 4
    assert group().name == group(disk_gb=300).name


def test_done_and_over() -> None:
    entry = Entry(name="a-q4", id="qdora-0123456789abcdef", kind="qdora", status="ready", manifest="0123456789abcdef")
    assert planned(done=entry) == ()
    assert group(over="failed: attempts used up").size == 0
    assert group().size == 1


def test_no_notice_where_none_is_wanted() -> None:
    assert plan_scheduling(MachineSpec(machine_type="a3-highgpu-1g", preemption_notice_s=0)).notice_s is None
    assert isinstance(plan_scheduling(MachineSpec(machine_type="a3-highgpu-1g")), Scheduling)


@pytest.mark.parametrize(
    ("serve", "ranges", "port"),
    [
        ({}, (), 8000),
        ({"allowed_cidrs": ["198.51.100.0/24"]}, ("198.51.100.0/24",), 8000),
        ({"domain": "a.example.org", "open_to_the_internet": True}, ("0.0.0.0/0",), 443),
        ({"domain": "a.example.org", "open_to_the_internet": True, "allowed_cidrs": ["198.51.100.0/24"]}, ("0.0.0.0/0",), 443),
    ],
)
def test_who_reaches_a_server(serve: dict[str, Any], ranges: tuple[str, ...], port: int) -> None:
    found = group(role="serve", machine_type="g2-standard-8", provisioning_model="STANDARD", serve=serve)
    assert found.access is not None
    assert (found.access.ranges, found.access.port) == (ranges, port)
    assert found.needs_nat != found.access.is_open
    assert service_port(Spec(serve=ServeSpec())) == 8000


def test_the_project_file_points_to_what_is_there() -> None:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    assert project["name"] == "elson"
    assert (ROOT / project["main"] / "__main__.py").exists()
    assert ROOT / project["stackConfigDir"] == stacks.FOLDER / stacks.MINE and stacks.tracked("train-h100")
    assert f"{project['stackConfigDir']}/" in (ROOT / ".gitignore").read_text().split()
    assert len((ROOT / project["main"] / "__main__.py").read_text().splitlines()) <= 40
    assert yaml.safe_load((ROOT / "infra" / "policies" / "PulumiPolicy.yaml").read_text())["runtime"]["name"] == "python"
