"""What the evaluation's client adds to a request: client time less the time the server says it took, at growing concurrency.

The stub answers on a fixed schedule (first token after 200 ms, then one every 10 ms) in a process of its own. Both sides read the monotonic clock;
the server's time runs from the request's last byte to its last event. What is left is connection, transfer, wake-up and the client itself.

``--httpx`` sends the same requests through httpx (streamed, bytes stamped and parsed afterwards as well), in the same run.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/evaluation_client.py --httpx
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from runners.evaluation.client import Endpoint, Settings
from runners.evaluation.wire import Response, Wire

FIRST_TOKEN_S, TOKEN_S, WORDS = 0.2, 0.01, 50


class ThroughHttpx(Wire):
    """The same interface over httpx, the client that was left."""

    def __init__(self, base_url: str) -> None:
        import httpx

        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        self._base, self._http = base_url, httpx.AsyncClient(limits=limits, timeout=30, trust_env=False, headers={"Accept-Encoding": "identity"})

    async def request(self, method: str, path: str, content: bytes = b"") -> Response:
        request = self._http.build_request(method, self._base + path, content=content, headers={"Content-Type": "application/json"})
        response = Response(time.monotonic())
        received = await self._http.send(request, stream=True)
        async for chunk in received.aiter_raw():
            response.body.append((time.monotonic(), chunk))
        response.ended, response.status = time.monotonic(), received.status_code
        await received.aclose()
        return response

    def close(self) -> None:
        """Left to the end of the process."""


async def measure(url: str, concurrency: int, requests: int, through_httpx: bool) -> tuple[list[float], float]:
    """(overhead of each request in ms, processor seconds of this process a request)."""
    settings = Settings(url, "stub", 100, 0.0, 0, 30.0, 0)
    asked = iter(range(requests))
    overheads: list[float] = []
    async with Endpoint(settings, None) as server:
        if through_httpx:
            server._wire = ThroughHttpx(f"{url}/v1")

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
    parser.add_argument("--httpx", action="store_true", help="the same through httpx, for comparison")
    options = parser.parse_args()
    stub = Path(__file__).parents[1] / "evaluation" / "stub_server.py"
    command = [sys.executable, str(stub), "--clocked", str(WORDS), "--first-token-s", str(FIRST_TOKEN_S), "--token-s", str(TOKEN_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            for concurrency, through_httpx in itertools.product(options.concurrency, [False, True] if options.httpx else [False]):
                overheads, cpu = asyncio.run(measure(url, concurrency, max(32, concurrency * options.rounds), through_httpx))
                cut = statistics.quantiles(overheads, n=100)
                row = {"mean_ms": statistics.fmean(overheads), "p50_ms": cut[49], "p95_ms": cut[94], "p99_ms": cut[98], "cpu_ms_per_request": cpu * 1000}
                named = {"client": "httpx" if through_httpx else "elson", "concurrency": concurrency, "requests": len(overheads)}
                print(json.dumps(named | {key: round(value, 3) for key, value in row.items()}), flush=True)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
