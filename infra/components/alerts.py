"""Mails about what a VM or a training on Cloud Run wrote into Cloud Logging, and about what the watchdog stopped."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.components.services import Services
from runners.spec import FoundationSpec

#: name -> (title, filter, what to do). The agent logs every decision that ends or changes a job with the status it leads to (runners/vm/state.py).
EVENTS = {
    "preempted": (
        "a VM was preempted",
        'jsonPayload.status="preempted"',
        "Nothing: another VM (Cloud Run: another try) resumes from the last checkpoint.",
    ),
    "failed": (
        "a job failed",
        'jsonPayload.status="failed"',
        "Read the reason with `elson status JOB`; when it is fixed: `elson retry JOB`, then `pulumi up --refresh`.",
    ),
    "deadline": (
        "a job passed its deadline",
        'jsonPayload.status="deadline"',
        "It has ended by itself. Raise machine.deadline_minutes or look for what was slow.",
    ),
    "unstoppable": (
        "a VM could not delete itself",
        'jsonPayload.message:"could not end this VM"',
        "Set the group to 0 by hand: `pulumi destroy -s STACK`. Then look at the roles of its service account.",
    ),
    "watchdog": (
        "a job was stopped from outside",
        '(jsonPayload.message:"group resized to 0" OR jsonPayload.message:"execution cancelled" OR jsonPayload.message:"service deleted")',
        "It did not end by itself: read the reason in the log, then `elson status JOB --log 200`, and `elson retry JOB` when that is fixed. "
        "A service on Cloud Run: `elson up serve-l4-run` makes it again.",
    ),
}
#: Cloud Run keeps what all services and jobs of a project write in the same two logs, under their own names.
_JOBS = 'resource.type="cloud_run_job" AND resource.labels.job_name=~"^elson-(train|quantize)-"'
_FUNCTIONS = 'resource.type="cloud_run_revision" AND resource.labels.service_name=~"^elson-(stop|watchdog)$"'


class Alerts(pulumi.ComponentResource):
    """Channels, log-based policies, and a counter for each event."""

    def __init__(self, project: str, spec: FoundationSpec, after: Services) -> None:
        super().__init__("elson:infra:Alerts", "alerts")
        first = after.first(self)
        made = [
            gcp.monitoring.NotificationChannel(f"mail-{address}", display_name=f"elson: {address}", type="email", labels={"email_address": address}, opts=first)
            for address in spec.alert_emails
        ]
        self.channels = [channel.name for channel in made]
        for name, (title, condition, what_to_do) in EVENTS.items():
            selected = f"{sources(project, name)} AND {condition}"
            gcp.logging.Metric(
                f"count-{name}",
                name=f"elson/{name}",
                description=title,
                filter=selected,
                metric_descriptor={"metric_kind": "DELTA", "value_type": "INT64", "unit": "1"},
                opts=first,
            )
            gcp.monitoring.AlertPolicy(
                f"alert-{name}",
                display_name=f"elson: {title}",
                combiner="OR",
                severity="WARNING" if name == "preempted" else "ERROR",
                conditions=[{"display_name": title, "condition_matched_log": {"filter": selected}}],
                alert_strategy={
                    "auto_close": "86400s",
                    "notification_rate_limit": {"period": "300s"},
                },
                documentation={"content": what_to_do, "mime_type": "text/markdown"},
                notification_channels=self.channels,
                opts=first,
            )
        self.register_outputs({})


def sources(project: str, event: str) -> str:
    """Whose logs an event is looked for in: VMs write into "elson", a training on Cloud Run to stderr, and the two functions print."""
    logs = f"projects/{project}/logs"
    if event == "watchdog":
        return f'logName="{logs}/run.googleapis.com%2Fstdout" AND {_FUNCTIONS}'
    return f'(logName="{logs}/elson" OR (logName="{logs}/run.googleapis.com%2Fstderr" AND {_JOBS}))'
