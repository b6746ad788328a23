"""The service with two real vLLMs (CPU) on tiny models, from the emulated bucket: asleep, woken, asked, drained in the middle of two answers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runners import stages
from runners.artifacts import local_bucket
from runners.cloud import jobs
from runners.fields import SecondModelSpec
from runners.spec import MachineSpec
from tests.benchmarks import serving_soak
from tests.cloud_run.conftest import KEY, planned, server_entry
from tests.cloud_run.run_platform import TOKEN, Platform, ask
from tests.vm.simulation import golden, seed

JOB = "serve-0123456789abcdef"
HEADERS = {"X_Serverless_Authorization": f"Bearer {TOKEN}", "Authorization": f"Bearer {KEY}"}


def kept_members(url: str) -> list[str]:
    """Members of the archive that the server leaves with its job, once it is complete."""
    folder = f"{url}/storage/v1/b/scratch/o/jobs%2F{JOB}%2Fcompiled%2F"
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{folder}manifest.json?alt=media", timeout=30).read()
            with tarfile.open(fileobj=io.BytesIO(urllib.request.urlopen(f"{folder}cache.tar.gz?alt=media", timeout=30).read())) as archive:
                return archive.getnames()
        time.sleep(0.2)
    return []


@pytest.mark.timeout(900)
def test_two_of_vllm_sleep_wake_answer_by_name_and_finish_their_streams(gateway_entry: list[str], clean_environment: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(seed.files(), tmp_path / "home" / "bucket")
    machine = MachineSpec(role="serve", machine_type="run-l4-8", provisioning_model="RUN", region="us-east4")
    tiny = seed.resolved(machine)
    other = SecondModelSpec(model="another-tiny", served_model_name="another/tiny", max_model_tokens=256)
    serve = tiny.serve.model_copy(update={"model": tiny.base_model.name, "port": 8000, "max_sequences": 2, "ready_timeout_s": 600, "second": other})
    spec = tiny.model_copy(update={"serve": serve})
    with local_bucket.running(tmp_path / "home", spec.buckets) as url:
        stages.publish_base(spec.buckets, another(tmp_path / "another"), other.model)
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
            state = json.loads(urllib.request.urlopen(f"{url}/storage/v1/b/scratch/o/jobs%2F{JOB}%2Fstate.json?alt=media", timeout=30).read())
            assert state["status"] == "ready" and state["phases"].keys() == {"program", "weights", "warm up", "second model", "first completion"}
            assert jobs.models(spec.buckets, JOB, state) == {"elson": serve.model, "another/tiny": "another-tiny"}
            # What vLLM found out about the model's class is kept for the next start, which then needs no process to import it.
            assert any(member.startswith("vllm/modelinfos/") for member in kept_members(url)), instance.said("serve")[-3000:]
            status, _, body = ask(platform.url, "/v1/models", **HEADERS)
            assert status == 200 and [one["id"] for one in json.loads(body)["data"]] == ["elson", "another/tiny"]
            for name, tokens in (("elson", 1024), ("another/tiny", 256)):
                status, _, body = ask(platform.url, body={**chat, "model": name}, **HEADERS)
                assert status == 200 and json.loads(body)["model"] == name
                status, _, body = ask(platform.url, body={**chat, "model": name, "max_tokens": 4000}, **HEADERS)
                assert status == 400 and str(tokens) in body.decode(), "each has its own settings"
            assert ask(platform.url, body={**chat, "model": "no-such"}, **HEADERS)[0] == 404
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

            long = {**chat, "max_tokens": 150, "stream": True, "ignore_eos": True}
            with ThreadPoolExecutor(2) as pool:
                asking = [pool.submit(ask, platform.url, body={**long, "model": name}, **HEADERS) for name in ("elson", "another/tiny")]
                time.sleep(0.5)
                took = instance.stop()
                for one in asking:
                    said = one.result(30)[2]
                    pieces = [json.loads(line[6:]) for line in said.decode().splitlines() if line.startswith("data: {")]
                    assert said.rstrip().endswith(b"data: [DONE]"), said[-500:]
                    assert pieces[-1]["choices"][0]["finish_reason"] == "length"
            assert took < 11 and not instance.killed
        finally:
            platform.close()


def another(folder: Path) -> Path:
    """The seed's tiny model as another one: other files, another digest."""
    shutil.copytree(golden.STATE / "seed" / "base", folder)
    (folder / "README.md").write_text("another")
    return folder
