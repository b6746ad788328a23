"""The service with the real vLLM (CPU) on the tiny model, from the emulated bucket: asleep, woken, asked, drained in the middle of an answer."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import tarfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from runners import stages
from runners.artifacts import local_bucket
from runners.spec import MachineSpec
from tests.benchmarks import serving_soak
from tests.cloud_run.conftest import KEY, planned, server_entry
from tests.cloud_run.run_platform import TOKEN, Platform, ask
from tests.vm.simulation import seed

HEADERS = {"X_Serverless_Authorization": f"Bearer {TOKEN}", "Authorization": f"Bearer {KEY}"}


def kept_members(url: str) -> list[str]:
    """Members of the archive that the server leaves with its job, once it is complete."""
    folder = f"{url}/storage/v1/b/scratch/o/jobs%2Fserve-0123456789abcdef%2Fcompiled%2F"
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{folder}manifest.json?alt=media", timeout=30).read()
            with tarfile.open(fileobj=io.BytesIO(urllib.request.urlopen(f"{folder}cache.tar.gz?alt=media", timeout=30).read())) as archive:
                return archive.getnames()
        time.sleep(0.2)
    return []


@pytest.mark.timeout(900)
def test_vllm_sleeps_wakes_answers_and_finishes_its_streams(gateway_entry: list[str], clean_environment: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(seed.files(), tmp_path / "home" / "bucket")
    machine = MachineSpec(role="serve", machine_type="run-l4-8", provisioning_model="RUN", region="us-east4")
    tiny = seed.resolved(machine)
    serve = tiny.serve.model_copy(update={"model": tiny.base_model.name, "port": 8000, "max_sequences": 2, "ready_timeout_s": 600})
    spec = tiny.model_copy(update={"serve": serve})
    with local_bucket.running(tmp_path / "home", spec.buckets) as url:
        plan = planned(spec)
        stages.save_spec(plan.spec)
        environment = {**clean_environment, "STORAGE_EMULATOR_HOST": url, "OMP_NUM_THREADS": "1"}
        platform = Platform(plan, tmp_path / "platform", {"gateway": gateway_entry, "serve": server_entry()}, f"{KEY}\n", environment)
        try:
            chat = {"model": "elson", "messages": [{"role": "user", "content": "What is a bond?"}], "max_tokens": 8}
            status, _, body = ask(platform.url, body=chat, timeout_s=800, **HEADERS)
            instance = platform.instances[0]
            assert status == 200 and json.loads(body)["choices"][0]["finish_reason"], instance.said("serve")[-3000:]
            assert "a completion came back" in instance.said("serve")
            state = json.loads(urllib.request.urlopen(f"{url}/storage/v1/b/scratch/o/jobs%2Fserve-0123456789abcdef%2Fstate.json?alt=media", timeout=30).read())
            assert state["status"] == "ready" and state["phases"].keys() == {"program", "weights", "warm up", "first completion"}
            # What vLLM found out about the model's class is kept for the next start, which then needs no process to import it.
            assert any(member.startswith("vllm/modelinfos/") for member in kept_members(url)), instance.said("serve")[-3000:]
            assert ask(platform.url, "/v1/models", **HEADERS)[0] == 200
            for path in ("/metrics", "/invocations", "/tokenize", "/server_info"):
                assert ask(platform.url, path, **HEADERS)[0] == 404

            # The gateway at its limit and at twice it: each request is answered, or refused with a status and a body of ours; none is lost.
            limit = int(dict(platform.plan.gateway.environment)["ELSON_MAX_IN_FLIGHT"])
            assert limit == 2 * serve.max_sequences

            async def crowds() -> list[serving_soak.Account]:
                async with serving_soak.asking(platform) as client:
                    return [await serving_soak.crowd(client, at_once, 10 * limit) for at_once in (limit, 2 * limit)]

            within, over = asyncio.run(crowds())
            assert (within.answered, within.refused) == (10 * limit, {})
            assert over.answered >= limit and over.answered + sum(over.refused.values()) == over.sent == 10 * limit
            (refusal,) = over.refused
            assert refusal.startswith('429 Retry-After 2 {"error": {"message": "Too many requests at once"'), refusal

            got: list[bytes] = []
            long = {**chat, "max_tokens": 150, "stream": True, "ignore_eos": True}
            asking = threading.Thread(target=lambda: got.append(ask(platform.url, body=long, **HEADERS)[2]))
            asking.start()
            time.sleep(0.5)
            took = instance.stop()
            asking.join(30)
            pieces = [json.loads(line[6:]) for line in got[0].decode().splitlines() if line.startswith("data: {")]
            assert got[0].rstrip().endswith(b"data: [DONE]"), got[0][-500:]
            assert pieces[-1]["choices"][0]["finish_reason"] == "length" and took < 11
            assert not instance.killed
        finally:
            platform.close()
