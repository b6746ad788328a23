"""Rules for resources, as pure functions over their inputs. Each names the checks it mirrors (checkov's ids, CIS GCP 4.0) or says that it is ours.

Not applied, on purpose: CKV_GCP_84 and CKV_GCP_37 (keys of one's own; Google's keys encrypt everything, and each key is billed by the month),
CKV_GCP_86 (a private pool for builds, billed by the minute; builds read public packages and this repository only).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Inputs = Mapping[str, Any]
ANYWHERE = ("0.0.0.0/0", "::/0", "*")
_VMS = ("gcp:compute/instance:Instance", "gcp:compute/instanceTemplate:InstanceTemplate", "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate")
_FIREWALL, _NETWORK, _SUBNET = "gcp:compute/firewall:Firewall", "gcp:compute/network:Network", "gcp:compute/subnetwork:Subnetwork"
_BUCKET = "gcp:storage/bucket:Bucket"
_RULES_OF_BALANCERS = ("gcp:compute/forwardingRule:ForwardingRule", "gcp:compute/globalForwardingRule:GlobalForwardingRule")
_RUN = ("gcp:cloudrunv2/service:Service", "gcp:cloudrunv2/job:Job")
#: Instances that one service may start: each has a card that is billed by the second.
_INSTANCES_AT_MOST = 10
_BASIC_ROLES = ("roles/owner", "roles/editor", "roles/viewer")
#: Roles that let a holder act as another account, or administer everything.
_IMPERSONATION = ("roles/iam.serviceAccountUser", "roles/iam.serviceAccountTokenCreator", "roles/iam.workloadIdentityUser")
_PUBLIC = ("allUsers", "allAuthenticatedUsers")
_SECRET = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAIza[\w-]{30,}|\bya29\.|\bsk-[\w-]{20,}")


@dataclass(frozen=True)
class Rule:
    """One rule. ``types`` are Pulumi's; a type that ends in ``*`` matches every type that begins so. ``check`` yields what is wrong."""

    name: str
    text: str
    mirrors: tuple[str, ...]
    types: tuple[str, ...]
    check: Callable[[Inputs, bool], Iterable[str]]

    def problems(self, kind: str, inputs: Inputs, *, protect: bool = False) -> list[str]:
        """What is wrong with a resource; nothing for types the rule does not speak of."""
        applies = any(kind == wanted or (wanted.endswith("*") and kind.startswith(wanted[:-1])) for wanted in self.types)
        return list(self.check(inputs, protect)) if applies else []


def _own_identity(vm: Inputs, _: bool) -> Iterator[str]:
    email = str((vm.get("serviceAccount") or {}).get("email") or "")
    if not email or email.endswith("-compute@developer.gserviceaccount.com"):
        yield "a VM needs a service account of its own, not the project's default one"


def _metadata_flag(key: str, wanted: str, text: str) -> Callable[[Inputs, bool], Iterator[str]]:
    def check(vm: Inputs, _: bool) -> Iterator[str]:
        if str((vm.get("metadata") or {}).get(key, "")).upper() != wanted:
            yield f"metadata {key} must be {wanted}: {text}"

    return check


def _no_serial_port(vm: Inputs, _: bool) -> Iterator[str]:
    if str((vm.get("metadata") or {}).get("serial-port-enable", "FALSE")).upper() in ("TRUE", "1"):
        yield "the serial port must stay closed"


def _no_forwarding(vm: Inputs, _: bool) -> Iterator[str]:
    if vm.get("canIpForward"):
        yield "a VM must not forward packets of others"


def _shielded(vm: Inputs, _: bool) -> Iterator[str]:
    shield = vm.get("shieldedInstanceConfig") or {}
    if not (shield.get("enableVtpm") and shield.get("enableIntegrityMonitoring")):
        yield "virtual TPM and integrity monitoring must be on"


def _no_public_address(vm: Inputs, _: bool) -> Iterator[str]:
    for interface in vm.get("networkInterfaces") or []:
        for access in interface.get("accessConfigs") or []:
            if (vm.get("labels") or {}).get("elson-role") != "serve" or not access.get("natIp"):
                yield "a VM has no external address, but for a server's reserved one that serve.allowed_cidrs asks for"


