"""What a stack is, in the few lines that matter: resources by component, with the values somebody would ask about.

Write them again after a change that is meant:  .venv/bin/python tests/infra/inventory.py
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]
from engine import Registered, Run  # noqa: E402 - run as a script, it needs the paths first

FOLDER = Path(__file__).with_name("inventories")
STACKS = ("foundation", "train-h100", "train-run", "serve-l4", "serve-l4-spot", "serve-l4-run")
#: type -> inputs that an inventory shows.
SHOWN: dict[str, tuple[str, ...]] = {
    "Bucket": ("location", "forceDestroy", "deletionPolicy", "softDeletePolicy"),
    "Repository": ("format", "dockerConfig"),
    "Subnetwork": ("ipCidrRange", "privateIpGoogleAccess"),
    "Firewall": ("sourceRanges", "allows", "targetServiceAccounts"),
    "IAMMember": ("role", "member"),
    "BucketIAMMember": ("bucket", "role", "member"),
    "RepositoryIamMember": ("role", "member"),
    "SecretIamMember": ("role", "member"),
    "ServiceIamMember": ("role", "member"),
    "ServiceIamBinding": ("role", "members"),
    "JobIamMember": ("role", "member"),
    "Service": ("location", "ingress", "invokerIamDisabled", "template"),
    "Job": ("location", "startExecutionToken", "template"),
    "IAMCustomRole": ("permissions",),
    "Budget": ("amount", "thresholdRules"),
    "Function": ("location", "serviceConfig"),
    "RegionInstanceTemplate": ("machineType", "guestAccelerators", "scheduling", "serviceAccount"),
    "RegionInstanceGroupManager": (
        *("region", "targetSize", "distributionPolicyZones", "distributionPolicyTargetShape", "instanceLifecyclePolicy", "autoHealingPolicies"),
    ),
    "HealthCheck": ("httpHealthCheck", "checkIntervalSec", "unhealthyThreshold"),
    "RouterNat": ("natIpAllocateOption",),
    "AlertPolicy": ("severity",),
}  # fmt: skip


_ID = re.compile(r"(specs/|qdora-|serve-|quantize-|Token: r)[0-9a-f]{6,16}\b")


def of(run: Run) -> dict[str, Any]:
    """Component -> resources, each with its options and shown values."""
    found: dict[str, dict[str, Any]] = {}
    for resource in run.custom:
        kind = resource.type.split(":")[-1]
        values: dict[str, Any] = {key: resource.inputs[key] for key in SHOWN.get(kind, ()) if key in resource.inputs}
        values = yaml.safe_load(_ID.sub(r"\1ID", yaml.safe_dump(values)))  # every change of the code has other ids
        options = {"protect": resource.request.protect, "deleteBeforeReplace": resource.request.deleteBeforeReplace}
        found.setdefault(_component(resource), {})[resource.key] = values | {key: True for key, on in options.items() if on}
    return {component: dict(sorted(found[component].items())) for component in sorted(found)} | {"outputs": sorted(run.outputs)}


def _component(resource: Registered) -> str:
    parent = resource.request.parent.split("::")[2]
    return parent.split("$")[-1].split(":")[-1] if "elson:infra:" in parent else "Stack"


def text(run: Run) -> str:
    return yaml.safe_dump(of(run), sort_keys=False, width=150)


def main() -> None:
    import conftest

    from runners.artifacts import local_bucket
    from runners.spec import BucketSpec

    folder = Path(tempfile.mkdtemp())
    buckets = BucketSpec(models=f"gs://{conftest.PROJECT}-elson-models", scratch=f"gs://{conftest.PROJECT}-elson-scratch")
    FOLDER.mkdir(exist_ok=True)
    with local_bucket.running(folder, buckets) as url:
        conftest.fill(buckets, folder)
        cloud = conftest.Cloud(buckets, url)
        for stack in STACKS:
            (FOLDER / f"{stack}.yaml").write_text(text(cloud.run(stack, **conftest.usual_changes(stack))))


if __name__ == "__main__":
    main()
