"""A network of our own: private subnets with a way to Google's APIs, no way in but IAP and the health checkers, and those to the gateway only.

No SSH rule: a VM's state, logs and progress are read from the bucket and from Cloud Logging.
"""

from __future__ import annotations

import ipaddress

import pulumi
import pulumi_gcp as gcp

from infra.components.services import Services
from infra.plan import HEALTH_CHECK_RANGES, HTTPS_PORT, IAP_RANGE
from runners.errors import UserError
from runners.spec import FoundationSpec
from runners.vm.containers import HEALTH_PORT


def subnets(spec: FoundationSpec) -> list[tuple[str, str, str]]:
    """(name, region, range) of every subnet; those of the n-th other region are called ``name@region`` and lie n * 65,536 addresses further on."""
    found = []
    for number, region in enumerate((spec.region, *spec.other_regions)):
        for subnet in spec.subnets:
            there = ipaddress.ip_network(subnet.cidr)
            begin = there.network_address + number * 2**16
            found.append((subnet.name if number == 0 else f"{subnet.name}@{region}", region, f"{begin}/{there.prefixlen}"))
    return found


def check_proxies(spec: FoundationSpec) -> None:
    """Raises UserError where the range of the load balancers' proxies overlaps a subnet."""
    for name, _, cidr in subnets(spec) if spec.proxies_cidr else ():
        if ipaddress.ip_network(cidr).overlaps(ipaddress.ip_network(spec.proxies_cidr or "")):
            raise UserError(f"foundation.proxies_cidr {spec.proxies_cidr} overlaps {name} ({cidr})", "a range of its own", "e.g. 10.20.255.0/24")


class Network(pulumi.ComponentResource):
    """Network, subnets, firewall, and who may use IAP."""

    link: pulumi.Output[str]

    def __init__(self, project: str, spec: FoundationSpec, server: gcp.serviceaccount.Account, after: Services) -> None:
        super().__init__("elson:infra:Network", "network")
        mine = pulumi.ResourceOptions(parent=self)
        network = gcp.compute.Network(
            "network",
            name="elson",
            auto_create_subnetworks=False,
            routing_mode="REGIONAL",
            opts=after.first(self),
        )
        made = {
            name: gcp.compute.Subnetwork(
                f"subnet-{name.replace('@', '-')}",
                name=f"elson-{name.partition('@')[0]}",
                network=network.id,
                region=region,
                ip_cidr_range=cidr,
                private_ip_google_access=True,
                log_config={"aggregation_interval": "INTERVAL_10_MIN", "flow_sampling": 0.1, "metadata": "EXCLUDE_ALL_METADATA"},
                opts=mine,
            )
            for name, region, cidr in subnets(spec)
        }
        ports = [str(spec.gateway_port), str(HTTPS_PORT)]
        for name, text, ranges, open_ports in (
            ("iap", "operators, through Identity-Aware Proxy, to the gateway", [IAP_RANGE], ports),
            ("health", "Google's health checkers, to the gateway's /health", list(HEALTH_CHECK_RANGES), [str(HEALTH_PORT)]),
        ):
            gcp.compute.Firewall(
                name,
                name=f"elson-{name}",
                description=text,
                network=network.id,
                direction="INGRESS",
                source_ranges=ranges,
                target_service_accounts=[server.email],
                allows=[{"protocol": "tcp", "ports": open_ports}],
                log_config={"metadata": "EXCLUDE_ALL_METADATA"},
                opts=mine,
            )
        if spec.proxies_cidr:
            self._proxies(spec, spec.proxies_cidr, network, server)
        only: gcp.projects.IAMMemberConditionArgsDict = {
            "title": "only the gateway",
            "expression": " || ".join(f"destination.port == {port}" for port in ports),
        }
        for member in spec.operators:
            gcp.projects.IAMMember(
                f"operator-{member}",
                project=project,
                role="roles/iap.tunnelResourceAccessor",
                member=member,
                condition=only,
                opts=after.first(self),
            )
        self.link = network.id
        self.subnets = pulumi.Output.all(**{name: subnet.self_link for name, subnet in made.items()})
        self.register_outputs({"link": self.link})

    def _proxies(self, spec: FoundationSpec, cidr: str, network: gcp.compute.Network, server: gcp.serviceaccount.Account) -> None:
        """Where the proxies of load balancers stand, one range a region and network, and their way to the gateways."""
        mine = pulumi.ResourceOptions(parent=self)
        gcp.compute.Subnetwork(
            "subnet-proxies",
            name="elson-proxies",
            network=network.id,
            region=spec.region,
            ip_cidr_range=cidr,
            purpose="REGIONAL_MANAGED_PROXY",
            role="ACTIVE",
            opts=mine,
        )
        gcp.compute.Firewall(
            "proxies",
            name="elson-proxies",
            description="the load balancer's proxies, to the gateway",
            network=network.id,
            direction="INGRESS",
            source_ranges=[cidr],
            target_service_accounts=[server.email],
            allows=[{"protocol": "tcp", "ports": [str(spec.gateway_port)]}],
            log_config={"metadata": "EXCLUDE_ALL_METADATA"},
            opts=mine,
        )
