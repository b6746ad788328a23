"""The APIs of the project that anything here uses. They stay on when the stack goes: turning one off would break what others built on it."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_gcp as gcp

from infra.components.pause import Pause

SERVICES = (
    "artifactregistry", "cloudbuild", "cloudfunctions", "cloudresourcemanager", "cloudscheduler", "compute", "iam", "iap", "logging", "monitoring", "pubsub",
    "run", "secretmanager", "serviceusage", "storage",
)  # fmt: skip
#: Seconds until an API that was switched on answers everywhere.
_KNOWN_AFTER_S = 60


class Services(pulumi.ComponentResource):
    """One resource an API; other components wait for all of them."""

    def __init__(self, *, billing: bool) -> None:
        super().__init__("elson:infra:Services", "services")
        names = (*SERVICES, "billingbudgets", "cloudbilling") if billing else SERVICES
        self.enabled = [
            gcp.projects.Service(name, service=f"{name}.googleapis.com", disable_on_destroy=False, opts=pulumi.ResourceOptions(parent=self)) for name in names
        ]
        self.known = Pause("services-known", _KNOWN_AFTER_S, self.enabled, self)
        self.register_outputs({})

    def first(self, parent: pulumi.Resource, **options: Any) -> pulumi.ResourceOptions:
        """Options of a child of ``parent`` that needs the APIs."""
        return pulumi.ResourceOptions(parent=parent, depends_on=[*self.enabled, self.known], **options)
