"""An hour of a server: memory of each process, every request accounted for, and what the gateway says at twice its limit.

The real gateway (Caddy, with the image's Caddyfile and entry point) before the real server (the serve image's entry point with vLLM on the CPU and the
tiny model from the emulated bucket), asked by the OpenAI client without retries. Some clients hang up in the middle of a stream: an answer nobody reads is
where servers lose memory and places. `elson load` is not used: vLLM's `bench serve` says how many requests failed, not with which status and body.

    nice -n 10 .venv/bin/python -m tests.benchmarks.serving_soak --minutes 60
    .venv/bin/python -m tests.benchmarks.serving_soak --table
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import openai

from runners import stages
from runners.artifacts import local_bucket
from runners.spec import MachineSpec
from tests import caddy
from tests.cloud_run.conftest import KEY, ROOT, gateway_command, planned, server_entry
from tests.cloud_run.run_platform import Instance, Platform
from tests.vm.simulation import seed

RECORD = Path(__file__).with_name("soak.json")
SEQUENCES = 4
ANSWER_TOKENS = 8
#: One request of so many is streamed; one of so many hangs up after its first piece.
STREAMED, HUNG_UP = 2, 30
#: Of the soak's time: caches fill, lazy imports happen.
WARM_UP = 1 / 6


@dataclass(frozen=True)
class Sample:
    """Memory of one process, KiB. Anonymous and shared pages, each shared page divided among those that map it; files of code left out."""

    minute: float
    process: str
    own_kib: int
    pss_kib: int


@dataclass
class Account:
    """What became of the requests."""

    sent: int = 0
    answered: int = 0
    hung_up: int = 0
    odd: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    longest_ms: float = 0.0

    @property
    def lost(self) -> int:
        return self.sent - self.answered - self.hung_up - sum(self.refused.values()) - len(self.odd)


@contextmanager
def served(folder: Path, sequences: int = SEQUENCES) -> Iterator[tuple[Platform, Instance]]:
    """The gateway and the server, ready."""
    shutil.copytree(seed.files(), folder / "home" / "bucket")
    tiny = seed.resolved(MachineSpec(role="serve", machine_type="run-l4-8", provisioning_model="RUN", region="us-east4"))
    changes = {"model": tiny.base_model.name, "port": 8000, "max_sequences": sequences, "ready_timeout_s": 600}
    spec = tiny.model_copy(update={"serve": tiny.serve.model_copy(update=changes)})
    with local_bucket.running(folder / "home", spec.buckets) as url:
        plan = planned(spec)
        stages.save_spec(plan.spec)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "STORAGE_EMULATOR_HOST": url, "OMP_NUM_THREADS": "1"}
        entry = {"gateway": gateway_command(caddy.binary(), folder / "bin"), "serve": server_entry()}
        platform = Platform(plan, folder / "platform", entry, f"{KEY}\n", environment)
        try:
            yield platform, platform.instance()
        finally:
            platform.close()


def processes(instance: Instance) -> dict[int, str]:
    """Every process of the two containers, with a name."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
        except OSError:
            continue
    found = {}
    for container, top in instance.containers.items():
        tree = [top.pid]
        for pid in tree:
            tree += children.get(pid, [])
        for pid in tree:
            try:
                found[pid] = f"{container}: {Path(f'/proc/{pid}/comm').read_text().strip()}"
            except OSError:
                continue
    return found


def memory(pid: int) -> tuple[int, int]:
    """(anonymous and shared KiB, all KiB) of a process."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        found[name] = int(value.split()[0])
    return found["Pss_Anon"] + found["Pss_Shmem"] + found.get("SwapPss", 0), found["Pss"]


def processor_s(pids: dict[int, str]) -> float:
    """Seconds of processor time that these processes have used."""
    ticks = 0
    for pid in pids:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(values[11]) + int(values[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def metrics(platform: Platform) -> dict[str, float]:
    """vLLM's own counters, summed over their labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{platform.upstream_port}/metrics", timeout=30) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("vllm:")]
    found: dict[str, float] = {}
    for line in lines:
        name = line.partition("{")[0]
        found[name] = found.get(name, 0.0) + float(line.rpartition(" ")[2])
    return found