def _ends(vm: Inputs, _: bool) -> Iterator[str]:
    scheduling = vm.get("scheduling") or {}
    if not (scheduling.get("maxRunDuration") or {}).get("seconds") or scheduling.get("instanceTerminationAction") != "DELETE":
        yield "a VM needs maxRunDuration and instanceTerminationAction DELETE: the platform's own stop"


def _no_secret(vm: Inputs, _: bool) -> Iterator[str]:
    for key, value in (vm.get("metadata") or {}).items():
        if _SECRET.search(str(value)):
            yield f"metadata {key} holds something that looks like a secret; name it in Secret Manager instead"


def _from_anywhere(rule: Inputs) -> bool:
    return rule.get("direction", "INGRESS") == "INGRESS" and any(source in ANYWHERE for source in rule.get("sourceRanges") or []) and bool(rule.get("allows"))


def _ports(rule: Inputs) -> Iterator[tuple[str, int, int]]:
    """(protocol, first, last) of everything a firewall rule allows."""
    for allowed in rule.get("allows") or []:
        for ports in allowed.get("ports") or ["0-65535"]:
            first, _, last = str(ports).partition("-")
            yield str(allowed["protocol"]), int(first), int(last or first)


def _no_admin_ports(rule: Inputs, _: bool) -> Iterator[str]:
    for protocol, first, last in _ports(rule) if _from_anywhere(rule) else ():
        for port, name in ((22, "SSH"), (3389, "RDP")):
            if first <= port <= last and protocol in ("tcp", "all"):
                yield f"{name} must not be open to everybody"


def _only_tls_from_anywhere(rule: Inputs, _: bool) -> Iterator[str]:
    for protocol, first, last in _ports(rule) if _from_anywhere(rule) else ():
        if (protocol, first, last) != ("tcp", 443, 443):
            yield f"only tcp:443 may be open to everybody, not {protocol}:{first}-{last}"


def _named_ports(rule: Inputs, _: bool) -> Iterator[str]:
    if rule.get("direction", "INGRESS") == "INGRESS":
        for protocol, first, last in _ports(rule):
            if protocol == "all" or last - first > 100:
                yield "a rule names its protocol and its ports"


#: No VM is in such a subnet, and the API takes neither flow logs nor private access for it.
_PROXY_ONLY = ("REGIONAL_MANAGED_PROXY", "GLOBAL_MANAGED_PROXY")


def _flow_logs(subnet: Inputs, _: bool) -> Iterator[str]:
    if not subnet.get("logConfig") and subnet.get("purpose") not in _PROXY_ONLY:
        yield "flow logs must be on"


def _private_google_access(subnet: Inputs, _: bool) -> Iterator[str]:
    if not subnet.get("privateIpGoogleAccess") and subnet.get("purpose") not in _PROXY_ONLY:
        yield "private Google access must be on: VMs reach Google's APIs without an external address"


def _scaling_is_bounded(scaler: Inputs, _: bool) -> Iterator[str]:
    policy = scaler.get("autoscalingPolicy") or {}
    most = policy.get("maxReplicas")
    if not most or most > _INSTANCES_AT_MOST:
        yield f"an autoscaler names the most VMs it may make (maxReplicas), at most {_INSTANCES_AT_MOST}"
    if not (policy.get("scaleInControl") or {}).get("maxScaledInReplicas"):
        yield "an autoscaler takes servers away one by one (scaleInControl): all at once would drop what they have"


def _external_rule_is_tls(rule: Inputs, _: bool) -> Iterator[str]:
    if str(rule.get("loadBalancingScheme") or "EXTERNAL").startswith("EXTERNAL") and str(rule.get("portRange")) not in ("443", "443-443"):
        yield "a load balancer that the internet reaches listens on 443 alone"


def _drains(backend: Inputs, _: bool) -> Iterator[str]:
    if not backend.get("connectionDrainingTimeoutSec"):
        yield "a backend that goes finishes its requests first (connectionDrainingTimeoutSec)"


def _own_network(network: Inputs, _: bool) -> Iterator[str]:
    if network.get("name") == "default" or network.get("autoCreateSubnetworks") is not False:
        yield "a network of one's own, with subnets made on purpose"


