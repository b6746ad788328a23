"""A service of Cloud Run: the gateway, which is reached, and vLLM on loopback, which has the card. An instance lives while it is asked.

Left out on purpose: a domain, a load balancer, a network of our own. Who may call it is IAM's to say, and the gateway asks for the key besides.
"""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.foundation_reference import FoundationReference
from infra.run_plan import KEYS_FOLDER, ContainerPlan, ServicePlan
from runners.planning.cloud_run import REQUEST_AT_MOST_S


class RunService(pulumi.ComponentResource):
    """Spec, service, and who may call it."""

    uri: pulumi.Output[str]
    spec_uri: pulumi.Output[str]

    def __init__(self, stack: str, plan: ServicePlan, foundation: FoundationReference) -> None:
        super().__init__("elson:infra:RunService", stack)
        mine = pulumi.ResourceOptions(parent=self)
        spec, self.spec_uri = foundation.spec_object("spec", plan.spec, self)
        least, most = plan.instances
        account = foundation.account("serve")
        service = gcp.cloudrunv2.Service(
            "service",
            name=plan.name,
            location=plan.region,
            description="elson: gateway and vLLM, started by a request",
            ingress="INGRESS_TRAFFIC_ALL",
            invoker_iam_disabled=plan.is_open,
            deletion_protection=False,
            labels=dict(plan.labels),
            template={
                "service_account": account,
                "execution_environment": "EXECUTION_ENVIRONMENT_GEN2",
                # The first request waits for the whole start.
                "timeout": f"{REQUEST_AT_MOST_S}s",
                "max_instance_request_concurrency": plan.requests_at_once,
                "scaling": {"min_instance_count": least, "max_instance_count": most},
                "gpu_zonal_redundancy_disabled": True,
                "node_selector": {"accelerator": plan.accelerator},
                "volumes": [
                    {"name": "keys", "secret": {"secret": foundation["apiKeySecret"], "items": [{"path": "keys", "version": "latest", "mode": 0o444}]}}
                ],
                "containers": [_gateway(plan), {**_container(plan.server), "args": list(plan.server.arguments)}],
                "labels": dict(plan.labels),
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=[spec]),
        )
        # A list may not be empty, and the operators' may be: the server itself does no harm in it.
        members = pulumi.Output.all(foundation["operators"], account).apply(lambda found: [*found[0], f"serviceAccount:{found[1]}"])
        gcp.cloudrunv2.ServiceIamBinding(
            "callers", project=service.project, location=service.location, name=service.name, role="roles/run.invoker", members=members, opts=mine
        )
        self.uri = service.uri
        self.register_outputs({"uri": self.uri, "spec_uri": self.spec_uri})


def _gateway(plan: ServicePlan) -> gcp.cloudrunv2.ServiceTemplateContainerArgsDict:
    return {
        **_container(plan.gateway),
        "commands": list(plan.gateway.arguments),
        "ports": {"container_port": plan.port, "name": "http1"},
        "startup_probe": {
            "http_get": {"path": "/health", "port": plan.port},
            "period_seconds": plan.probe["period_seconds"],
            "timeout_seconds": plan.probe["timeout_seconds"],
            "failure_threshold": plan.probe["failure_threshold"],
        },
    }


def _container(container: ContainerPlan) -> gcp.cloudrunv2.ServiceTemplateContainerArgsDict:
    return {
        "name": container.name,
        "image": container.image,
        "envs": [{"name": name, "value": value} for name, value in container.environment],
        "resources": {"limits": dict(container.limits), "cpu_idle": False, "startup_cpu_boost": True},
        "volume_mounts": [{"name": "keys", "mount_path": KEYS_FOLDER}],
    }
