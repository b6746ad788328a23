"""How many servers a group has: the rule that Google's autoscaler applies to what each VM publishes, as a pure function.

Two figures of vLLM, per VM: requests that wait in its queue, and the share of its KV cache that is in use. A queue says that sequences are missing, a full
cache that vLLM is about to put requests off. Each asks for as many servers as keep its mean at the target; the larger number counts
(cloud.google.com/compute/docs/autoscaler/understanding-autoscaler-decisions). A group shrinks only to what the last ten minutes needed, by one server
each time, so that what is warm stays warm through a pause.

    python -m tests.serve.record_queue     writes down what a real server publishes under a crowd; the tests replay it
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runners.fields import ReplicaSpec
from runners.planning.parts import Notice
from runners.spec import ServeSpec
from runners.vm.metrics import KV_USE_METRIC, WAITING_METRIC
from runners.vm.routes import REQUESTS_A_SEQUENCE

#: A server with more than two requests in its queue needs another beside it; the queue is empty while sequences are free.
WAITING_TARGET = 2.0
#: Above four fifths vLLM begins to put requests off when answers are longer than usual.
KV_USE_TARGET = 0.8
TARGETS = ((WAITING_METRIC, WAITING_TARGET), (KV_USE_METRIC, KV_USE_TARGET))
#: The autoscaler's own memory, in which the largest size counts; and the time in which it may take one server away.
STABILIZATION_S = 600
#: Of several servers: each tells once a minute that it was used, and looks once a minute for the others.
LEAST_IDLE_MINUTES = 3
#: The longest answer: 4,096 tokens at 10 a second take seven minutes. A server that is taken away is given so long.
REQUEST_AT_MOST_S = 600


@dataclass(frozen=True)
class Reading:
    """What one server says of itself: requests in its queue, share of its cache in use (0 to 1)."""

    waiting: float
    kv_use: float


def needed(readings: Sequence[Reading]) -> int:
    """Servers that keep both means at their targets; at least one. A server that has not published anything is left out by its caller."""
    waiting, kv_use = sum(one.waiting for one in readings), sum(one.kv_use for one in readings)
    return max(1, math.ceil(round(waiting / WAITING_TARGET, 6)), math.ceil(round(kv_use / KV_USE_TARGET, 6)))


def refusals(spec: ServeSpec, cache_tokens: int) -> Iterator[Notice]:
    """What makes a group of several impossible or useless. ``cache_tokens`` is what the cache of one server holds."""
    if spec.replicas.several and spec.idle_minutes < LEAST_IDLE_MINUTES:
        yield Notice(
            f"serve.idle_minutes is {spec.idle_minutes}: several servers hear of each other's requests once a minute",
            f"at least {LEAST_IDLE_MINUTES}, or an idle one would end the group while another is asked",
            f"serve.idle_minutes: {LEAST_IDLE_MINUTES} or more",
        )
    waiting = (REQUESTS_A_SEQUENCE - 1) * spec.max_sequences
    fullest = Reading(waiting, min(1.0, spec.max_sequences * spec.max_model_tokens / max(1, cache_tokens)))
    if spec.replicas.max > spec.replicas.min and needed([fullest]) == 1:
        yield Notice(
            f"serve.max_sequences is {spec.max_sequences}: at most {waiting} requests wait at a server, the gateway refuses more, and its cache is never "
            f"more than {fullest.kv_use:.1f} full",
            f"a queue of more than {WAITING_TARGET:.0f}, or a cache more than {KV_USE_TARGET} full: the group never grows otherwise",
            f"serve.max_sequences: {int(WAITING_TARGET // (REQUESTS_A_SEQUENCE - 1)) + 1} or more, or serve.replicas with min and max alike",
        )


def size(now_s: float, past: Sequence[tuple[float, int]], taken_away_s: float, current: int, replicas: ReplicaSpec) -> int:
    """The group's next size.

    Args:
        now_s: the time, in seconds.
        past: (time, servers needed) of each look so far, this one's too; those of the last ten minutes count.
        taken_away_s: when a server was taken away last.
        current: servers that the group has or is making.
    """
    peak = max((count for at_s, count in past if at_s > now_s - STABILIZATION_S), default=1)
    wanted = min(max(peak, replicas.min), replicas.max)
    if wanted >= current:
        return wanted
    return current - 1 if now_s - taken_away_s >= STABILIZATION_S else current