def asking(platform: Platform) -> openai.AsyncOpenAI:
    """A client of the gateway that tries nothing twice."""
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{platform.container_port}/v1", api_key=KEY, max_retries=0, timeout=120)


async def one(client: openai.AsyncOpenAI, number: int, account: Account, tokens: int) -> None:
    """One request, and its place in the account. A wrong form is odd, a refusal is counted with its status, headers and body."""
    account.sent += 1
    began = time.monotonic()
    asked: dict[str, Any] = {
        "model": "elson",
        "messages": [{"role": "user", "content": f"Question {number}: what is left of {1000 + number % 9000} dollars after {number % 40} percent of tax?"}],
        "max_tokens": tokens,
        "temperature": 0.0,
        "extra_body": {"ignore_eos": True},
    }
    try:
        if number % HUNG_UP == HUNG_UP - 1:
            async with await client.chat.completions.create(**asked | {"max_tokens": 20 * tokens}, stream=True) as pieces:
                async for _ in pieces:
                    break
            account.hung_up += 1
            return
        if number % STREAMED:
            found = [piece async for piece in await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})]
            reasons, usage = [piece.choices[0].finish_reason for piece in found if piece.choices], found[-1].usage
            form = (reasons[-1], usage and usage.completion_tokens, found[-1].model)
        else:
            whole = await client.chat.completions.create(**asked)
            form = (whole.choices[0].finish_reason, whole.usage and whole.usage.completion_tokens, whole.model)
        if form == ("length", tokens, "elson"):
            account.answered += 1
        else:
            account.odd.append(f"{number}: {form}")
    except openai.APIStatusError as error:
        said = error.response
        what = f"{said.status_code} Retry-After {said.headers.get('retry-after')} {said.text.strip()}"
        account.refused[what] = account.refused.get(what, 0) + 1
    except (openai.APIError, IndexError) as error:
        account.odd.append(f"{number}: {error!r}"[:300])
    account.longest_ms = max(account.longest_ms, (time.monotonic() - began) * 1000)


async def soak(client: openai.AsyncOpenAI, instance: Instance, minutes: float, rate: float, every_s: float) -> tuple[Account, list[Sample]]:
    """Requests at a steady rate, whatever the answers take, and the memory meanwhile."""
    account, samples, tasks = Account(), list[Sample](), set[asyncio.Task[None]]()
    begin = time.monotonic()
    next_sample = begin
    for number in itertools.count():
        now = time.monotonic()
        if now >= next_sample:
            for pid, name in processes(instance).items():
                samples.append(Sample(round((now - begin) / 60, 2), f"{name} {pid}", *memory(pid)))
            next_sample += every_s
            print(json.dumps({"minute": round((now - begin) / 60, 1), "sent": account.sent, "answered": account.answered, "odd": account.odd[:3]}), flush=True)
        if now - begin >= minutes * 60:
            break
        task = asyncio.create_task(one(client, number, account, ANSWER_TOKENS))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0.0, begin + (number + 1) / rate - time.monotonic()))
    await asyncio.gather(*tasks)
    return account, samples


