"""The service's two containers under the platform: started by a request, behind IAM and the key, with streams finished at SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runners.cloud_run.server import DRAIN_S
from runners.planning.cloud_run import GRACE_S
from tests.cloud_run.conftest import KEY, ROOT, planned, stand_in_server
from tests.cloud_run.run_platform import TOKEN, Platform, ask

CALLER = {"X_Serverless_Authorization": f"Bearer {TOKEN}"}
USER = {"Authorization": f"Bearer {KEY}"}
CHAT = {"model": "elson", "messages": [{"role": "user", "content": "What is a bond?"}], "max_tokens": 8}
HEADERS = {**CALLER, **USER}
Start = Callable[..., Platform]


@pytest.fixture
def start(gateway_entry: list[str], clean_environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """``start(keys=…, **environment)``: the service with a quick server in vLLM's place."""
    made: list[Platform] = []

    def begin(plan: Any = None, keys: str = KEY + "\n", server: list[str] | None = None, **environment: str) -> Platform:
        entry = {"gateway": gateway_entry, "serve": server or stand_in_server()}
        made.append(Platform(plan or planned(), tmp_path / f"platform-{len(made)}", entry, keys, {**clean_environment, **environment}))
        return made[-1]

    yield begin
    for platform in made:
        platform.close()


def test_the_first_request_waits_for_the_start_and_gets_its_answer(start: Start) -> None:
    platform = start(QUICK_START_S="2")
    assert not platform.instances, "nothing runs while nobody asks"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(platform.url, body=CHAT, **CALLER, **USER), range(4)))
    assert [status for status, _, _ in answers] == [200] * 4 and json.loads(answers[0][2])["choices"]
    (instance,) = platform.instances
    assert instance.ready_after_s is not None and instance.ready_after_s > 1.5
    assert "a completion came back" in instance.said("serve")


def test_iam_and_the_key_are_two_checks(start: Start) -> None:
    platform = start()
    assert ask(platform.url, body=CHAT)[0] == 401
    assert ask(platform.url, body=CHAT, **USER)[0] == 403, "the key is no identity token, and takes its header"
    assert not platform.instances, "who may not call starts nothing"
    assert ask(platform.url, body=CHAT, **CALLER)[0] == 401, "an operator without the key"
    assert ask(platform.url, body=CHAT, **CALLER, Authorization="Bearer " + "w" * 40)[0] == 401
    assert ask(platform.url, body=CHAT, **CALLER, **USER)[0] == 200
    for path in ("/metrics", "/pause", "/tokenize", "/v1/load_lora_adapter", "/v1/../metrics", "/health/../metrics"):
        assert ask(platform.url, path, body=CHAT, **CALLER, **USER)[0] in (400, 404), path
    assert ask(platform.url, "/health", **CALLER)[0] == 200


def test_opened_on_purpose_it_asks_for_the_key_alone(start: Start) -> None:
    platform = start(planned(serve={"open_to_the_internet": True}))
    assert ask(platform.url, body=CHAT)[0] == 401
    assert ask(platform.url, body=CHAT, **USER)[0] == 200


def test_a_stream_in_flight_is_finished_and_then_the_instance_ends(start: Start) -> None:
    """Though the server's counters cannot be had meanwhile."""
    assert DRAIN_S < GRACE_S
    platform = start(QUICK_STREAM_S="4")
    assert ask(platform.url, body=CHAT, **CALLER, **USER)[0] == 200
    got: list[tuple[int, dict[str, str], bytes]] = []
    asking = threading.Thread(target=lambda: got.append(ask(platform.url, body={**CHAT, "messages": "slow, silent", "stream": True}, **CALLER, **USER)))
    asking.start()
    time.sleep(1)
    took = platform.instances[0].stop()
    asking.join(10)
    status, headers, body = got[0]
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    assert body.endswith(b"data: [DONE]\n\n") and body.count(b"data: ") == 41, "every piece arrived"
    assert 2 < took < GRACE_S and not platform.instances[0].killed
    assert {name: process.returncode for name, process in platform.instances[0].containers.items()} == {"gateway": 0, "serve": 0}
    assert ask(platform.url, body=CHAT, **CALLER, **USER)[0] == 200 and len(platform.instances) == 2, "the next request starts another"


