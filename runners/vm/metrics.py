"""vLLM's own figures of its use, as a server's watcher needs them."""

from __future__ import annotations

import contextlib


def counters(text: str) -> dict[str, float]:
    """Sums over the labels of vLLM's Prometheus text."""
    totals = {"vllm:generation_tokens_total": 0.0, "vllm:request_success_total": 0.0, "vllm:num_requests_running": 0.0, "vllm:num_requests_waiting": 0.0}
    for line in text.splitlines():
        name = line.split("{")[0].split(" ")[0]
        if name in totals:
            with contextlib.suppress(ValueError, IndexError):
                totals[name] += float(line.rsplit(" ", 1)[1])
    waiting = totals["vllm:num_requests_running"] + totals["vllm:num_requests_waiting"]
    return {"tokens": totals["vllm:generation_tokens_total"], "answered": totals["vllm:request_success_total"], "in_flight": waiting}
