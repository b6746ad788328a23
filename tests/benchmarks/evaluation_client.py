"""What the evaluation's client adds to a request: client time less the time the server says it took, at growing concurrency.

The stub answers on a fixed schedule (first token after 200 ms, then one every 10 ms) in a process of its own. Both sides read the monotonic clock;
the server's time runs from the request's last byte to its last event. What is left is connection, transfer, wake-up and the client itself.

    .venv/bin/python tests/benchmarks/evaluation_client.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from runners.evaluation.client import Endpoint, Settings

FIRST_TOKEN_S, TOKEN_S, WORDS = 0.2, 0.01, 50


async def measure(url: str, concurrency: int, requests: int) -> tuple[list[float], float]:
    """(overhead of each request in ms, processor seconds of this process a request)."""
    settings = Settings(url, "stub", 100, 0.0, 0, 30.0, 0)
    asked = iter(range(requests))
    overheads: list[float] = []
    async with Endpoint(settings, None) as server:

        async def work(offset: float) -> None:
            # Spread over one answer's time, as real requests are after the first round.
            await asyncio.sleep(offset)
            for number in asked:
                reply = await server.ask([{"role": "user", "content": f"{number}"}])
                assert reply.status == "answered", reply
                overheads.append(reply.latency_ms - float(reply.served_model or "nan"))

        await asyncio.gather(*(server.ask([{"role": "user", "content": "warm"}]) for _ in range(concurrency)))
        used = time.process_time()
        duration = FIRST_TOKEN_S + WORDS * TOKEN_S
        await asyncio.gather(*(work(duration * k / concurrency) for k in range(concurrency)))
    return overheads, (time.process_time() - used) / requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    stub = Path(__file__).parents[1] / "evaluation" / "stub_server.py"
    command = [sys.executable, str(stub), "--clocked", str(WORDS), "--first-token-s", str(FIRST_TOKEN_S), "--token-s", str(TOKEN_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            for concurrency in options.concurrency:
                overheads, cpu = asyncio.run(measure(url, concurrency, max(16, concurrency * options.rounds)))
                cut = statistics.quantiles(overheads, n=100)
                row = {
                    "concurrency": concurrency,
                    "requests": len(overheads),
                    "mean_ms": statistics.fmean(overheads),
                    "p50_ms": cut[49],
                    "p95_ms": cut[94],
                    "p99_ms": cut[98],
                }
                print(json.dumps({key: round(value, 3) for key, value in row.items()} | {"cpu_ms_per_request": round(cpu * 1000, 3)}), flush=True)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