def test_an_idle_instance_ends_at_once_and_a_long_stream_is_cut_in_time(start: Start) -> None:
    idle = start()
    assert ask(idle.url, "/health", **CALLER)[0] == 200
    assert idle.instances[0].stop() < 4
    long = start(QUICK_STREAM_S="30")
    assert ask(long.url, body=CHAT, **CALLER, **USER)[0] == 200
    threading.Thread(target=lambda: ask(long.url, body={**CHAT, "messages": "slow"}, **CALLER, **USER), daemon=True).start()
    time.sleep(1)
    took = long.instances[0].stop()
    assert DRAIN_S - 1 < took <= GRACE_S + 1
    assert long.instances[0].containers["serve"].returncode == 0, "the server ended by itself before it was killed"


def looks_often() -> list[str]:
    """The stand-in's command, whose watcher looks five times a second."""
    faster = "import runners.cloud_run.server as server; server._STEADY_S = 0.2"
    program = f"{faster}; import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return [sys.executable, "-c", program, *stand_in_server()[1:]]


def test_a_server_whose_completions_stop_is_replaced(start: Start) -> None:
    platform = start(server=looks_often())
    assert ask(platform.url, body={**CHAT, "messages": "break"}, **CALLER, **USER)[0] == 200
    end = time.monotonic() + 20
    while platform.instances[0].alive and time.monotonic() < end:
        time.sleep(0.1)
    assert platform.instances[0].containers["serve"].returncode == 1
    assert "completions have stopped coming back" in platform.instances[0].said("serve")
    platform.instances[0].stop()
    assert ask(platform.url, body=CHAT, **CALLER, **USER)[0] == 200 and len(platform.instances) == 2


def test_a_start_that_takes_too_long_or_fails_is_an_error_and_not_a_wait_for_ever(start: Start) -> None:
    slow = start(QUICK_START_S="60", QUICK_READY_TIMEOUT_S="2")
    begin = time.monotonic()
    assert ask(slow.url, body=CHAT, **CALLER, **USER)[0] == 500
    assert time.monotonic() - begin < 20 and "did not become ready" in slow.instances[0].said("serve")


@pytest.mark.parametrize("keys", ["", "\n\n", "short", "k" * 40 + "\nodd$(id)" + "k" * 30, "k" * 40 + '" }\nrespond "open'])
def test_a_bad_secret_starts_no_gateway_and_shows_nothing(start: Start, keys: str) -> None:
    platform = start(keys=keys)
    assert ask(platform.url, body=CHAT, **CALLER, **USER)[0] == 500
    gateway = platform.instances[0]
    assert gateway.containers["gateway"].returncode == 1 and "elson key rotate" in gateway.said("gateway")
    assert not any(word in gateway.said("gateway") for word in keys.split() if len(word) > 5)


def test_two_keys_are_valid_and_none_is_in_a_log_or_an_environment(start: Start) -> None:
    second = "s" * 40
    platform = start(keys=f"{KEY}\n{second}")
    for key in (KEY, second):
        assert ask(platform.url, body=CHAT, **CALLER, Authorization=f"Bearer {key}")[0] == 200
    for name, process in platform.instances[0].containers.items():
        assert KEY not in platform.instances[0].said(name)
        for place in ("cmdline", "environ"):
            assert KEY.encode() not in Path(f"/proc/{process.pid}/{place}").read_bytes()


