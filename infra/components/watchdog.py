"""The stop outside the VMs that looks at them: every few minutes a function resizes to 0 what lives too long, makes too many VMs, says nothing, or is over."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.buckets import Buckets
from infra.components.function import Function
from infra.components.identities import Identities
from infra.components.services import Services
from runners.spec import FoundationSpec

#: Looks are free (Cloud Scheduler's first three jobs, the function's first two million calls a month).
EVERY_MINUTES = 5


class Watchdog(pulumi.ComponentResource):
    """Function, and the schedule that calls it."""

    def __init__(self, project: str, spec: FoundationSpec, buckets: Buckets, identities: Identities, after: Services) -> None:
        super().__init__("elson:infra:Watchdog", "watchdog")
        what = "resizes elson groups to 0 that live too long, make too many VMs, or whose job does not report"
        function = Function("watchdog", "watch", what, project, spec, buckets, identities, ELSON_SCRATCH=buckets.scratch.name)
        gcp.cloudscheduler.Job(
            "looks",
            name="elson-watchdog",
            region=spec.region,
            schedule=f"*/{EVERY_MINUTES} * * * *",
            time_zone="Etc/UTC",
            attempt_deadline="180s",
            http_target={
                "uri": function.url,
                "http_method": "POST",
                "oidc_token": {"service_account_email": identities.stopper.email, "audience": function.url},
            },
            opts=after.first(self),
        )
        self.register_outputs({})
