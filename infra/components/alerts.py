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
        "the watchdog stopped a group",
        'jsonPayload.message:"group resized to 0"',
        "Its VM did not end by itself: read the reason in the log, then `elson status JOB --log 200`, and `elson retry JOB` when that is fixed.",
    ),
}


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
            # VMs write into "elson"; a training on Cloud Run writes to stderr, and the watchdog prints.
            sources = ("run.googleapis.com%2Fstdout",) if name == "watchdog" else ("elson", "run.googleapis.com%2Fstderr")
            names = " OR ".join(f'"projects/{project}/logs/{source}"' for source in sources)
            selected = f"logName=({names}) AND {condition}"
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
