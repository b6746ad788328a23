"""A group of several servers: what is declared for it, and that every stop still ends it. The stand-ins refuse what Compute refuses of an autoscaled group."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import engine
import pytest
from conftest import Cloud, foundation_outputs, job_state
from discovery import SCHEMAS, problems
from engine import Run

from infra.components.network import check_proxies
from infra.plan import plan_bounds
from infra.policies.rules import RULES
from runners.cloud.taken import taken
from runners.errors import UserError
from runners.fields import ReplicaSpec
from runners.planning import scaling
from runners.planning.stacks import look_up
from runners.spec import FoundationSpec, Spec, parse
from tests.cloud import provided
from tests.infra import test_stop_function, test_watchdog
from tests.infra.rolling import Check, Declared, Rollout

CERTIFICATE = "projects/a-project/locations/us-central1/certificates/api"
SEVERAL = {"replicas": {"min": 1, "max": 3}}
compute, function, watched = test_stop_function.compute, test_stop_function.function, test_watchdog.cloud


Runs = Callable[[str, bool], Run]


def scaled(cloud: Cloud, proxies: str = "10.20.255.0/24", machine: dict[str, Any] | None = None, **serve: Any) -> Run:
    there = foundation_outputs(cloud.buckets) | {"proxies": proxies}
    return cloud.run("serve-l4", serve={**SEVERAL, **serve}, machine=machine or {}, stacks={"organization/elson/foundation": there})


@pytest.fixture(scope="module")
def internal(shared_cloud: Cloud) -> Run:
    return scaled(shared_cloud)


@pytest.fixture(scope="module")
def external(shared_cloud: Cloud) -> Run:
    return scaled(shared_cloud, certificate=CERTIFICATE, open_to_the_internet=True)


def test_the_group_is_one_that_an_autoscaler_may_size(internal: Run) -> None:
    group, scaler = internal.only("RegionInstanceGroupManager").inputs, internal.only("RegionAutoscaler").inputs
    assert "targetSize" not in group, "it would fight with the autoscaler's"
    assert group["distributionPolicyTargetShape"] == "EVEN" and group["updatePolicy"]["instanceRedistributionType"] == "PROACTIVE"
    policy = scaler["autoscalingPolicy"]
    assert (policy["mode"], policy["minReplicas"], policy["maxReplicas"]) == ("ON", 1, 3) and scaler["name"] == group["name"]
    assert [(one["name"], one["target"], one["type"]) for one in policy["metrics"]] == [(*target, "GAUGE") for target in scaling.TARGETS]
    assert policy["scaleInControl"] == {"maxScaledInReplicas": {"fixed": 1}, "timeWindowSec": 600}
    assert 300 < policy["cooldownPeriod"] < 1500, "a new server's figures count when it should be ready, by the plan"
    metadata = internal.only("RegionInstanceTemplate").inputs["metadata"]
    assert (metadata["elson-replicas"], metadata["elson-max-minutes"]) == ("3", "1455")


def test_an_update_starts_a_new_server_before_an_old_one_goes(internal: Run) -> None:
    policy = internal.only("RegionInstanceGroupManager").inputs["updatePolicy"]
    assert (policy["type"], policy["replacementMethod"], policy["maxSurgeFixed"], policy["maxUnavailableFixed"]) == ("PROACTIVE", "SUBSTITUTE", 3, 0)
    backend = internal.only("RegionBackendService").inputs
    assert backend["connectionDrainingTimeoutSec"] == backend["timeoutSec"] == scaling.REQUEST_AT_MOST_S, "no answer takes longer than a server is given"
    assert backend["localityLbPolicy"] == "LEAST_REQUEST"


@pytest.mark.parametrize("size", [1, 3])
def test_an_update_and_a_shrinking_lose_no_request_and_heal_no_server_that_starts(size: int, internal: Run) -> None:
    """Whenever the group's check asks, from a start at the planner's best to one that uses up all that it is given."""
    declared = Declared.of(internal)
    for phase in range(declared.group.interval_s):
        for start_s in (60, declared.delay_s - 10):
            found = Rollout(declared, size, start_s, phase).update()
            assert (found.refused, found.lost, found.healed) == (0, 0, 0), (phase, start_s)
            assert found.most <= 2 * size, "as the plan says: an update needs room for more"
    assert (shrunk := Rollout(declared, 3, 60).shrink(1)).refused == shrunk.lost == 0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"group": Check(20, 1, 6)}, "refused"),  # the old server goes before every proxy has seen the new one
        ({"unavailable": 1}, "refused"),
        ({"draining_s": 300}, "lost"),
        ({"delay_s": 1500}, "healed"),
    ],
)
def test_other_values_would_lose_something(change: dict[str, Any], what: str, internal: Run) -> None:
    declared = Declared.of(internal)
    found = [Rollout(replace(declared, **change), 1, declared.delay_s - 10, phase) for phase in range(20)]
    if what == "healed":  # it would be made again for ever
        with pytest.raises(AssertionError, match="does not end"):
            found[0].update()
        assert found[0].healed
        return
    assert any(getattr(one.update(), what) for one in found)


def test_it_is_internal_and_a_new_model_keeps_its_group(internal: Run, shared_cloud: Cloud) -> None:
    rule = internal.only("ForwardingRule").inputs
    assert (rule["loadBalancingScheme"], rule["portRange"], rule["ipProtocol"]) == ("INTERNAL_MANAGED", "8000", "TCP")
    assert not [one for one in internal.custom if one.type.endswith("Address")] and internal.only("RegionTargetHttpProxy")
    named = internal.only("RegionInstanceGroupManager").inputs["namedPorts"]
    assert named == [{"name": internal.only("RegionBackendService").inputs["portName"], "port": 8000}]
    one = look_up(shared_cloud.spec("serve-l4", serve={**SEVERAL, "max_model_tokens": 2048})).job_id
    assert one == internal.outputs["job"], "other settings are a rolling update of the same group"
    single = [look_up(shared_cloud.spec("serve-l4", serve={"max_model_tokens": tokens})).job_id for tokens in (2048, 4096)]
    assert len({one, *single}) == 3


def test_outside_it_has_a_certificate_an_address_and_port_443(external: Run) -> None:
    rule, address = external.only("ForwardingRule").inputs, external.only("Address").inputs
    assert (rule["loadBalancingScheme"], rule["portRange"]) == ("EXTERNAL_MANAGED", "443") and rule["networkTier"] == address["networkTier"]
    assert external.only("RegionTargetHttpsProxy").inputs["certificateManagerCertificates"] == [CERTIFICATE]
    assert not external.only("RegionInstanceTemplate").inputs["networkInterfaces"][0].get("accessConfigs"), "no server has an address of its own"


@pytest.fixture(scope="module")
def certified(shared_cloud: Cloud) -> Run:
    return scaled(shared_cloud, certificate=CERTIFICATE)


def test_a_certificate_alone_opens_nothing(certified: Run) -> None:
    rule = certified.only("ForwardingRule").inputs
    assert (rule["loadBalancingScheme"], rule["portRange"]) == ("INTERNAL_MANAGED", "443")


@pytest.mark.parametrize("which", ["internal", "external"])
def test_every_field_exists_and_every_rule_holds(which: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(which)
    assert run.returncode == 0, run.errors
    assert not run.errors
    for resource in run.custom:
        assert not [problem for rule in RULES for problem in rule.problems(resource.type, resource.inputs, protect=resource.request.protect)]
        ours = taken(resource.urn, "", resource.inputs, "a-project")
        assert (ours.id if ours else "") == provided.cloud_id(resource.type, resource.inputs), resource.key
        if resource.type.startswith("gcp:compute/"):
            assert resource.type in SCHEMAS, f"{resource.type} is checked against nothing"
            assert not problems(resource.type, resource.inputs)


@pytest.fixture(scope="module")
def changed(shared_cloud: Cloud, runs: Runs, internal: Run, external: Run, certified: Run) -> dict[str, Run]:
    """What a person may make of a stack by its settings."""
    zones, size = {"zones": ["us-central1-a", "us-central1-c"]}, {"min": 2, "max": 5}
    others = {"other zones": scaled(shared_cloud, machine=zones), "another size": scaled(shared_cloud, replicas=size)}
    return {"one server": runs("serve-l4", False), "several": internal, "a certificate": certified, "open": external, **others}


def test_from_any_of_these_to_any_other_is_one_update_that_nothing_refuses(changed: dict[str, Run]) -> None:
    """From several servers back to one, too: without `pulumi destroy`."""
    assert not [run.errors for run in changed.values() if run.returncode]
    found = {f"{one} -> {other}": refused for one in changed for other in changed if (refused := engine.refusals(changed[one], changed[other]))}
    assert not found
    groups = {name: run.all("RegionInstanceGroupManager") for name, run in changed.items()}
    assert all(len(group) == 1 for group in groups.values())
    names = {name: group.inputs["name"] for name, (group,) in groups.items()}
    assert len({names["one server"], names["several"], names["other zones"]}) == 3
    assert {names[name] for name in names if name not in ("one server", "other zones")} == {names["several"]}, "rolled out, not replaced"


def test_the_engine_refuses_a_group_that_goes_before_its_load_balancer(changed: dict[str, Run]) -> None:
    before = changed["several"]
    group = before.only("RegionInstanceGroupManager")
    request = type(group.request)()
    request.CopyFrom(group.request)
    request.deleteBeforeReplace = True
    after = [replace(one, request=request, inputs={**one.inputs, "name": "other"}) if one is group else one for one in before.resources]
    said = engine.refusals(before, replace(before, resources=after))
    assert [text.rpartition(" ")[2] for text in said] == ["RegionAutoscaler", "RegionBackendService"]


def test_a_foundation_without_proxies_says_what_to_set(shared_cloud: Cloud) -> None:
    run = scaled(shared_cloud, proxies="")
    assert run.returncode and "foundation.proxies_cidr" in str(run.errors)


def test_the_foundation_makes_room_for_proxies_when_asked(shared_cloud: Cloud) -> None:
    run = shared_cloud.run("foundation", foundation={"proxies_cidr": "10.20.255.0/24"})
    assert run.returncode == 0, run.errors
    subnet, rule = run.only("Subnetwork", "subnet-proxies").inputs, run.only("Firewall", "proxies").inputs
    assert (subnet["purpose"], subnet["role"]) == ("REGIONAL_MANAGED_PROXY", "ACTIVE") and run.outputs["proxies"] == "10.20.255.0/24"
    assert (rule["sourceRanges"], rule["allows"]) == (["10.20.255.0/24"], [{"protocol": "tcp", "ports": ["8000"]}])
    for resource in (run.only("Subnetwork", "subnet-proxies"), run.only("Firewall", "proxies")):
        assert not [problem for one in RULES for problem in one.problems(resource.type, resource.inputs)] and not problems(resource.type, resource.inputs)


@pytest.mark.parametrize(("cidr", "words"), [("10.20.1.0/26", "overlaps serve"), ("10.20.255.0/27", "/26 or larger"), ("fd00::/20", "IPv4")])
def test_a_range_for_proxies_that_cannot_be_is_refused(cidr: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_proxies(parse({"foundation": {"proxies_cidr": cidr}}).foundation or FoundationSpec())
    assert words in caught.value.found


def test_a_job_that_is_over_has_no_autoscaler(cloud: Cloud) -> None:
    job = look_up(cloud.spec("serve-l4", serve=SEVERAL)).job_id
    job_state(cloud.buckets, job, role="serve", status="failed")
    run = scaled(cloud)
    assert run.only("RegionInstanceGroupManager").inputs["targetSize"] == 0 and not [one for one in run.custom if one.type.endswith("RegionAutoscaler")]
    assert run.outputs["status"] == "stopped"


def test_the_bound_on_vms_has_room_for_growing_and_is_one() -> None:
    machine = parse({"machine": {"role": "serve", "machine_type": "g2-standard-8", "max_run_minutes": 1440}}).machine
    assert machine
    assert plan_bounds(machine, ReplicaSpec()).vms == 17, "of one server it is what it was"
    assert plan_bounds(machine, ReplicaSpec(min=1, max=3)).vms == 3 * 17 + 144
    assert plan_bounds(machine, ReplicaSpec(min=3, max=3)).vms == 3 * 17


MACHINE = {"role": "serve", "machine_type": "g2-standard-8", "provisioning_model": "STANDARD"}


@pytest.mark.parametrize(
    ("serve", "machine", "words"),
    [
        ({"replicas": {"min": 2, "max": 1}}, MACHINE, "min 2 is larger than max 1"),
        ({"replicas": {"max": 11}}, MACHINE, "less than or equal to 10"),
        (SEVERAL, {**MACHINE, "machine_type": "run-l4-8", "provisioning_model": "RUN"}, "machine.max_instances"),
        ({**SEVERAL, "allowed_cidrs": ["203.0.113.0/24"]}, MACHINE, "are for one: use certificate"),
        ({**SEVERAL, "domain": "a.example.org"}, MACHINE, "are for one: use certificate"),
        ({**SEVERAL, "open_to_the_internet": True}, MACHINE, "needs serve.certificate"),
        ({"certificate": CERTIFICATE}, MACHINE, "serve.certificate is the load balancer's"),
        ({**SEVERAL, "certificate": "api"}, MACHINE, "String should match pattern"),
    ],
)
def test_what_does_not_fit_together_is_refused(serve: dict[str, Any], machine: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse({"serve": serve, "machine": machine})
    assert words in caught.value.found


# --- the stops -------------------------------------------------------------------------------------------------------------------------


def test_the_watchdog_takes_the_autoscaler_away_first(watched: test_watchdog.Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "elson-train-0b75369b"
    monkeypatch.setattr(test_watchdog.main.sizes, "PAUSE_S", 0.01)
    watched.scaled = {name: 2}
    test_watchdog.main.watch(None)
    test_watchdog.aged(watched, 21)
    test_watchdog.main.watch(None)
    assert watched.sizes[name] == 0 and not watched.scaled


def test_so_does_the_budget(function: Any, compute: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "_PAUSE_S", 0.01)
    compute.scaled = {("regions/us-central1", "elson-train-0b75369b"): 2, ("regions/us-central1", "elson-serve-done"): 0}
    function.stop(test_stop_function.message(costAmount=60.0, budgetAmount=50.0))
    assert {size for (_, name), size in compute.sizes.items() if name.startswith("elson-")} == {0} and not compute.scaled
    assert compute.sizes["regions/us-central1", "somebody-elses"] == 3
    assert json.dumps(compute.calls).count("autoscalers") == 2, "that of a group at 0 too: it may make it larger"


def test_spec_defaults_are_one_server() -> None:
    assert Spec().serve.replicas == ReplicaSpec(min=1, max=1) and not Spec().serve.replicas.several
