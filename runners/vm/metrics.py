"""vLLM's own figures of its use, as a server's watcher needs them."""

from __future__ import annotations

import contextlib

#: What a group of several servers is sized by: custom metrics of Cloud Monitoring, one value a VM.
WAITING_METRIC, KV_USE_METRIC = "custom.googleapis.com/elson/requests_waiting", "custom.googleapis.com/elson/kv_cache_use"

_TOTALS = ("vllm:generation_tokens_total", "vllm:request_success_total", "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")


def counters(text: str) -> dict[str, float]:
    """Sums over the labels of vLLM's Prometheus text; ``kv_use`` is a share, 0 to 1."""
    totals = dict.fromkeys(_TOTALS, 0.0)
    for line in text.splitlines():
        name = line.split("{")[0].split(" ")[0]
        if name in totals:
            with contextlib.suppress(ValueError, IndexError):
                totals[name] += float(line.rsplit(" ", 1)[1])
    tokens, answered, running, waiting, kv_use = totals.values()
    return {"tokens": tokens, "answered": answered, "in_flight": running + waiting, "waiting": waiting, "kv_use": kv_use}


def together(found: list[dict[str, float] | None]) -> dict[str, float] | None:
    """The sums over the servers of one machine; None while one of them does not answer, whose part of a sum would look like a restart."""
    seen = [one for one in found if one is not None]
    return {name: sum(one[name] for one in seen) for name in seen[0]} if len(seen) == len(found) and seen else None
