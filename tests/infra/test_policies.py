"""Each rule lets every stack pass and catches what it is for; the pack is run as the engine runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from engine import Run
from google.protobuf import struct_pb2
from inventory import STACKS
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from infra.policies.rules import RULES, Rule

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate"
GOOD_VM: dict[str, Any] = {
    "serviceAccount": {"email": "elson-train@p.iam.gserviceaccount.com"},
    "metadata": {"block-project-ssh-keys": "TRUE", "enable-oslogin": "TRUE"},
    "shieldedInstanceConfig": {"enableVtpm": True, "enableIntegrityMonitoring": True},
    "networkInterfaces": [{}],
    "scheduling": {"maxRunDuration": {"seconds": 60}, "instanceTerminationAction": "DELETE"},
    "labels": {"elson-role": "train"},
}
FIREWALL = "gcp:compute/firewall:Firewall"
BUCKET = "gcp:storage/bucket:Bucket"
GOOD_BUCKET: dict[str, Any] = {
    "uniformBucketLevelAccess": True,
    "publicAccessPrevention": "enforced",
    "versioning": {"enabled": True},
    "logging": {"logBucket": "b"},
    "deletionPolicy": "PREVENT",
}

SERVICE, JOB = "gcp:cloudrunv2/service:Service", "gcp:cloudrunv2/job:Job"
GATEWAY: dict[str, Any] = {"image": "r/gateway@sha256:0", "ports": {"containerPort": 8000}, "envs": [{"name": "ELSON_KEYS", "value": "/secrets/keys"}]}
GOOD_TEMPLATE: dict[str, Any] = {"serviceAccount": "elson-serve@p.iam.gserviceaccount.com", "containers": [GATEWAY], "scaling": {"maxInstanceCount": 1}}
GOOD_JOB = {"serviceAccount": "elson-train@p.iam.gserviceaccount.com", "containers": [{"image": "r/train@sha256:0"}], "timeout": "3600s", "maxRetries": 4}


def service(open_to_all: bool = False, **changes: Any) -> dict[str, Any]:
    return {"invokerIamDisabled": open_to_all, "template": {**GOOD_TEMPLATE, **changes}}


def job(**changes: Any) -> dict[str, Any]:
    return {"template": {"template": {**GOOD_JOB, **changes}}}


def world(*ports: str, protocol: str = "tcp") -> dict[str, Any]:
    return {"sourceRanges": ["0.0.0.0/0"], "allows": [{"protocol": protocol, **({"ports": list(ports)} if ports else {})}]}


SLOW = {"maxScaledInReplicas": {"fixed": 1}}
BAD: list[tuple[str, str, dict[str, Any]]] = [
    ("vm-own-identity", TEMPLATE, {**GOOD_VM, "serviceAccount": {"email": "1-compute@developer.gserviceaccount.com"}}),
    ("vm-own-identity", TEMPLATE, {key: value for key, value in GOOD_VM.items() if key != "serviceAccount"}),
    ("vm-no-project-keys", TEMPLATE, {**GOOD_VM, "metadata": {"enable-oslogin": "TRUE"}}),
    ("vm-os-login", TEMPLATE, {**GOOD_VM, "metadata": {"enable-oslogin": "FALSE"}}),
    ("vm-no-serial-port", TEMPLATE, {**GOOD_VM, "metadata": {"serial-port-enable": "TRUE"}}),
    ("vm-no-forwarding", TEMPLATE, {**GOOD_VM, "canIpForward": True}),
    ("vm-shielded", TEMPLATE, {**GOOD_VM, "shieldedInstanceConfig": {"enableVtpm": True}}),
    ("vm-no-public-address", TEMPLATE, {**GOOD_VM, "networkInterfaces": [{"accessConfigs": [{}]}]}),
    ("vm-no-public-address", TEMPLATE, {**GOOD_VM, "networkInterfaces": [{"accessConfigs": [{"natIp": "203.0.113.7"}]}]}),
    ("vm-ends", TEMPLATE, {**GOOD_VM, "scheduling": {"maxRunDuration": {"seconds": 60}, "instanceTerminationAction": "STOP"}}),
    ("vm-ends", TEMPLATE, {**GOOD_VM, "scheduling": {}}),
    ("autoscaler-bounded", "gcp:compute/regionAutoscaler:RegionAutoscaler", {"autoscalingPolicy": {"maxReplicas": 100, "scaleInControl": SLOW}}),
    ("autoscaler-bounded", "gcp:compute/regionAutoscaler:RegionAutoscaler", {"autoscalingPolicy": {"maxReplicas": 3}}),
    ("balancer-only-tls", "gcp:compute/forwardingRule:ForwardingRule", {"loadBalancingScheme": "EXTERNAL_MANAGED", "portRange": "80"}),
    ("balancer-only-tls", "gcp:compute/globalForwardingRule:GlobalForwardingRule", {"portRange": "8000"}),
    ("backend-drains", "gcp:compute/regionBackendService:RegionBackendService", {"timeoutSec": 600}),
    ("vm-no-secret", TEMPLATE, {**GOOD_VM, "metadata": {"key": "-----BEGIN RSA PRIVATE KEY-----"}}),
    ("run-own-identity", SERVICE, service(serviceAccount="1-compute@developer.gserviceaccount.com")),
    ("run-own-identity", JOB, job(serviceAccount=None)),
    ("run-pinned", SERVICE, service(containers=[{"image": "r/gateway:latest"}])),
    ("run-pinned", JOB, job(containers=[{"image": "r/train"}])),
    ("run-no-secret", JOB, job(containers=[{"image": "r/train@sha256:0", "envs": [{"name": "KEY", "value": "sk-0123456789abcdefghijkl"}]}])),
    ("run-ends", SERVICE, service(scaling={"minInstanceCount": 0})),
    ("run-ends", SERVICE, service(scaling={"maxInstanceCount": 100})),
    ("run-ends", JOB, job(timeout=None)),
    ("run-ends", JOB, job(maxRetries=None)),
    ("run-asks-for-the-key", SERVICE, service(open_to_all=True, containers=[{**GATEWAY, "envs": []}])),
    ("run-asks-for-the-key", SERVICE, service(open_to_all=True, containers=[])),
    ("firewall-no-admin-ports", FIREWALL, world("22")),
    ("firewall-no-admin-ports", FIREWALL, world("3000-4000")),
    ("firewall-only-tls", FIREWALL, world("80")),
    ("firewall-only-tls", FIREWALL, world("8000")),
    ("firewall-named-ports", FIREWALL, {"sourceRanges": ["10.0.0.0/8"], "allows": [{"protocol": "tcp"}]}),
    ("firewall-named-ports", FIREWALL, {"sourceRanges": ["10.0.0.0/8"], "allows": [{"protocol": "all"}]}),
    ("subnet-flow-logs", "gcp:compute/subnetwork:Subnetwork", {"privateIpGoogleAccess": True}),
    ("subnet-private-access", "gcp:compute/subnetwork:Subnetwork", {"logConfig": {}}),
    ("network-own", "gcp:compute/network:Network", {"name": "elson"}),
    ("network-own", "gcp:compute/network:Network", {"name": "default", "autoCreateSubnetworks": False}),
    ("bucket-private", BUCKET, {**GOOD_BUCKET, "uniformBucketLevelAccess": False}),
    ("bucket-private", BUCKET, {**GOOD_BUCKET, "publicAccessPrevention": "inherited"}),
    ("bucket-models-kept", BUCKET, {**GOOD_BUCKET, "versioning": {"enabled": False}}),
    ("bucket-models-kept", BUCKET, {**GOOD_BUCKET, "forceDestroy": True}),
    ("bucket-models-kept", BUCKET, {key: value for key, value in GOOD_BUCKET.items() if key != "logging"}),
    ("iam-nothing-public", "gcp:storage/bucketIAMMember:BucketIAMMember", {"member": "allUsers", "role": "roles/storage.objectViewer"}),
    ("iam-nothing-public", "gcp:artifactregistry/repositoryIamBinding:RepositoryIamBinding", {"members": ["allAuthenticatedUsers"]}),
    ("iam-no-basic-roles", "gcp:projects/iAMMember:IAMMember", {"member": "user:a@b.c", "role": "roles/editor"}),
    ("iam-no-impersonation", "gcp:projects/iAMMember:IAMMember", {"member": "user:a@b.c", "role": "roles/iam.serviceAccountTokenCreator"}),
    ("iam-no-impersonation", "gcp:projects/iAMMember:IAMMember", {"member": "serviceAccount:a@b.c", "role": "roles/compute.admin"}),
    ("iam-no-keys", "gcp:serviceaccount/key:Key", {}),
]


def named(name: str) -> Rule:
    return next(rule for rule in RULES if rule.name == name)


@pytest.mark.parametrize(("name", "kind", "inputs"), BAD)
def test_a_rule_catches_what_it_is_for(name: str, kind: str, inputs: dict[str, Any]) -> None:
    assert named(name).problems(kind, inputs, protect=True)


def test_every_rule_has_a_bad_example_and_says_what_it_mirrors() -> None:
    assert {name for name, _, _ in BAD} == {rule.name for rule in RULES}
    assert all(rule.mirrors for rule in RULES)


def test_good_examples_pass() -> None:
    for rule in RULES:
        assert not rule.problems(TEMPLATE, GOOD_VM)
        assert not rule.problems(BUCKET, GOOD_BUCKET, protect=True)
        assert not rule.problems(FIREWALL, world("443"))
        assert not rule.problems(SERVICE, service()) and not rule.problems(SERVICE, service(open_to_all=True))
        assert not rule.problems(JOB, job())
    assert named("bucket-models-kept").problems(BUCKET, GOOD_BUCKET, protect=False)


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_keeps_to_every_rule(stack: str, runs: Callable[[str, bool], Run]) -> None:
    for resource in runs(stack, False).custom:
        for rule in RULES:
            assert not rule.problems(resource.type, resource.inputs, protect=resource.request.protect), resource.key


def test_the_pack_runs_as_the_engine_runs_it() -> None:
    command = [sys.executable, "-u", str(ROOT / "infra" / "policies")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            pack = analyzer_pb2_grpc.AnalyzerStub(grpc.insecure_channel(f"127.0.0.1:{port}"))
            info = pack.GetAnalyzerInfo(_empty())
            assert {policy.name for policy in info.policies} == {rule.name for rule in RULES}
            assert not _analyze(pack, GOOD_VM)
            assert "vm-ends" in _analyze(pack, {**GOOD_VM, "scheduling": {}})
        finally:
            process.kill()


def _analyze(pack: Any, inputs: dict[str, Any]) -> set[str]:
    properties = struct_pb2.Struct()
    properties.update(json.loads(json.dumps(inputs)))
    urn = f"urn:pulumi:s::p::{TEMPLATE}::n"
    answer = pack.Analyze(analyzer_pb2.AnalyzeRequest(type=TEMPLATE, urn=urn, name="n", properties=properties))
    return {found.policyName for found in answer.diagnostics}


def _empty() -> Any:
    from google.protobuf import empty_pb2

    return empty_pb2.Empty()
