"""Registered inputs beside Google's own discovery documents: enum values that do not exist, and fields that no API has.

The SDK checks neither: a wrong enum is refused by the API at the end of a long `pulumi up`.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import googleapiclient

_DOCUMENTS = Path(googleapiclient.__path__[0]) / "discovery_cache" / "documents"
#: Pulumi type -> (document, schema).
SCHEMAS = {
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": ("compute.v1", "InstanceProperties"),
    "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager": ("compute.v1", "InstanceGroupManager"),
    "gcp:compute/healthCheck:HealthCheck": ("compute.v1", "HealthCheck"),
    "gcp:compute/firewall:Firewall": ("compute.v1", "Firewall"),
    "gcp:compute/network:Network": ("compute.v1", "Network"),
    "gcp:compute/subnetwork:Subnetwork": ("compute.v1", "Subnetwork"),
    "gcp:compute/address:Address": ("compute.v1", "Address"),
    "gcp:compute/router:Router": ("compute.v1", "Router"),
    "gcp:compute/routerNat:RouterNat": ("compute.v1", "RouterNat"),
    "gcp:compute/regionAutoscaler:RegionAutoscaler": ("compute.v1", "Autoscaler"),
    "gcp:compute/regionHealthCheck:RegionHealthCheck": ("compute.v1", "HealthCheck"),
    "gcp:compute/regionBackendService:RegionBackendService": ("compute.v1", "BackendService"),
    "gcp:compute/regionUrlMap:RegionUrlMap": ("compute.v1", "UrlMap"),
    "gcp:compute/regionTargetHttpProxy:RegionTargetHttpProxy": ("compute.v1", "TargetHttpProxy"),
    "gcp:compute/regionTargetHttpsProxy:RegionTargetHttpsProxy": ("compute.v1", "TargetHttpsProxy"),
    "gcp:compute/forwardingRule:ForwardingRule": ("compute.v1", "ForwardingRule"),
    "gcp:storage/bucket:Bucket": ("storage.v1", "Bucket"),
    "gcp:secretmanager/secret:Secret": ("secretmanager.v1", "Secret"),
    "gcp:artifactregistry/repository:Repository": ("artifactregistry.v1", "Repository"),
    "gcp:cloudfunctionsv2/function:Function": ("cloudfunctions.v2", "Function"),
    "gcp:cloudrunv2/service:Service": ("run.v2", "GoogleCloudRunV2Service"),
    "gcp:cloudrunv2/job:Job": ("run.v2", "GoogleCloudRunV2Job"),
    "gcp:billing/budget:Budget": ("billingbudgets.v1", "GoogleCloudBillingBudgetsV1Budget"),
    "gcp:monitoring/alertPolicy:AlertPolicy": ("monitoring.v3", "AlertPolicy"),
    "gcp:monitoring/notificationChannel:NotificationChannel": ("monitoring.v3", "NotificationChannel"),
    "gcp:logging/metric:Metric": ("logging.v2", "LogMetric"),
    "gcp:pubsub/topic:Topic": ("pubsub.v1", "Topic"),
    "gcp:pubsub/subscription:Subscription": ("pubsub.v1", "Subscription"),
    "gcp:cloudscheduler/job:Job": ("cloudscheduler.v1", "Job"),
    "gcp:projects/iAMCustomRole:IAMCustomRole": ("iam.v1", "Role"),
    "gcp:serviceaccount/account:Account": ("iam.v1", "ServiceAccount"),
}
#: What the provider adds of its own, or takes for the URL: paths without numbers.
PROVIDERS_OWN = {
    *(
        "Account.accountId",
        "Budget.billingAccount",
        "Function.location",
        "IAMCustomRole.roleId",
        "Job.region",
        "RegionInstanceTemplate.name",
        "RegionInstanceTemplate.region",
    ),
    *("Repository.location", "Repository.repositoryId", "RouterNat.region", "RouterNat.router", "Secret.secretId"),
    *("Job.deletionProtection", "Job.location", "Service.deletionProtection", "Service.location"),
    *("Bucket.deletionPolicy", "Bucket.forceDestroy", "RegionInstanceGroupManager.waitForInstances"),
}
#: What stands elsewhere in the API: path -> (schema, field) it is looked up in.
MOVED = {
    "Bucket.lifecycleRules": ("Bucket", "lifecycle.rule"),
    "Bucket.lifecycleRules.condition.withState": ("Bucket", "lifecycle.rule.condition.isLive"),
    "Bucket.publicAccessPrevention": ("Bucket", "iamConfiguration.publicAccessPrevention"),
    "Bucket.uniformBucketLevelAccess": ("Bucket", "iamConfiguration.uniformBucketLevelAccess.enabled"),
    "Budget.allUpdatesRule": ("GoogleCloudBillingBudgetsV1Budget", "notificationsRule"),
    "Firewall.allows": ("Firewall", "allowed"),
    "Firewall.allows.protocol": ("Firewall", "allowed.IPProtocol"),
    "IAMCustomRole.permissions": ("Role", "includedPermissions"),
    "Network.routingMode": ("NetworkRoutingConfig", "routingMode"),
    "RegionAutoscaler.autoscalingPolicy.cooldownPeriod": ("AutoscalingPolicy", "coolDownPeriodSec"),
    "RegionAutoscaler.autoscalingPolicy.maxReplicas": ("AutoscalingPolicy", "maxNumReplicas"),
    "RegionAutoscaler.autoscalingPolicy.minReplicas": ("AutoscalingPolicy", "minNumReplicas"),
    "RegionAutoscaler.autoscalingPolicy.metrics": ("AutoscalingPolicy", "customMetricUtilizations"),
    "RegionAutoscaler.autoscalingPolicy.metrics.name": ("AutoscalingPolicyCustomMetricUtilization", "metric"),
    "RegionAutoscaler.autoscalingPolicy.metrics.target": ("AutoscalingPolicyCustomMetricUtilization", "utilizationTarget"),
    "RegionAutoscaler.autoscalingPolicy.metrics.type": ("AutoscalingPolicyCustomMetricUtilization", "utilizationTargetType"),
    "RegionBackendService.connectionDrainingTimeoutSec": ("ConnectionDraining", "drainingTimeoutSec"),
    "RegionInstanceGroupManager.distributionPolicyTargetShape": ("DistributionPolicy", "targetShape"),
    "RegionInstanceGroupManager.distributionPolicyZones": ("DistributionPolicy", "zones"),
    "RegionInstanceGroupManager.updatePolicy.maxSurgeFixed": ("InstanceGroupManagerUpdatePolicy", "maxSurge.fixed"),
    "RegionInstanceGroupManager.updatePolicy.maxUnavailableFixed": ("InstanceGroupManagerUpdatePolicy", "maxUnavailable.fixed"),
    "RegionTargetHttpsProxy.certificateManagerCertificates": ("TargetHttpsProxy", "sslCertificates"),
    "RegionInstanceTemplate.disks.diskType": ("AttachedDiskInitializeParams", "diskType"),
    "RegionInstanceTemplate.disks.labels": ("AttachedDiskInitializeParams", "labels"),
    "RegionInstanceTemplate.disks.sourceImage": ("AttachedDiskInitializeParams", "sourceImage"),
    "RegionInstanceTemplate.reservationAffinity.type": ("ReservationAffinity", "consumeReservationType"),
    "RegionInstanceTemplate.guestAccelerators.count": ("AcceleratorConfig", "acceleratorCount"),
    "RegionInstanceTemplate.guestAccelerators.type": ("AcceleratorConfig", "acceleratorType"),
    "Secret.replication.auto": ("Replication", "automatic"),
}


@functools.cache
def schemas(document: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_DOCUMENTS / f"{document}.json").read_text())["schemas"]
    return found


@functools.cache
def regions(document: str) -> set[str]:
    """Regions that have an endpoint of their own."""
    return {place["location"] for place in json.loads((_DOCUMENTS / f"{document}.json").read_text())["endpoints"]}


def problems(kind: str, inputs: dict[str, Any]) -> list[str]:
    """Every wrong enum value and unknown field of a resource."""
    document, name = SCHEMAS[kind]
    found: list[str] = []
    _walk(schemas(document), schemas(document)[name], inputs, kind.split(":")[-1], found)
    return found


def _walk(all_schemas: dict[str, Any], schema: dict[str, Any], value: Any, path: str, found: list[str]) -> None:
    if "$ref" in schema:
        schema = all_schemas[schema["$ref"]]
    if isinstance(value, list):
        for number, item in enumerate(value):
            _walk(all_schemas, schema.get("items", schema), item, f"{path}[{number}]", found)
    elif isinstance(value, dict):
        if schema.get("type") == "array":  # the provider writes a list of one as an object
            _walk(all_schemas, schema["items"], value, path, found)
            return
        fields = {_plain(key): field for key, field in schema.get("properties", {}).items()}
        if not fields:
            return  # a map of the user's own keys
        for key, item in value.items():
            where = re.sub(r"\[\d+\]", "", f"{path}.{key}")
            if where == "RegionInstanceTemplate.metadata" or where in PROVIDERS_OWN:
                continue  # the first holds the user's own keys
            if where in MOVED:
                _walk(all_schemas, _field(all_schemas, *MOVED[where]), item, f"{path}.{key}", found)
            elif known := fields.get(_plain(key)):
                _walk(all_schemas, known, item, f"{path}.{key}", found)
            else:
                found.append(f"{path}.{key}: no such field ({', '.join(sorted(schema['properties']))[:200]})")
    elif "enum" in schema and value not in schema["enum"]:
        found.append(f"{path}: {value!r} is none of {schema['enum']}")


def _plain(key: str) -> str:
    return re.sub(r"xes$", "x", re.sub(r"ies$", "y", key)).rstrip("s").lower()


def _field(all_schemas: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    """A field by its dotted path; KeyError when it does not exist, which is a mistake in MOVED."""
    schema: dict[str, Any] = all_schemas[name]
    for part in path.split("."):
        schema = schema["properties"][part]
        if part != path.split(".")[-1]:
            schema = all_schemas[schema["$ref"]] if "$ref" in schema else schema.get("items", schema)
    return schema
