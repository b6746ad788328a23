"""One page in Cloud Monitoring: are there machines, what do they do, what did they say."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pulumi_gcp as gcp

from infra.components.alerts import EVENTS
from infra.components.services import Services


class Dashboard(pulumi.ComponentResource):
    """The dashboard; its content is data."""

    def __init__(self, project: str, after: Services) -> None:
        super().__init__("elson:infra:Dashboard", "dashboard")
        first = after.first(self)
        gcp.monitoring.Dashboard("dashboard", dashboard_json=json.dumps(content(project), sort_keys=True), opts=first)
        self.register_outputs({})


def content(project: str) -> dict[str, Any]:
    """The page: sizes of the groups, CPU and network of the VMs, events, and the log."""
    groups = (
        'metric.type="compute.googleapis.com/instance_group/size" resource.type="instance_group" resource.label."instance_group_name"=starts_with("elson-")'
    )
    vm = 'resource.type="gce_instance" metric.label."instance_name"=starts_with("elson-")'
    charts = [
        _chart("Machines running (they cost money)", [groups], "ALIGN_MEAN"),
        _chart("CPU of the machines", [f'metric.type="compute.googleapis.com/instance/cpu/utilization" {vm}'], "ALIGN_MEAN"),
        _chart(
            "Network of the machines, bytes/s",
            [f'metric.type="compute.googleapis.com/instance/network/{way}_bytes_count" {vm}' for way in ("received", "sent")],
            "ALIGN_RATE",
        ),
        _chart("Events", [f'metric.type="logging.googleapis.com/user/elson/{name}"' for name in EVENTS], "ALIGN_DELTA"),
    ]
    logs = {"title": "What the machines say", "logsPanel": {"filter": f'logName="projects/{project}/logs/elson"', "resourceNames": [f"projects/{project}"]}}
    tiles = [{"xPos": 24 * (n % 2), "yPos": 16 * (n // 2), "width": 24, "height": 16, "widget": chart} for n, chart in enumerate(charts)]
    tiles.append({"xPos": 0, "yPos": 32, "width": 48, "height": 24, "widget": logs})
    return {"displayName": "elson", "mosaicLayout": {"columns": 48, "tiles": tiles}}


def _chart(title: str, filters: list[str], aligner: str) -> dict[str, Any]:
    sets = [
        {
            "plotType": "LINE",
            "targetAxis": "Y1",
            "timeSeriesQuery": {"timeSeriesFilter": {"filter": text, "aggregation": {"alignmentPeriod": "60s", "perSeriesAligner": aligner}}},
        }
        for text in filters
    ]
    return {"title": title, "xyChart": {"dataSets": sets}}
