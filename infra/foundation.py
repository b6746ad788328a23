"""The stack everything else uses: what is kept, who may do what, and what watches the money."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_gcp as gcp

from infra.components.alerts import Alerts
from infra.components.buckets import Buckets
from infra.components.budget import Budget
from infra.components.dashboard import Dashboard
from infra.components.identities import Identities
from infra.components.images import Images
from infra.components.network import Network, check_proxies
from infra.components.secrets import Secrets
from infra.components.services import Services
from infra.components.stop import Stop
from infra.components.watchdog import Watchdog
from runners.errors import UserError
from runners.planning.stacks import Stack


def build(stack: Stack) -> dict[str, Any]:
    """Declare the foundation; returns its outputs, which the other stacks read. Raises UserError for a stack that is none."""
    spec = stack.spec.foundation
    if spec is None:
        raise UserError(f"{stack.name} has no foundation", "the foundation stack", "pulumi up -s foundation")
    check_proxies(spec)
    services = Services(billing=spec.billing_account is not None)
    project = gcp.organizations.get_project_output(project_id=stack.project, opts=pulumi.InvokeOutputOptions(depends_on=[services.known]))
    buckets = Buckets(stack.spec.buckets, spec, after=services)
    images = Images(spec, after=services)
    secrets = Secrets(after=services)
    identities = Identities(stack.project, spec.region, buckets, images, secrets, after=services)
    network = Network(stack.project, spec, identities.server, after=services)
    stop = Stop(stack.project, spec, buckets, identities, after=services)
    Watchdog(stack.project, spec, buckets, identities, after=services)
    alerts = Alerts(stack.project, spec, after=services)
    if not spec.billing_account:
        pulumi.log.warn("no foundation.billing_account: there is no budget, so the last of the five stops is missing (gcloud billing accounts list)")
    else:
        Budget(stack.project, spec, spec.billing_account, project.number, stop.topic, alerts.channels, after=services)
    Dashboard(stack.project, after=services)
    return {
        "project": stack.project,
        "region": spec.region,
        "modelsBucket": stack.spec.buckets.models,
        "scratchBucket": stack.spec.buckets.scratch,
        "scratchBucketName": buckets.scratch.name,
        "images": images.url,
        "gatewayPort": spec.gateway_port,
        "network": network.link,
        "subnets": network.subnets,
        "proxies": spec.proxies_cidr or "",
        "serviceAccounts": identities.emails,
        "apiKeySecret": secrets.api_key,
        "operators": list(spec.operators),
        "stopTopic": stop.topic,
        "next": "elson key rotate; elson images build; elson base publish; elson data build --publish",
    }
