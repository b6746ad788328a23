"""The last stop: a budget's message starts a function that resizes every group of this project to 0. It works when VMs and people do not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pulumi
import pulumi_gcp as gcp

from infra.components.buckets import Buckets
from infra.components.identities import Identities
from infra.components.services import Services
from runners.spec import FoundationSpec

SOURCE = Path(__file__).resolve().parents[1] / "functions" / "stop"
_FILES = ("main.py", "requirements.txt")


class Stop(pulumi.ComponentResource):
    """Topic, function, and the right to call it."""

    topic: pulumi.Output[str]

    def __init__(self, project: str, number: pulumi.Output[str], spec: FoundationSpec, buckets: Buckets, identities: Identities, after: Services) -> None:
        super().__init__("elson:infra:Stop", "stop")
        mine = pulumi.ResourceOptions(parent=self)
        topic = gcp.pubsub.Topic("messages", name="elson-budget", opts=pulumi.ResourceOptions.merge(after.first, mine))
        source = gcp.storage.BucketObject(
            "source",
            bucket=buckets.scratch.name,
            name=f"functions/stop-{_content()}.zip",
            source=pulumi.AssetArchive({name: pulumi.FileAsset(str(SOURCE / name)) for name in _FILES}),
            opts=mine,
        )
        account = identities.stopper
        function = gcp.cloudfunctionsv2.Function(
            "function",
            name="elson-stop",
            location=spec.region,
            description="resizes every elson group to 0 when the month's budget is used up",
            build_config=gcp.cloudfunctionsv2.FunctionBuildConfigArgs(
                runtime="python312",
                entry_point="stop",
                service_account=identities.builder.name,
                source=gcp.cloudfunctionsv2.FunctionBuildConfigSourceArgs(
                    storage_source=gcp.cloudfunctionsv2.FunctionBuildConfigSourceStorageSourceArgs(bucket=buckets.scratch.name, object=source.name)
                ),
            ),
            service_config=gcp.cloudfunctionsv2.FunctionServiceConfigArgs(
                service_account_email=account.email,
                available_memory="256M",
                timeout_seconds=120,
                min_instance_count=0,
                max_instance_count=1,
                ingress_settings="ALLOW_INTERNAL_ONLY",
                environment_variables={"ELSON_PROJECT": project, "ELSON_STOP_FRACTION": str(spec.stop_at_budget_fraction)},
            ),
            event_trigger=gcp.cloudfunctionsv2.FunctionEventTriggerArgs(
                event_type="google.cloud.pubsub.topic.v1.messagePublished",
                pubsub_topic=topic.id,
                trigger_region=spec.region,
                retry_policy="RETRY_POLICY_RETRY",
                service_account_email=account.email,
            ),
            opts=mine,
        )
        member = pulumi.Output.format("serviceAccount:{0}", account.email)
        gcp.cloudrunv2.ServiceIamMember(
            "invoker", project=project, location=spec.region, name=function.name, role="roles/run.invoker", member=member, opts=mine
        )
        gcp.projects.IAMMember("receiver", project=project, role="roles/eventarc.eventReceiver", member=member, opts=mine)
        self.topic = topic.id
        self.register_outputs({"topic": self.topic})


def _content() -> str:
    digest = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in _FILES))
    return digest.hexdigest()[:16]
