"""What is in the cloud while Pulumi's state does not know it: Google answers 409 to each update that makes it.

An update that was cut off leaves such things. The state names what it was making then, so those are ours and ``elson up`` takes them over;
others may be another state's, so a person decides. Left out: what Google names itself (alerts, budget, dashboard), which is made a second time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runners.errors import UserError

EXISTS = re.compile(r"alreadyExists|already exists|already own it", re.IGNORECASE)
#: Pulumi's type -> the ID by which the provider imports it. Each provider page says it under "Import".
_IDS = {
    "gcp:artifactregistry/repository:Repository": "projects/{project}/locations/{location}/repositories/{repositoryId}",
    "gcp:cloudfunctionsv2/function:Function": "projects/{project}/locations/{location}/functions/{name}",
    "gcp:cloudrunv2/job:Job": "projects/{project}/locations/{location}/jobs/{name}",
    "gcp:cloudrunv2/service:Service": "projects/{project}/locations/{location}/services/{name}",
    "gcp:cloudscheduler/job:Job": "projects/{project}/locations/{region}/jobs/{name}",
    "gcp:compute/address:Address": "projects/{project}/regions/{region}/addresses/{name}",
    "gcp:compute/firewall:Firewall": "projects/{project}/global/firewalls/{name}",
    "gcp:compute/forwardingRule:ForwardingRule": "projects/{project}/regions/{region}/forwardingRules/{name}",
    "gcp:compute/healthCheck:HealthCheck": "projects/{project}/global/healthChecks/{name}",
    "gcp:compute/network:Network": "projects/{project}/global/networks/{name}",
    "gcp:compute/regionAutoscaler:RegionAutoscaler": "projects/{project}/regions/{region}/autoscalers/{name}",
    "gcp:compute/regionBackendService:RegionBackendService": "projects/{project}/regions/{region}/backendServices/{name}",
    "gcp:compute/regionHealthCheck:RegionHealthCheck": "projects/{project}/regions/{region}/healthChecks/{name}",
    "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager": "projects/{project}/regions/{region}/instanceGroupManagers/{name}",
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": "projects/{project}/regions/{region}/instanceTemplates/{name}",
    "gcp:compute/regionTargetHttpProxy:RegionTargetHttpProxy": "projects/{project}/regions/{region}/targetHttpProxies/{name}",
    "gcp:compute/regionTargetHttpsProxy:RegionTargetHttpsProxy": "projects/{project}/regions/{region}/targetHttpsProxies/{name}",
    "gcp:compute/regionUrlMap:RegionUrlMap": "projects/{project}/regions/{region}/urlMaps/{name}",
    "gcp:compute/router:Router": "projects/{project}/regions/{region}/routers/{name}",
    "gcp:compute/routerNat:RouterNat": "projects/{project}/regions/{region}/routers/{router}/{name}",
    "gcp:compute/subnetwork:Subnetwork": "projects/{project}/regions/{region}/subnetworks/{name}",
    "gcp:logging/metric:Metric": "{project} {name}",
    "gcp:projects/iAMCustomRole:IAMCustomRole": "projects/{project}/roles/{roleId}",
    "gcp:pubsub/subscription:Subscription": "projects/{project}/subscriptions/{name}",
    "gcp:pubsub/topic:Topic": "projects/{project}/topics/{name}",
    "gcp:secretmanager/secret:Secret": "projects/{project}/secrets/{secretId}",
    "gcp:serviceaccount/account:Account": "projects/{project}/serviceAccounts/{accountId}@{project}.iam.gserviceaccount.com",
    "gcp:storage/bucket:Bucket": "{name}",
    "gcp:storage/managedFolder:ManagedFolder": "{bucket}/managedFolders/{name}",
}


@dataclass(frozen=True)
class UnmanagedResource:
    """One thing that is there already: how Pulumi names it, and how Google does."""

    urn: str
    parent: str
    id: str

    @property
    def type(self) -> str:
        """Pulumi's, such as ``gcp:compute/network:Network``."""
        return self.urn.split("::")[2].rpartition("$")[2]

    @property
    def name(self) -> str:
        """The program's."""
        return self.urn.split("::", 3)[3]

    def __str__(self) -> str:
        return f"{self.type.rpartition(':')[2]} {self.id}"

    def command(self, stack: str) -> str:
        """``pulumi import`` for a person's shell."""
        parent = f" --parent '{self.parent.split('::', 3)[3]}={self.parent}'" if self.parent and "pulumi:pulumi:Stack" not in self.parent else ""
        return f"pulumi import -s {stack} --yes --protect=false --generate-code=false{parent} {self.type} '{self.name}' '{self.id}'"


def taken(urn: str, parent: str, inputs: Mapping[str, Any], project: str) -> UnmanagedResource | None:
    """What an update could not make because it is there; None for a type whose ID is not known."""
    found = UnmanagedResource(urn, parent, "")
    try:
        return UnmanagedResource(urn, parent, _IDS[found.type].format(**{"project": project, **inputs}))
    except KeyError:
        return None


def unknown_to_the_state(stack: str, found: Sequence[UnmanagedResource]) -> UserError:
    """The error about things that no update of this state was making."""
    many = f"{len(found)} resources are" if len(found) > 1 else "1 resource is"
    return UserError(
        f"{many} in the cloud and not in Pulumi's state of {stack}: {', '.join(map(str, found))}",
        "each of them in this state, or none of them there",
        "if another Pulumi login made them, log in there (pulumi login …) and go on with that; "
        f"else take them over: {'; '.join(one.command(stack) for one in found)}; then: elson up {stack}",
    )
