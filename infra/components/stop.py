"""The last stop: the budget's message calls a function that resizes every group of this project to 0. It works when VMs and people do not."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.buckets import Buckets
from infra.components.function import Function
from infra.components.identities import Identities
from infra.components.services import Services
from runners.spec import FoundationSpec


class Stop(pulumi.ComponentResource):
    """Topic, function, and the subscription that calls it."""

    topic: pulumi.Output[str]

    def __init__(self, project: str, spec: FoundationSpec, buckets: Buckets, identities: Identities, after: Services) -> None:
        super().__init__("elson:infra:Stop", "stop")
        mine = pulumi.ResourceOptions(parent=self)
        topic = gcp.pubsub.Topic("messages", name="elson-budget", opts=after.first(self))
        what = "resizes every elson group to 0 when the month's budget is used up"
        function = Function("stop", "stop", what, project, spec, buckets, identities, ELSON_STOP_FRACTION=str(spec.stop_at_budget_fraction))
        gcp.pubsub.Subscription(
            "calls",
            name="elson-budget",
            topic=topic.id,
            ack_deadline_seconds=180,
            # Left out, a subscription without messages is deleted after a month.
            expiration_policy={"ttl": ""},
            retry_policy={"minimum_backoff": "10s", "maximum_backoff": "600s"},
            push_config={
                "push_endpoint": function.url,
                "oidc_token": {"service_account_email": identities.stopper.email, "audience": function.url},
            },
            opts=mine,
        )
        self.topic = topic.id
        self.register_outputs({"topic": self.topic})