def test_elson_evaluate_waits_for_the_start(start: Start, tmp_path: Path) -> None:
    platform = start(QUICK_START_S="4")
    platform.no_instance_yet = 2
    values = {**os.environ, "ELSON_API_KEY": KEY, "ELSON_ID_TOKEN": TOKEN, "ELSON_LOG": "json"}
    spec = tmp_path / "spec.yaml"
    spec.write_text("evaluate: {request_timeout_s: 3, max_retries: 0, warmup_requests: 0}\n")
    command = [sys.executable, "-m", "runners", "evaluate", "--api-url", platform.url, "--model", "elson", "--max-cases", "1", "--dataset", "none"]
    command += ["--spec", str(spec), "--out", str(tmp_path / "run"), "--json"]
    done = subprocess.run(command, cwd=ROOT, env=values, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    assert len(platform.instances) == 1 and platform.instances[0].ready_after_s and platform.instances[0].ready_after_s > 3
    assert not json.loads(done.stdout)["failures"].get("error"), "nobody was told of the start"
    assert TOKEN not in "".join(file.read_text() for file in (tmp_path / "run").rglob("*") if file.is_file()) + done.stderr


def test_the_openai_client_waits_for_the_start_and_streams(start: Start) -> None:
    openai = pytest.importorskip("openai")
    platform = start(QUICK_START_S="3", QUICK_STREAM_S="0.5")
    headers = {"X-Serverless-Authorization": f"Bearer {TOKEN}"}
    client = openai.OpenAI(base_url=f"{platform.url}/v1", api_key=KEY, default_headers=headers, max_retries=0)
    answer = client.chat.completions.create(model="elson", messages=[{"role": "user", "content": "What is a bond?"}])
    assert answer.choices[0].message.content == "ready"
    pieces = client.chat.completions.create(model="elson", messages=[{"role": "user", "content": "slow"}], stream=True)
    assert len([piece for piece in pieces if piece.choices]) == 5
    platform.no_instance_yet = 1
    assert client.with_options(max_retries=2).models.list().data, "its own retries get past a 429"


SECOND = {"model": "base-q4", "served_model_name": "second", "max_sequences": 4}


def answered_by(platform: Platform, text: str) -> Any:
    """Which model answers a body; the status where none does."""
    request = urllib.request.Request(f"{platform.url}/v1/chat/completions", text.encode(), {name.replace("_", "-"): value for name, value in HEADERS.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["model"]
    except urllib.error.HTTPError as error:
        return error.code


def test_of_two_models_the_bodys_own_model_decides(start: Start) -> None:
    plan = planned(serve={"second": SECOND})
    assert plan.requests_at_once == 2 * 32 + 2 * 4
    many = {"max_sequences": 300}
    assert planned(serve={**many, "second": {**SECOND, **many}}).requests_at_once == 1000, "the platform takes no more"
    platform = start(plan)
    hidden = json.dumps({"messages": [{"role": "user", "content": '{"model": "second"}'}], "metadata": {"model": "second"}, "model": "elson"})
    for text, who in (
        ('{"model": "elson"}', "elson"),
        ('{"model": "second"}', "second"),
        ('{"messages": [{"content": "x"}],\n "model" : "second"}', "second"),
        (json.dumps({"messages": "x" * 900_000, "tools": [{"a": {"b": [{"c": {}}]}}], "model": "second"}), "second"),
        (hidden, "elson"),
        ("{}", "elson"),
        ('{"model": "third"}', 404),
        ('{"model": "sec\\u006fnd"}', 404),
    ):
        assert answered_by(platform, text) == who, text[:200]
    listed = json.loads(ask(platform.url, "/v1/models", **CALLER, **USER)[2])["data"]
    assert [(one["id"], one["root"]) for one in listed] == [("elson", "production"), ("second", "base-q4")]
    assert ask(platform.url, "/v1/models", **CALLER)[0] == 401 and ask(platform.url, body={"model": "second"}, **CALLER)[0] == 401
    said = platform.instances[0].said("serve")
    assert said.count("a completion came back") == 1, "ready is said once, of both"


def test_two_models_are_ready_together_and_both_finish_their_streams(start: Start) -> None:
    platform = start(planned(serve={"second": SECOND}), QUICK_START_S="1.5", QUICK_STREAM_S="3")
    assert answered_by(platform, '{"model": "elson"}') == "elson"
    instance = platform.instances[0]
    assert instance.ready_after_s is not None and instance.ready_after_s > 3, "the second one starts when the first is up"
    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(ask, platform.url, body={"model": name, "messages": "slow, silent", "stream": True}, **HEADERS) for name in ("elson", "second")]
        time.sleep(1)
        took = instance.stop()
        for stream in streams:
            status, _, body = stream.result(10)
            assert status == 200 and body.endswith(b"data: [DONE]\n\n") and body.count(b"data: ") == 31
    assert took < GRACE_S and not instance.killed


@pytest.mark.parametrize("name", ["elson", "second"])
def test_one_of_two_models_that_dies_ends_the_instance(start: Start, name: str) -> None:
    platform = start(planned(serve={"second": SECOND}), server=looks_often())
    assert answered_by(platform, json.dumps({"model": name})) == name
    server = platform.instances[0].containers["serve"]
    its = subprocess.run(["pgrep", "--session", str(server.pid), "--full", f"quick_server.py vllm [0-9]+ {name}$"], capture_output=True, text=True, check=True)
    os.kill(int(its.stdout.split()[0]), signal.SIGKILL)
    assert server.wait(20) != 0 and f'"{name}"' in platform.instances[0].said("serve").splitlines()[-1]
    left = subprocess.run(["pgrep", "--session", str(server.pid)], capture_output=True, text=True, check=False)
    assert not left.stdout, "nothing of either is left"
    platform.instances[0].stop()
    assert answered_by(platform, json.dumps({"model": name})) == name and len(platform.instances) == 2
