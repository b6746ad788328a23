"""What the providers of the stand-in `pulumi` command make: buckets and objects in the storage emulator, the rest as lines and IDs in STANDIN."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

STANDIN = Path(os.environ.get("STANDIN", "."))


def call(method: str, path: str, body: bytes | None = None) -> int:
    request = urllib.request.Request(os.environ["STORAGE_EMULATOR_HOST"] + path, data=body, method=method, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def has_bucket(name: str) -> bool:
    return call("GET", f"/storage/v1/b/{name}") == 200


#: Kind -> its ID in the cloud, for what may be there once: provider documentation, "Import". The others have names that Google makes, or overwrite.
IDS = {
    "Account": "projects/{project}/serviceAccounts/{accountId}@{project}.iam.gserviceaccount.com",
    "Address": "projects/{project}/regions/{region}/addresses/{name}",
    "Bucket": "{name}",
    "Firewall": "projects/{project}/global/firewalls/{name}",
    "ForwardingRule": "projects/{project}/regions/{region}/forwardingRules/{name}",
    "Function": "projects/{project}/locations/{location}/functions/{name}",
    "HealthCheck": "projects/{project}/global/healthChecks/{name}",
    "IAMCustomRole": "projects/{project}/roles/{roleId}",
    "ManagedFolder": "{bucket}/managedFolders/{name}",
    "Metric": "{project} {name}",
    "Network": "projects/{project}/global/networks/{name}",
    "RegionAutoscaler": "projects/{project}/regions/{region}/autoscalers/{name}",
    "RegionBackendService": "projects/{project}/regions/{region}/backendServices/{name}",
    "RegionHealthCheck": "projects/{project}/regions/{region}/healthChecks/{name}",
    "RegionInstanceGroupManager": "projects/{project}/regions/{region}/instanceGroupManagers/{name}",
    "RegionInstanceTemplate": "projects/{project}/regions/{region}/instanceTemplates/{name}",
    "RegionTargetHttpProxy": "projects/{project}/regions/{region}/targetHttpProxies/{name}",
    "RegionTargetHttpsProxy": "projects/{project}/regions/{region}/targetHttpsProxies/{name}",
    "RegionUrlMap": "projects/{project}/regions/{region}/urlMaps/{name}",
    "Repository": "projects/{project}/locations/{location}/repositories/{repositoryId}",
    "Router": "projects/{project}/regions/{region}/routers/{name}",
    "RouterNat": "projects/{project}/regions/{region}/routers/{router}/{name}",
    "Secret": "projects/{project}/secrets/{secretId}",
    "Service": "projects/{project}/locations/{location}/services/{name}",
    "Subnetwork": "projects/{project}/regions/{region}/subnetworks/{name}",
    "Subscription": "projects/{project}/subscriptions/{name}",
    "Topic": "projects/{project}/topics/{name}",
}


def cloud_id(kind: str, inputs: dict[str, Any]) -> str:
    if kind.endswith("scheduler/job:Job"):
        return "projects/a-project/locations/{region}/jobs/{name}".format(**inputs)
    if kind.endswith("cloudrunv2/job:Job"):
        return "projects/a-project/locations/{location}/jobs/{name}".format(**inputs)
    if kind.startswith("gcp:projects/service:"):  # switching on what is on changes nothing
        return ""
    return IDS.get(kind.split(":")[-1], "").format(**{"project": "a-project", **inputs})


def there() -> dict[str, dict[str, Any]]:
    """What is in the cloud, by ID."""
    file = STANDIN / "there.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def make(resource: Any) -> None:
    if found := cloud_id(resource.type, resource.inputs):
        _write({**there(), found: resource.inputs})
    kind, inputs = resource.type.split(":")[-1], resource.inputs
    if kind == "Bucket" and not has_bucket(inputs["name"]):
        call("POST", "/storage/v1/b?project=a-project", json.dumps({"name": inputs["name"]}).encode())
    elif kind == "BucketObject" and "content" in inputs:
        name = urllib.parse.quote(inputs["name"], safe="")
        # The provider keeps a content secret, and the stand-in engine shows a secret as JSON.
        content = json.loads(inputs["content"]) if type(inputs["content"]).__name__ == "Secret" else inputs["content"]
        code = call("POST", f"/upload/storage/v1/b/{inputs['bucket']}/o?uploadType=media&name={name}", content.encode())
        assert code == 200, code
    elif kind in ("Service", "RegionInstanceGroupManager", "Secret") or resource.type.endswith("cloudrunv2/job:Job"):
        with (STANDIN / "cloud.jsonl").open("a") as file:
            file.write(json.dumps({"kind": kind, **inputs}) + "\n")


def taken(resource: Any) -> str:
    """What Google says of something that is there already."""
    kind, found = resource.type.split(":")[-1], cloud_id(resource.type, resource.inputs)
    if kind == "Bucket":
        return "googleapi: Error 409: Your previous request to create the named bucket succeeded and you already own it., conflict"
    if kind == "IAMCustomRole":
        return f"Custom project role {found} already exists and must be imported"
    return f"1 error occurred:\n\t* Error creating {kind}: googleapi: Error 409: The resource '{found}' already exists, alreadyExists"


def delete(resource: dict[str, Any]) -> None:
    _write({key: inputs for key, inputs in there().items() if key != cloud_id(resource["type"], resource["inputs"])})
    if resource["type"].endswith((":RegionInstanceGroupManager", "cloudrunv2/job:Job")):
        with (STANDIN / "cloud.jsonl").open("a") as file:
            file.write(json.dumps({"kind": "deleted", "name": resource["inputs"]["name"]}) + "\n")


def _write(found: dict[str, Any]) -> None:
    (STANDIN / "there.json").write_text(json.dumps(found))