def _uniform_and_private(bucket: Inputs, _: bool) -> Iterator[str]:
    if not bucket.get("uniformBucketLevelAccess"):
        yield "uniform access must be on: object lists of who may read are not looked at by anybody"
    if bucket.get("publicAccessPrevention") != "enforced":
        yield "public access prevention must be enforced"


def _models_are_kept(bucket: Inputs, protect: bool) -> Iterator[str]:
    if (bucket.get("labels") or {}).get("elson-content") == "scratch":
        return
    if not (bucket.get("versioning") or {}).get("enabled"):
        yield "a bucket that keeps things has versions"
    if not bucket.get("logging"):
        yield "a bucket that keeps things logs who came"
    if bucket.get("forceDestroy") or bucket.get("deletionPolicy") != "PREVENT" or not protect:
        yield "models are locked three times: protect, deletionPolicy PREVENT, no forceDestroy"


def _nothing_public(grant: Inputs, _: bool) -> Iterator[str]:
    members = [grant.get("member"), *(grant.get("members") or [])]
    yield from (f"{member} must not be granted anything" for member in members if member in _PUBLIC)


def _no_basic_role(grant: Inputs, _: bool) -> Iterator[str]:
    role = str(grant.get("role") or "")
    if role in _BASIC_ROLES:
        yield f"{role} grants nearly everything: name a narrower role"


def _no_impersonation(grant: Inputs, _: bool) -> Iterator[str]:
    role, member = str(grant.get("role") or ""), str(grant.get("member") or "")
    if role in _IMPERSONATION:
        yield f"{role} on a whole project lets its holder act as every account: grant it on one account"
    if member.startswith("serviceAccount:") and (role.endswith((".admin", "Admin")) or role in _BASIC_ROLES):
        yield f"{role} gives administration to a service account"


def _no_keys(_: Inputs, __: bool) -> Iterator[str]:
    yield "service account keys leak: VMs and people have identities without them"


def _template(run: Inputs) -> Inputs:
    """What a service or a job starts: a job's template stands inside another."""
    found: Inputs = run.get("template") or {}
    return found.get("template") or found


def _run_identity(run: Inputs, _: bool) -> Iterator[str]:
    email = str(_template(run).get("serviceAccount") or "")
    if not email or email.endswith("-compute@developer.gserviceaccount.com"):
        yield "a service or job needs a service account of its own, not the project's default one"


def _run_pinned(run: Inputs, _: bool) -> Iterator[str]:
    for container in _template(run).get("containers") or []:
        if "@sha256:" not in str(container.get("image")):
            yield f"the image {container.get('image')} is not pinned by digest"


def _run_no_secret(run: Inputs, _: bool) -> Iterator[str]:
    for container in _template(run).get("containers") or []:
        for entry in container.get("envs") or []:
            if _SECRET.search(str(entry.get("value"))):
                yield f"the variable {entry.get('name')} holds something that looks like a secret; mount it from Secret Manager"


def _run_ends(run: Inputs, _: bool) -> Iterator[str]:
    template = _template(run)
    if "scaling" in template or "maxInstanceRequestConcurrency" in template:
        most = (template.get("scaling") or {}).get("maxInstanceCount")
        if not most or most > _INSTANCES_AT_MOST:
            yield f"a service names the most instances it may start (maxInstanceCount), at most {_INSTANCES_AT_MOST}"
    elif not template.get("timeout") or template.get("maxRetries") is None:
        yield "a job names its tasks' time-out and how often they are tried again"


def _run_asks_for_the_key(run: Inputs, _: bool) -> Iterator[str]:
    if not run.get("invokerIamDisabled"):
        return
    reached = [container for container in _template(run).get("containers") or [] if container.get("ports")]
    if not all(any(entry.get("name") == "ELSON_KEYS" for entry in container.get("envs") or []) for container in reached) or not reached:
        yield "a service that anybody may call has a gateway that asks for the key (ELSON_KEYS)"


