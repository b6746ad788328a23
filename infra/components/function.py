"""A Cloud Function that one account may call over HTTP: what the budget's and the scheduler's stops have in common.

No event trigger: Eventarc's service agent needs minutes in a new project before a function can be deployed with one. Pub/Sub and Cloud Scheduler call
the function themselves, with an identity token of its own account; both count as internal callers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pulumi
import pulumi_gcp as gcp

from infra.components.buckets import Buckets
from infra.components.identities import Identities
from runners.planning import cloud_run
from runners.spec import FoundationSpec

SOURCES = Path(__file__).resolve().parents[1] / "functions"
#: Where a training on Cloud Run may be: the API lists executions by region.
_RUN_REGIONS = " ".join(sorted({region for regions in cloud_run.REGIONS.values() for region in regions}))


class Function(pulumi.ComponentResource):
    """Source, function, and the right to call it."""

    url: pulumi.Output[str]

    def __init__(
        self, name: str, entry: str, what: str, project: str, spec: FoundationSpec, buckets: Buckets, identities: Identities, **environment: pulumi.Input[str]
    ) -> None:
        super().__init__("elson:infra:Function", name)
        mine = pulumi.ResourceOptions(parent=self)
        source = gcp.storage.BucketObject(
            f"{name}-source",
            bucket=buckets.scratch.name,
            name=f"functions/{name}-{_content(SOURCES / name)}.zip",
            source=pulumi.AssetArchive({file: pulumi.FileAsset(str(SOURCES / name / file)) for file in _files(SOURCES / name)}),
            opts=mine,
        )
        account = identities.stopper
        function = gcp.cloudfunctionsv2.Function(
            name,
            name=f"elson-{name}",
            location=spec.region,
            description=what,
            build_config={
                "runtime": "python312",
                "entry_point": entry,
                "service_account": identities.builder.name,
                "source": {"storage_source": {"bucket": buckets.scratch.name, "object": source.name}},
            },
            service_config={
                "service_account_email": account.email,
                "available_memory": "256M",
                "timeout_seconds": 120,
                "min_instance_count": 0,
                "max_instance_count": 1,
                "ingress_settings": "ALLOW_INTERNAL_ONLY",
                "environment_variables": {"ELSON_PROJECT": project, "ELSON_RUN_REGIONS": _RUN_REGIONS, **environment},
            },
            opts=pulumi.ResourceOptions.merge(mine, pulumi.ResourceOptions(depends_on=[identities.granted])),
        )
        gcp.cloudrunv2.ServiceIamMember(
            f"{name}-invoker", project=project, location=spec.region, name=function.name, role="roles/run.invoker", member=identities.stop_member, opts=mine
        )
        self.url = function.service_config.apply(lambda config: str(config.uri) if config else "")
        self.register_outputs({"url": self.url})


def _content(folder: Path) -> str:
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in _files(folder))).hexdigest()[:16]


def _files(folder: Path) -> list[str]:
    return sorted(file.name for file in (*folder.glob("*.py"), folder / "requirements.txt"))
