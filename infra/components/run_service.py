"""A service of Cloud Run: the gateway, which is reached, and vLLM on loopback, which has the card. An instance lives while it is asked.

Left out on purpose: a domain, a load balancer, a network of our own. Who may call it is IAM's to say, and the gateway asks for the key besides.
"""

from __future__ import annotations

from typing import Any

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
            template=gcp.cloudrunv2.ServiceTemplateArgs(
                service_account=account,
                execution_environment="EXECUTION_ENVIRONMENT_GEN2",
                # The first request waits for the whole start.
                timeout=f"{REQUEST_AT_MOST_S}s",
                max_instance_request_concurrency=plan.requests_at_once,
                scaling=gcp.cloudrunv2.ServiceTemplateScalingArgs(min_instance_count=least, max_instance_count=most),
                gpu_zonal_redundancy_disabled=True,
                node_selector=gcp.cloudrunv2.ServiceTemplateNodeSelectorArgs(accelerator=plan.accelerator),
                volumes=[self._keys(foundation)],
                containers=[self._gateway(plan), self._server(plan)],
                labels=dict(plan.labels),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[spec]),
        )
        # A list may not be empty, and the operators' may be: the server itself does no harm in it.
        members = pulumi.Output.all(foundation["operators"], account).apply(lambda found: [*found[0], f"serviceAccount:{found[1]}"])
        gcp.cloudrunv2.ServiceIamBinding(
            "callers", project=service.project, location=service.location, name=service.name, role="roles/run.invoker", members=members, opts=mine
        )
        self.uri = service.uri
        self.register_outputs({"uri": self.uri, "spec_uri": self.spec_uri})

    def _gateway(self, plan: ServicePlan) -> gcp.cloudrunv2.ServiceTemplateContainerArgs:
        ready = gcp.cloudrunv2.ServiceTemplateContainerStartupProbeHttpGetArgs(path="/health", port=plan.port)
        return gcp.cloudrunv2.ServiceTemplateContainerArgs(
            name=plan.gateway.name,
            image=plan.gateway.image,
            commands=list(plan.gateway.arguments),
            ports=gcp.cloudrunv2.ServiceTemplateContainerPortsArgs(container_port=plan.port, name="http1"),
            startup_probe=gcp.cloudrunv2.ServiceTemplateContainerStartupProbeArgs(
                http_get=ready,
                period_seconds=plan.probe["period_seconds"],
                timeout_seconds=plan.probe["timeout_seconds"],
                failure_threshold=plan.probe["failure_threshold"],
            ),
            **self._common(plan.gateway),
        )

    def _server(self, plan: ServicePlan) -> gcp.cloudrunv2.ServiceTemplateContainerArgs:
        return gcp.cloudrunv2.ServiceTemplateContainerArgs(
            name=plan.server.name, image=plan.server.image, args=list(plan.server.arguments), **self._common(plan.server)
        )

    def _common(self, container: ContainerPlan) -> dict[str, Any]:
        return {
            "envs": [gcp.cloudrunv2.ServiceTemplateContainerEnvArgs(name=name, value=value) for name, value in container.environment],
            "resources": gcp.cloudrunv2.ServiceTemplateContainerResourcesArgs(limits=dict(container.limits), cpu_idle=False, startup_cpu_boost=True),
            "volume_mounts": [gcp.cloudrunv2.ServiceTemplateContainerVolumeMountArgs(name="keys", mount_path=KEYS_FOLDER)],
        }

    def _keys(self, foundation: FoundationReference) -> gcp.cloudrunv2.ServiceTemplateVolumeArgs:
        newest = gcp.cloudrunv2.ServiceTemplateVolumeSecretItemArgs(path="keys", version="latest", mode=0o444)
        return gcp.cloudrunv2.ServiceTemplateVolumeArgs(
            name="keys", secret=gcp.cloudrunv2.ServiceTemplateVolumeSecretArgs(secret=foundation["apiKeySecret"], items=[newest])
        )
