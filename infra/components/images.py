"""The container registry: immutable tags, the newest versions kept, what nobody names any more deleted."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.services import Services
from runners.spec import FoundationSpec


class Images(pulumi.ComponentResource):
    """One Docker repository."""

    url: pulumi.Output[str]

    def __init__(self, spec: FoundationSpec, after: Services) -> None:
        super().__init__("elson:infra:Images", "images")
        self.repository = gcp.artifactregistry.Repository(
            "images",
            repository_id="elson",
            location=spec.region,
            format="DOCKER",
            description="containers of elson's stages, named by digest in the stack files",
            docker_config={"immutable_tags": True},
            cleanup_policy_dry_run=False,
            cleanup_policies=[
                {"id": "keep-newest", "action": "KEEP", "most_recent_versions": {"keep_count": spec.keep_images}},
                {"id": "delete-stale", "action": "DELETE", "condition": {"tag_state": "ANY", "older_than": "1209600s"}},
            ],
            opts=after.first(self),
        )
        self.url = pulumi.Output.format("{0}-docker.pkg.dev/{1}/{2}", spec.region, self.repository.project, self.repository.repository_id)
        self.register_outputs({"url": self.url})
