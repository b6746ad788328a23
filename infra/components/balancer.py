"""The load balancer before a group of several servers: Google's regional Application Load Balancer, internal unless it is opened on purpose.

A request goes to the healthy server with the fewest requests in flight. A server that is taken out (the group shrinks, or an update replaces it) finishes
the requests it has before its VM ends. The proxies stand in a subnet of the foundation (``foundation.proxies_cidr``).
Left out on purpose: making a certificate, whose proof of ownership is a DNS record of the user's; a WAF.
"""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.foundation_reference import FoundationReference
from infra.plan import Balancing, GroupPlan
from runners.vm.containers import HEALTH_PORT

#: The gateway's port by its name in the group.
PORT_NAME = "gateway"


class Balancer(pulumi.ComponentResource):
    """Health check, backend service, URL map, proxy and forwarding rule; outside, an address."""

    address: pulumi.Output[str]

    def __init__(
        self, stack: str, plan: GroupPlan, balancing: Balancing, group: gcp.compute.RegionInstanceGroupManager, foundation: FoundationReference
    ) -> None:
        super().__init__("elson:infra:Balancer", stack)
        mine = pulumi.ResourceOptions(parent=self)
        scheme = "EXTERNAL_MANAGED" if balancing.is_external else "INTERNAL_MANAGED"
        check = gcp.compute.RegionHealthCheck(
            "ready",
            name=f"{balancing.name}-ready",
            region=plan.region,
            description="the gateway says 200 only while completions come back",
            # Two answers take a server out or in; the group's own check, which makes another VM, is more patient.
            check_interval_sec=10,
            timeout_sec=5,
            healthy_threshold=1,
            unhealthy_threshold=2,
            http_health_check={"port": HEALTH_PORT, "request_path": "/health"},
            opts=mine,
        )
        backend = gcp.compute.RegionBackendService(
            "backend",
            name=balancing.name,
            region=plan.region,
            load_balancing_scheme=scheme,
            protocol="HTTP",
            port_name=PORT_NAME,
            health_checks=check.id,
            backends=[{"group": group.instance_group, "balancing_mode": "UTILIZATION", "capacity_scaler": 1.0}],
            locality_lb_policy="LEAST_REQUEST",
            # A stream is one answer, from its first byte to its last; without this it would be cut after 30 s.
            timeout_sec=balancing.draining_s,
            connection_draining_timeout_sec=balancing.draining_s,
            opts=mine,
        )
        urls = gcp.compute.RegionUrlMap("urls", name=balancing.name, region=plan.region, default_service=backend.id, opts=mine)
        proxy: gcp.compute.RegionTargetHttpProxy | gcp.compute.RegionTargetHttpsProxy
        if balancing.certificate:
            proxy = gcp.compute.RegionTargetHttpsProxy(
                "proxy", name=balancing.name, region=plan.region, url_map=urls.id, certificate_manager_certificates=[balancing.certificate], opts=mine
            )
        else:
            proxy = gcp.compute.RegionTargetHttpProxy("proxy", name=balancing.name, region=plan.region, url_map=urls.id, opts=mine)
        # Regional external proxies take the standard tier in every region.
        reserved = (
            gcp.compute.Address("address", name=f"elson-{stack}", region=plan.region, address_type="EXTERNAL", network_tier="STANDARD", opts=mine)
            if balancing.is_external
            else None
        )
        rule = gcp.compute.ForwardingRule(
            "rule",
            name=balancing.name,
            region=plan.region,
            load_balancing_scheme=scheme,
            ip_protocol="TCP",
            port_range=str(balancing.port),
            target=proxy.id,
            network=foundation.network_with_proxies(),
            subnetwork=None if reserved else foundation.subnet(plan.subnet, plan.region),
            ip_address=reserved.address if reserved else None,
            network_tier="STANDARD" if reserved else "PREMIUM",
            labels=dict(plan.labels),
            opts=mine,
        )
        self.address = rule.ip_address
        self.register_outputs({"address": self.address})