RULES = (
    Rule("vm-own-identity", "VMs run as an account of their own", ("CKV_GCP_30", "CKV_GCP_31"), _VMS, _own_identity),
    Rule(
        "vm-no-project-keys",
        "SSH keys of the project do not open VMs",
        ("CKV_GCP_32",),
        _VMS,
        _metadata_flag("block-project-ssh-keys", "TRUE", "keys of others"),
    ),
    Rule("vm-os-login", "Logins are IAM's", ("CKV_GCP_33", "CKV_GCP_34"), _VMS, _metadata_flag("enable-oslogin", "TRUE", "logins are granted in IAM")),
    Rule("vm-no-serial-port", "No serial port", ("CKV_GCP_35",), _VMS, _no_serial_port),
    Rule("vm-no-forwarding", "No IP forwarding", ("CKV_GCP_36",), _VMS, _no_forwarding),
    Rule("vm-shielded", "Shielded VMs", ("CKV_GCP_39",), _VMS, _shielded),
    Rule("vm-no-public-address", "No external address unless asked for", ("CKV_GCP_40",), _VMS, _no_public_address),
    Rule("vm-ends", "Every VM ends by itself", ("ours",), _VMS, _ends),
    Rule("vm-no-secret", "No secret in metadata", ("ours",), _VMS, _no_secret),
    Rule("run-own-identity", "Services and jobs run as an account of their own", ("CKV_GCP_30", "ours"), _RUN, _run_identity),
    Rule("run-pinned", "Images by digest", ("ours",), _RUN, _run_pinned),
    Rule("run-no-secret", "No secret in a variable", ("ours",), _RUN, _run_no_secret),
    Rule("run-ends", "Instances and tries are bounded", ("ours",), _RUN, _run_ends),
    Rule("run-asks-for-the-key", "Open to callers without IAM only behind the key", ("CKV_GCP_102", "ours"), _RUN[:1], _run_asks_for_the_key),
    Rule("firewall-no-admin-ports", "No SSH or RDP from anywhere", ("CKV_GCP_2", "CKV_GCP_3"), (_FIREWALL,), _no_admin_ports),
    Rule("firewall-only-tls", "From anywhere only TLS", ("CKV_GCP_106", "ours"), (_FIREWALL,), _only_tls_from_anywhere),
    Rule("firewall-named-ports", "Rules name their ports", ("CKV2_GCP_12",), (_FIREWALL,), _named_ports),
    Rule("subnet-flow-logs", "Flow logs", ("CKV_GCP_26",), (_SUBNET,), _flow_logs),
    Rule("subnet-private-access", "Private Google access", ("CKV_GCP_74",), (_SUBNET,), _private_google_access),
    Rule("autoscaler-bounded", "Autoscalers are bounded", ("ours",), ("gcp:compute/regionAutoscaler:RegionAutoscaler",), _scaling_is_bounded),
    Rule(
        "balancer-only-tls",
        "From the internet only TLS",
        ("CKV_GCP_106", "ours"),
        ("gcp:compute/forwardingRule:ForwardingRule", "gcp:compute/globalForwardingRule:GlobalForwardingRule"),
        _external_rule_is_tls,
    ),
    Rule("backend-drains", "Backends drain", ("ours",), ("gcp:compute/regionBackendService:RegionBackendService",), _drains),
    Rule("network-own", "Not the default network", ("CKV_GCP_27",), (_NETWORK,), _own_network),
    Rule("bucket-private", "Uniform, private buckets", ("CKV_GCP_29", "CKV_GCP_114"), (_BUCKET,), _uniform_and_private),
    Rule("bucket-models-kept", "Models are versioned, logged and locked", ("CKV_GCP_62", "CKV_GCP_78", "ours"), (_BUCKET,), _models_are_kept),
    Rule("iam-nothing-public", "Nothing is public", ("CKV_GCP_28", "CKV_GCP_101"), ("gcp:*",), _nothing_public),
    Rule("iam-no-basic-roles", "No basic roles", ("CKV_GCP_117",), ("gcp:*",), _no_basic_role),
    Rule(
        "iam-no-impersonation",
        "No project-wide impersonation or administration",
        ("CKV_GCP_41", "CKV_GCP_42", "CKV_GCP_49"),
        ("gcp:projects/*",),
        _no_impersonation,
    ),
    Rule("iam-no-keys", "No service account keys", ("CKV2_GCP_3",), ("gcp:serviceaccount/key:Key",), _no_keys),
)