async def crowd(client: openai.AsyncOpenAI, at_once: int, requests: int) -> Account:
    """So many clients, each of which asks again as soon as it is answered or refused."""
    account, numbers = Account(), iter(range(0, requests * HUNG_UP * 2, HUNG_UP * 2))

    async def ask() -> None:
        for number in numbers:
            # Odd and even: streamed and whole, none hangs up.
            await one(client, number + number // (HUNG_UP * 2) % 2, account, 10 * ANSWER_TOKENS)

    await asyncio.gather(*(ask() for _ in range(at_once)))
    return account


def growth(samples: list[Sample]) -> list[dict[str, Any]]:
    """For each process: the means of the first quarter after the warm-up and of the last, and the slope by least squares with its 95 % interval."""
    last = max(sample.minute for sample in samples)
    rows = []
    for name in dict.fromkeys(sample.process for sample in samples):
        points = [(sample.minute, sample.own_kib) for sample in samples if sample.process == name and sample.minute >= last * WARM_UP]
        if len(points) < 8:
            rows.append({"process": name, "samples": len(points)})
            continue
        quarter = len(points) // 4
        first, end = ([kib for _, kib in part] for part in (points[:quarter], points[-quarter:]))
        minutes, values = zip(*points, strict=True)
        line = statistics.linear_regression(minutes, values)
        left = sum((value - line.intercept - line.slope * minute) ** 2 for minute, value in points)
        spread = sum((minute - statistics.mean(minutes)) ** 2 for minute in minutes)
        error = (left / (len(points) - 2) / spread) ** 0.5
        rows.append(
            {
                "process": name,
                "samples": len(points),
                "first_kib": round(statistics.mean(first)),
                "first_spread_kib": round(statistics.stdev(first)),
                "last_kib": round(statistics.mean(end)),
                "last_spread_kib": round(statistics.stdev(end)),
                "slope_kib_per_hour": round(60 * line.slope, 1),
                "slope_half_interval": round(60 * 1.96 * error, 1),
            }
        )
    return rows


def measure(minutes: float, rate: float, every_s: float) -> dict[str, Any]:
    """The soak and the crowd after it."""
    with tempfile.TemporaryDirectory() as place, served(Path(place)) as (platform, instance):
        limit, before = int(dict(platform.plan.gateway.environment)["ELSON_MAX_IN_FLIGHT"]), processor_s(processes(instance))
        began = time.monotonic()

        async def phases() -> tuple[Account, list[Sample], float, dict[str, float], Account, Account]:
            async with asking(platform) as client:
                calm, samples = await soak(client, instance, minutes, rate, every_s)
                share = (processor_s(processes(instance)) - before) / (time.monotonic() - began)
                await asyncio.sleep(2)
                after = metrics(platform)
                at_limit = await crowd(client, limit, 20 * limit)
                over = await crowd(client, 2 * limit, 40 * limit)
                return calm, samples, share, after, at_limit, over

        calm, samples, share, after, at_limit, over = asyncio.run(phases())
        left = metrics(platform)
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        return {
            "minutes": minutes,
            "requests_per_s": rate,
            "max_sequences": SEQUENCES,
            "limit": limit,
            "processor_share": round(share, 3),
            "soak": asdict(calm) | {"lost": calm.lost},
            "left_after_soak": {name: after[f"vllm:{name}"] for name in names},
            "growth": growth(samples),
            "at_the_limit": asdict(at_limit) | {"lost": at_limit.lost},
            "at_twice_the_limit": asdict(over) | {"lost": over.lost},
            "left_at_the_end": {name: left[f"vllm:{name}"] for name in names},
            "samples": {
                name: [[one.minute, one.own_kib, one.pss_kib] for one in samples if one.process == name] for name in sorted({s.process for s in samples})
            },
        }


def table(record: dict[str, Any]) -> str:
    """The record as Markdown: requests, then memory."""
    lines = ["| phase | sent | answered | hung up | refused | odd | lost | longest ms |", "|" + "---|" * 8]
    for name in ("soak", "at_the_limit", "at_twice_the_limit"):
        found = record[name]
        cells = [found["sent"], found["answered"], found["hung_up"], sum(found["refused"].values()), len(found["odd"]), found["lost"]]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(map(str, cells))} | {found['longest_ms']:.0f} |")
    lines += ["", "| process | first quarter KiB | last quarter KiB | change KiB | slope KiB an hour |", "|" + "---|" * 5]
    for row in record["growth"]:
        if "first_kib" in row:
            first, last = (f"{row[f'{part}_kib']:,} ± {row[f'{part}_spread_kib']:,}" for part in ("first", "last"))
            slope = f"{row['slope_kib_per_hour']:+.0f} ± {row['slope_half_interval']:.0f}"
            lines.append(f"| {row['process']} | {first} | {last} | {row['last_kib'] - row['first_kib']:+,} | {slope} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second")
    parser.add_argument("--sample-every-s", type=float, default=60)
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--table", action="store_true", help="print the record's table")
    arguments = parser.parse_args()
    if not arguments.table:
        record = measure(arguments.minutes, arguments.rate, arguments.sample_every_s)
        arguments.out.write_text(json.dumps(record) + "\n")
    print(table(json.loads(arguments.out.read_text())))


if __name__ == "__main__":
    main()
