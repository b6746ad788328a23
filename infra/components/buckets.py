"""Two buckets. Models: versions, soft delete, and three locks against deletion (protect, PREVENT, no force_destroy). Scratch: expires, nothing kept.

Soft delete is billed, so checkpoints, which come and go by the gigabyte, stand in the bucket that has none.
"""

from __future__ import annotations

import json

import pulumi
import pulumi_gcp as gcp

from infra.components.services import Services
from runners.artifacts import layout, registry, storage
from runners.spec import BucketSpec, FoundationSpec

#: Names of the plan: the base, the adapter, the quantized model, and the first version beside them.
FOLDERS = (
    "elson-finance-trading-14b-final",
    "wealth-dora-elson14b-h100-v2",
    "elson-finance-trading-wealth-14b-q4-v2",
    "wealth-dora-elson14b-h100",
    "elson-finance-trading-wealth-14b-q4",
    *registry.DEPRECATED,
)
_DAY_S = 86_400
#: Objects that are worth nothing later. Specs, the functions' sources and the states of jobs are small and stay: a job without its state would begin again.
_EXPIRING = ("checkpoints/", "staging/", "builds/", "access-logs/")


class Buckets(pulumi.ComponentResource):
    """The models bucket with its layout, and the scratch bucket."""

    def __init__(self, uris: BucketSpec, spec: FoundationSpec, after: Services) -> None:
        super().__init__("elson:infra:Buckets", "buckets")
        self.scratch = self._scratch(storage.split(uris.scratch)[0], spec, after)
        self.models = self._models(storage.split(uris.models)[0], spec, after)
        self._layout(uris)
        self.register_outputs({"models": self.models.name, "scratch": self.scratch.name})

    def _models(self, name: str, spec: FoundationSpec, after: Services) -> gcp.storage.Bucket:
        return gcp.storage.Bucket(
            "models",
            name=name,
            location=(spec.buckets_location or spec.region).upper(),
            storage_class="STANDARD",
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            versioning={"enabled": True},
            soft_delete_policy={"retention_duration_seconds": spec.soft_delete_days * _DAY_S},
            lifecycle_rules=[_rule("Delete", {"num_newer_versions": 3, "days_since_noncurrent_time": 90, "with_state": "ARCHIVED"})],
            logging={"log_bucket": self.scratch.name, "log_object_prefix": "access-logs/models"},
            labels={"elson-content": "models"},
            force_destroy=False,
            deletion_policy="PREVENT",
            opts=after.first(self, protect=True),
        )

    def _scratch(self, name: str, spec: FoundationSpec, after: Services) -> gcp.storage.Bucket:
        bucket = gcp.storage.Bucket(
            "scratch",
            name=name,
            location=(spec.buckets_location or spec.region).upper(),
            storage_class="STANDARD",
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            soft_delete_policy={"retention_duration_seconds": 0},
            lifecycle_rules=[
                _rule("Delete", {"age": spec.checkpoint_days, "matches_prefixes": list(_EXPIRING)}),
                _rule("Delete", {"age": spec.checkpoint_days, "matches_prefixes": ["jobs/"], "matches_suffixes": [".log"]}),
                _rule("AbortIncompleteMultipartUpload", {"age": 1}),
            ],
            labels={"elson-content": "scratch"},
            force_destroy=True,
            opts=after.first(self),
        )
        gcp.storage.BucketIAMMember(
            "access-logs",
            bucket=bucket.name,
            role="roles/storage.objectCreator",
            member="group:cloud-storage-analytics@google.com",
            opts=pulumi.ResourceOptions(parent=self),
        )
        return bucket

    def _layout(self, uris: BucketSpec) -> None:
        mine = pulumi.ResourceOptions(parent=self, protect=True)
        for name in FOLDERS:
            gcp.storage.ManagedFolder(f"folder-{name}", bucket=self.models.name, name=f"{name}/", force_destroy=False, opts=mine)
        for name, replacement in registry.DEPRECATED.items():
            entry = registry.Entry(
                name=name,
                id="first-version",
                kind="dora",
                status="deprecated",
                manifest="",
                reason="a LoRA model of the first version",
                replacement=replacement,
            )
            gcp.storage.BucketObject(
                f"deprecated-{name}",
                bucket=self.models.name,
                name=layout.registry(uris, name).removeprefix(uris.models + "/"),
                content=json.dumps(entry.model_dump(mode="json"), indent=1, sort_keys=True),
                content_type="application/json",
                opts=mine,
            )


def _rule(action: str, condition: gcp.storage.BucketLifecycleRuleConditionArgsDict) -> gcp.storage.BucketLifecycleRuleArgsDict:
    return {"action": {"type": action}, "condition": condition}
