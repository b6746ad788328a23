"""What Cloud Run allows an instance with a GPU. tests/infra/test_discovery.py holds these beside the API's own document, as far as it names them.

Cards, regions, the least of cores and memory, time-outs: https://cloud.google.com/run/docs/configuring/services/gpu and …/jobs/gpu, read on 2026-11-24.
Regions that are open by invitation only (L4: us-central1, asia-south1; RTX PRO 6000: asia-south2) are left out.
"""

from __future__ import annotations

#: Card -> regions where any project may use it.
REGIONS = {
    "nvidia-l4": ("us-east4", "europe-west1", "europe-west4", "asia-southeast1"),
    "nvidia-rtx-pro-6000": ("us-central1", "europe-west4", "asia-southeast1"),
}
#: Card -> (cores, GiB) at least, and the NVIDIA driver that its instances have.
LEAST = {"nvidia-l4": (4, 16), "nvidia-rtx-pro-6000": (20, 80)}
DRIVERS = {"nvidia-l4": "535", "nvidia-rtx-pro-6000": "580"}
#: Seconds that all startup probes together may take with a GPU, and the bounds of a single one.
STARTUP_AT_MOST_S, PROBE_PERIOD_AT_MOST_S, PROBE_TIMEOUT_AT_MOST_S = 1800, 240, 3600
#: A request may take an hour, and so may a task with a GPU (12 hours are in preview).
REQUEST_AT_MOST_S, TASK_AT_MOST_MINUTES = 3600, 60
#: Seconds between SIGTERM and SIGKILL, for services and tasks alike.
GRACE_S = 10
#: Minutes that an instance is kept after its last request, before the platform ends it: 10 to 15 have been seen.
TAIL_MINUTES = 12
_PERIOD_S, _TIMEOUT_S = 10, 5


def startup_probe(ready_timeout_s: int) -> dict[str, int]:
    """Period, time-out and number of the probes that wait for a server. A plan beyond what the platform allows is refused before (``notices.py``)."""
    return {"period_seconds": _PERIOD_S, "timeout_seconds": _TIMEOUT_S, "failure_threshold": max(1, ready_timeout_s // _PERIOD_S)}
