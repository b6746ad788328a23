"""A server that named ranges may reach: a stable address and one firewall rule. Everybody else goes through IAP."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.foundation_reference import FoundationReference
from infra.plan import Access, GroupPlan


class Exposure(pulumi.ComponentResource):
    """Static address, and who may come."""

    address: pulumi.Output[str]

    def __init__(self, stack: str, plan: GroupPlan, access: Access, foundation: FoundationReference) -> None:
        super().__init__("elson:infra:Exposure", stack)
        mine = pulumi.ResourceOptions(parent=self)
        reserved = gcp.compute.Address("address", name=f"elson-{stack}", region=plan.region, address_type="EXTERNAL", network_tier="PREMIUM", opts=mine)
        gcp.compute.Firewall(
            "clients",
            name=f"elson-{stack}-clients",
            description="the gateway, from the ranges of serve.allowed_cidrs",
            network=foundation["network"],
            direction="INGRESS",
            source_ranges=list(access.ranges),
            target_service_accounts=[foundation.account("serve")],
            allows=[{"protocol": "tcp", "ports": [str(access.port)]}],
            log_config={"metadata": "INCLUDE_ALL_METADATA"},
            opts=mine,
        )
        self.address = reserved.address
        self.register_outputs({"address": self.address})
