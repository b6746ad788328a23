"""The way out for a VM without an external address: a router with NAT over the stack's own subnet.

It belongs to the stack of the machine, not to the foundation, since it is billed by the hour. Two stacks that are up at once need two subnets.
"""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.foundation_reference import FoundationReference
from infra.plan import GroupPlan


class Egress(pulumi.ComponentResource):
    """Router and NAT of one subnet."""

    def __init__(self, stack: str, plan: GroupPlan, foundation: FoundationReference) -> None:
        super().__init__("elson:infra:Egress", stack)
        mine = pulumi.ResourceOptions(parent=self)
        elsewhere = "" if plan.place == 1 else f"-{plan.region}"
        router = gcp.compute.Router(f"router{elsewhere}", name=f"elson-{plan.subnet}", region=plan.region, network=foundation["network"], opts=mine)
        gcp.compute.RouterNat(
            f"nat{elsewhere}",
            name=f"elson-{plan.subnet}",
            router=router.name,
            region=plan.region,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="LIST_OF_SUBNETWORKS",
            subnetworks=[{"name": foundation.subnet(plan.subnet, plan.region), "source_ip_ranges_to_nats": ["ALL_IP_RANGES"]}],
            log_config={"enable": True, "filter": "ERRORS_ONLY"},
            opts=mine,
        )
        self.register_outputs({})
