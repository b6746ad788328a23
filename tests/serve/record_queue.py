"""What a real server (vLLM on a CPU, the tiny model, eight sequences) says of its queue and cache while a crowd comes and goes; replayed in test_scaling.py.

python -m tests.serve.record_queue        about two minutes; writes recorded_queue.json
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from pathlib import Path

from tests import caddy
from tests.cloud_run.conftest import ROOT, gateway_command
from tests.serve.several import Balancer, balanced

FILE = Path(__file__).with_name("recorded_queue.json")
#: (from second, to second, clients that ask one question after the other)
CROWDS = ((1.0, 8.0, 4), (8.0, 20.0, 15), (20.0, 28.0, 6))
TOKENS = 300
SEQUENCES = 8
LENGTH_S, EVERY_S = 45.0, 0.5


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
    rows: list[list[float]] = []
    with balanced(caddy.binary(), gateway_command(caddy.binary(), folder / "bin"), environment, folder, SEQUENCES) as (balancer, start):
        (server,) = start(1)
        balancer.list(server)
        balancer.until_it_answers()
        begin = time.monotonic()
        for first, last, count in CROWDS:
            for _ in range(count):
                threading.Timer(first, _ask, (balancer, begin + last)).start()
        while (at_s := time.monotonic() - begin) < LENGTH_S:
            found = server.counters()
            rows.append([round(at_s, 1), found["waiting"], round(found["kv_use"], 4)])
            time.sleep(EVERY_S)
    text = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    FILE.write_text(f"[\n{text}\n]\n")


def _ask(balancer: Balancer, until: float) -> None:
    while time.monotonic() < until:
        try:
            for _ in balancer.stream(TOKENS):
                pass
        except ValueError:  # the gateway is full: two crowds overlap for a moment
            time.sleep(0.5)


if __name__ == "__main__":
    main()
