"""A stand-in for the Pulumi engine: the two gRPC services of the SDK, against which a program runs as its own process.

It sees what the real engine sees: every registration with its options, dependencies and secrets, unknown values in a preview, stack references, outputs, logs.
It was compared with the real launcher: the requests are byte-identical. Not here: providers and state. What the platform would refuse is said by ``refusals``
(two runs: names that are taken while the old and the new are both there, things that are deleted while they are used) and ``impatience`` (one run: resources
that do not wait for their API or for grants, and APIs that count a user's call on no project).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, resource_pb2, resource_pb2_grpc

# Signatures of the wire format: github.com/pulumi/pulumi/sdk/go/common/resource/properties.go
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET, _OUTPUT, _REFERENCE = "1b47061264138c4ac30d75fd1eb44270", "d0e6a833031e9bbcd3f4e8bde6ca49a4", "5cf8f73096256a8f31e491e813e4eb8e"
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
UNKNOWN = "<unknown>"
LAUNCHER = Path(__file__).with_name("launcher.py")

Computed = Mapping[str, Callable[[str, dict[str, Any]], dict[str, Any]]]
Invokes = Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]


class Secret(str):
    """A secret's value, as JSON."""


def plain(value: Any) -> Any:
    """A wire value in Python: unknowns are ``UNKNOWN``, secrets ``Secret``, resource references their URN."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if value == _UNKNOWN:
        return UNKNOWN
    if not isinstance(value, dict):
        return int(value) if isinstance(value, float) and value.is_integer() else value
    signature = value.get(_SIGNATURE)
    if signature == _SECRET:
        return Secret(json.dumps(plain(value["value"])))
    if signature == _OUTPUT:
        inner = plain(value["value"]) if "value" in value else UNKNOWN
        return Secret(json.dumps(inner)) if value.get("secret") else inner
    if signature == _REFERENCE:
        return value["urn"]
    return {key: plain(item) for key, item in value.items()}


@dataclass(frozen=True)
class Registered:
    """One resource as the program asked for it."""

    urn: str
    type: str
    name: str
    inputs: dict[str, Any]
    request: Any

    @property
    def key(self) -> str:
        """``Bucket models``: how inventories name it."""
        return f"{self.type.split(':')[-1]} {self.name}"


@dataclass
class Run:
    """What a program did."""

    returncode: int
    stderr: str
    resources: list[Registered] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    logs: list[tuple[str, str]] = field(default_factory=list)

    def only(self, kind: str, name: str | None = None) -> Registered:
        """The one resource whose type ends in ``kind`` (and whose name is ``name``)."""
        found = [r for r in self.resources if r.type.endswith(":" + kind) and name in (None, r.name)]
        assert len(found) == 1, f"{kind} {name}: {[r.key for r in self.resources]}"
        return found[0]

    def all(self, kind: str) -> list[Registered]:
        return [r for r in self.resources if r.type.endswith(":" + kind)]

    @property
    def custom(self) -> list[Registered]:
        """Resources of the provider: no components, no stack references."""
        return [r for r in self.resources if r.type.startswith("gcp:")]

    @property
    def errors(self) -> str:
        return "\n".join(text for severity, text in self.logs if severity == "ERROR") + self.stderr

    @property
    def warnings(self) -> str:
        return "\n".join(text for severity, text in self.logs if severity == "WARNING")


class _Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    def __init__(self, project: str, stack: str, preview: bool, computed: Computed, invokes: Invokes, stacks: Mapping[str, Any]) -> None:
        self.project, self.stack, self.preview = project, stack, preview
        self.computed, self.invokes, self.stacks = computed, invokes, stacks
        self.registered: dict[str, Registered] = {}
        self.outputs: dict[str, Any] = {}
        self.lock = threading.Lock()

    def _urn(self, parent: str, kind: str, name: str) -> str:
        if parent and "pulumi:pulumi:Stack" not in parent.split("::")[2]:
            kind = f"{parent.split('::')[2]}${kind}"
        return f"urn:pulumi:{self.stack}::{self.project}::{kind}::{name}"

    def GetDeploymentInfo(self, request: Any, context: Any) -> Any:
        features = list(resource_pb2.ResourceMonitorFeature.values())
        return resource_pb2.DeploymentInfo(
            project=self.project, stack=self.stack, organization="organization", dryRun=self.preview, parallel=16, supportedFeatures=features
        )

    def SupportsFeature(self, request: Any, context: Any) -> Any:
        return resource_pb2.SupportsFeatureResponse(hasSupport=True)

    def RegisterPackage(self, request: Any, context: Any) -> Any:
        return resource_pb2.RegisterPackageResponse(ref=request.name)

    def RegisterResource(self, request: Any, context: Any) -> Any:
        urn = self._urn(request.parent, request.type, request.name)
        inputs = plain(json_format.MessageToDict(request.object))
        with self.lock:
            if urn in self.registered:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, f"duplicate resource URN '{urn}'; try giving it a unique name")
            for dependency in request.dependencies:
                if dependency not in self.registered:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{urn} depends on unknown {dependency}")
            self.registered[urn] = Registered(urn, request.type, request.name, inputs, request)
        if not request.custom:
            return resource_pb2.RegisterResourceResponse(urn=urn, object=request.object)
        answer = struct_pb2.Struct()
        answer.CopyFrom(request.object)
        if not self.preview:
            for key, value in self.computed.get(request.type, lambda *_: {})(request.name, inputs).items():
                answer.update({key: value})
        return resource_pb2.RegisterResourceResponse(urn=urn, id="" if self.preview else f"{request.name}-id", object=answer)

    def ReadResource(self, request: Any, context: Any) -> Any:
        urn = self._urn(request.parent, request.type, request.name)
        answer = struct_pb2.Struct()
        answer.CopyFrom(request.properties)
        if request.type == "pulumi:pulumi:StackReference":
            if request.id not in self.stacks:
                context.abort(grpc.StatusCode.NOT_FOUND, f"unknown stack {request.id!r}")
            answer.update({"name": request.id, "outputs": self.stacks[request.id], "secretOutputNames": []})
        with self.lock:
            self.registered[urn] = Registered(urn, request.type, request.name, {}, request)
        return resource_pb2.ReadResourceResponse(urn=urn, properties=answer)

    def RegisterResourceOutputs(self, request: Any, context: Any) -> Any:
        if "pulumi:pulumi:Stack" in request.urn:
            self.outputs = plain(json_format.MessageToDict(request.outputs))
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:
        if request.tok not in self.invokes:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no invoke {request.tok}")
        answer = struct_pb2.Struct()
        answer.update(self.invokes[request.tok](json_format.MessageToDict(request.args)))
        return resource_pb2.ResourceInvokeResponse(**{"return": answer})

    def SignalAndWaitForShutdown(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()


class _Engine(engine_pb2_grpc.EngineServicer):
    def __init__(self) -> None:
        self.logs: list[tuple[str, str]] = []
        self.root = ""

    def Log(self, request: Any, context: Any) -> Any:
        self.logs.append((engine_pb2.LogSeverity.Name(request.severity), request.message))
        return empty_pb2.Empty()

    def SetRootResource(self, request: Any, context: Any) -> Any:
        self.root = request.urn
        return engine_pb2.SetRootResourceResponse()

    def GetRootResource(self, request: Any, context: Any) -> Any:
        return engine_pb2.GetRootResourceResponse(urn=self.root)

    def RequirePulumiVersion(self, request: Any, context: Any) -> Any:
        return engine_pb2.RequirePulumiVersionResponse()


def run(
    program: Path,
    stack: str,
    config: Mapping[str, str],
    *,
    preview: bool = False,
    computed: Computed | None = None,
    invokes: Invokes | None = None,
    stacks: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run the program in ``program`` as ``stack``. ``config`` is what ``pulumi`` passes: full keys, objects as JSON."""
    monitor, engine = _Monitor("elson", stack, preview, computed or {}, invokes or {}, stacks or {}), _Engine()
    server = grpc.server(futures.ThreadPoolExecutor(32))
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    environ = {**os.environ, **(environment or {}), "PULUMI_CONFIG": json.dumps(dict(config)), "PULUMI_CONFIG_SECRET_KEYS": "[]"}
    # An Output that is formatted into a text would otherwise ship its warning to the VM, and exit 0.
    environ |= {"PULUMI_ERROR_OUTPUT_STRING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(LAUNCHER), address, address, "elson", stack, str(preview).lower()]
    try:
        done = subprocess.run(command, cwd=program, env=environ, capture_output=True, text=True, timeout=180, check=False)
    finally:
        server.stop(0)
    return Run(done.returncode, done.stderr, list(monitor.registered.values()), monitor.outputs, engine.logs)


#: Inputs that replace a resource when they change: all of them, or the named ones (provider documentation, "Changing this forces a new resource").
_FORCES_NEW: dict[str, tuple[str, ...] | None] = {
    "RegionInstanceTemplate": None,
    "RegionInstanceGroupManager": ("name", "region", "baseInstanceName", "distributionPolicyZones", "description"),
    "HealthCheck": ("name",),
    "Address": ("name", "region", "addressType", "networkTier"),
    "Firewall": ("name", "network", "direction"),
    "Router": ("name", "region", "network"),
    "RouterNat": ("name", "region", "router"),
    "BucketObject": ("name", "bucket"),
    "RegionAutoscaler": ("name", "region"),
    "RegionHealthCheck": ("name", "region"),
    "RegionBackendService": ("name", "region", "loadBalancingScheme", "protocol"),
    "RegionUrlMap": ("name", "region"),
    "RegionTargetHttpProxy": ("name", "region"),
    "RegionTargetHttpsProxy": ("name", "region"),
    "ForwardingRule": ("name", "region", "loadBalancingScheme", "ipProtocol", "portRange", "network", "subnetwork", "ipAddress", "networkTier"),
}
#: What is used by what: it cannot be deleted while the user is there (resourceInUseByAnotherResource). For a group with a load balancer:
#: https://github.com/hashicorp/terraform-provider-google/issues/6376
_USED_BY: dict[str, tuple[str, ...]] = {
    "HealthCheck": ("RegionInstanceGroupManager",),
    "RegionInstanceTemplate": ("RegionInstanceGroupManager",),
    "Router": ("RouterNat",),
    "RegionInstanceGroupManager": ("RegionBackendService", "RegionAutoscaler"),
    "RegionHealthCheck": ("RegionBackendService",),
    "RegionBackendService": ("RegionUrlMap",),
    "RegionUrlMap": ("RegionTargetHttpProxy", "RegionTargetHttpsProxy"),
    "RegionTargetHttpProxy": ("ForwardingRule",),
    "RegionTargetHttpsProxy": ("ForwardingRule",),
}


def refusals(before: Run, after: Run) -> list[str]:
    """What Google would refuse in an ``up`` from one run to the other."""
    old, found = {r.urn: r for r in before.custom}, []
    replaced = {r.urn for r in after.custom if r.urn in old and _is_replaced(old[r.urn], r)}
    for r in (r for r in after.custom if r.urn in replaced):
        kind, was = r.type.split(":")[-1], old[r.urn]
        if not r.request.deleteBeforeReplace and was.inputs.get("name") == r.inputs.get("name"):
            found.append(f"{r.key}: the new one is made before the old one goes, and its name is taken ({r.inputs.get('name')})")
        if r.request.deleteBeforeReplace:
            # The engine deletes first what depends on it only where that is replaced *because of it*; a link that can be changed in place does not force that.
            # What the program does not ask for any more goes last of all.
            users = {other.type.split(":")[-1] for other in before.custom if r.urn in other.request.dependencies} & set(_USED_BY.get(kind, ()))
            found += [f"{r.key}: the old one is deleted while it is used by the {user}" for user in sorted(users)]
    taken = {_name(r): r for r in before.custom if r.urn not in {other.urn for other in after.custom}}
    found += [f"{r.key}: {taken[_name(r)].key} has its name, and goes after it was made" for r in after.custom if r.urn not in old and _name(r) in taken]
    return found


def _name(resource: Registered) -> tuple[str, ...]:
    """What two resources cannot both have at one time."""
    return (resource.type, *(str(resource.inputs.get(key, "")) for key in ("name", "region", "location")), "" if "name" in resource.inputs else resource.urn)


def _is_replaced(before: Registered, after: Registered) -> bool:
    kind = after.type.split(":")[-1]
    if kind not in _FORCES_NEW:
        return False
    keys = _FORCES_NEW[kind] or tuple({*before.inputs, *after.inputs})
    return any(before.inputs.get(key) != after.inputs.get(key) for key in keys)


#: Beginning of a type -> the API that must be switched on before.
_SERVICE_OF = {
    "gcp:artifactregistry/": "artifactregistry", "gcp:billing/": "billingbudgets", "gcp:cloudfunctionsv2/": "cloudfunctions", "gcp:cloudrunv2/": "run",
    "gcp:cloudscheduler/": "cloudscheduler", "gcp:compute/": "compute", "gcp:logging/": "logging", "gcp:monitoring/": "monitoring", "gcp:pubsub/": "pubsub",
    "gcp:secretmanager/": "secretmanager", "gcp:serviceaccount/": "iam", "gcp:projects/iAMCustomRole": "iam", "gcp:projects/iAMMember": "cloudresourcemanager",
    "gcp:storage/": "storage",
}  # fmt: skip
#: APIs that count a user's call on a project which the provider must name: the billing account has none.
_NEED_QUOTA_PROJECT = ("gcp:billing/",)
_GRANTS = ("IAMMember", "BucketIAMMember", "RepositoryIamMember")


def impatience(run: Run, *, services_are_on: bool = False) -> list[str]:
    """Resources that a first ``up`` in a new project would make too early, or with nothing to count the call on."""
    known, found = {r.urn: r for r in run.resources}, []

    def ancestors(urn: str) -> set[str]:
        seen: set[str] = set()
        todo = [urn]
        while todo:
            # What a component depends on, its children wait for through their own dependencies; a parent alone is not waited for.
            for other in known[todo.pop()].request.dependencies:
                if other in known and other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen

    grants: dict[str, set[str]] = {}
    for r in run.custom:
        if r.type.split(":")[-1] in _GRANTS:
            grants.setdefault(r.inputs["member"].partition(":")[2], set()).add(r.urn)
    for r in run.custom:
        before = ancestors(r.urn)
        on = {known[urn].inputs.get("service") for urn in before if known[urn].type.endswith(":Service")}
        needed = next((f"{service}.googleapis.com" for begin, service in _SERVICE_OF.items() if r.type.startswith(begin)), None)
        if needed and needed not in on and not services_are_on:
            found.append(f"{r.key} does not wait for {needed}")
        if r.type.endswith(":Function"):
            pauses = [urn for urn in before if known[urn].type == "time:index/sleep:Sleep"]
            waited = set().union(*(ancestors(urn) for urn in pauses)) if pauses else set()
            accounts = (r.inputs["buildConfig"]["serviceAccount"].rsplit("/", 1)[-1], r.inputs["serviceConfig"]["serviceAccountEmail"])
            late = [
                known[urn].key
                for email, urns in grants.items()
                for urn in urns
                if email.startswith(tuple(f"elson-{a}" if "@" not in a else a for a in accounts))
            ]
            found += [f"{r.key} does not wait until the grant {key} is known" for key in late if not any(known[urn].key == key for urn in waited)]
        provider = next((p for p in run.resources if p.type == "pulumi:providers:gcp" and r.request.provider.startswith(p.urn)), None)
        counted = provider and str(provider.inputs.get("userProjectOverride")).lower() == "true" and provider.inputs.get("billingProject")
        if r.type.startswith(_NEED_QUOTA_PROJECT) and not counted:
            found.append(f"{r.key} has no quota project: a user's login is answered with 403")
    return found
