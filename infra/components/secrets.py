"""The place of the API key.

The key itself is written by ``elson key rotate`` straight into Secret Manager: it is never in Pulumi's state, in argv or in metadata.
"""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.services import Services
from runners.cloud import api_key


class Secrets(pulumi.ComponentResource):
    """One secret without a version."""

    api_key: pulumi.Output[str]

    def __init__(self, after: Services) -> None:
        super().__init__("elson:infra:Secrets", "secrets")
        self.secret = gcp.secretmanager.Secret(
            "api-key",
            secret_id=api_key.NAME,
            replication={"auto": {}},
            version_destroy_ttl="604800s",  # a revoked key can be brought back for a week
            labels={"elson-content": "api-key"},
            opts=after.first(self),
        )
        self.api_key = pulumi.Output.format("projects/{0}/secrets/{1}", self.secret.project, self.secret.secret_id)
        self.register_outputs({"api_key": self.api_key})
