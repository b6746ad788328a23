"""The function that stops everything, over HTTP against a Compute API that behaves like one."""

from __future__ import annotations

import base64
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.infra import services
from tests.infra.executions import QUANTIZE, TRAIN, platform
from tests.infra.regions import page

SOURCE = Path(__file__).resolve().parents[2] / "infra" / "functions" / "stop"


class Compute(ThreadingHTTPServer):
    """Groups of a project, by scope and name; ``broken`` refuse to be resized."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sizes = {("regions/us-central1", "somebody-elses"): 3, ("regions/us-central1", "elson-serve-done"): 0}
        self.sizes |= {("regions/us-central1", "elson-train-0b75369b"): 1, ("zones/us-central1-a", "elson-old"): 1}
        self.broken: dict[str, str] = {}
        #: Groups with an autoscaler: how many more resizes are refused once it is being deleted.
        self.scaled: dict[tuple[str, str], int] = {}
        self.going = 0
        self.calls: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Compute

    def do_GET(self) -> None:
        if self.path.endswith("/token"):
            assert self.headers["Metadata-Flavor"] == "Google"
            return self._answer(200, {"access_token": "a-token", "expires_in": 3600})
        assert self.headers["Authorization"] == "Bearer a-token"
        link = lambda key: {"status": {"autoscaler": "https://www.googleapis.com/compute/v1/projects/p/…"} if key in self.server.scaled else {}}  # noqa: E731 - short
        groups = [(scope, {"name": name, "targetSize": size, **link((scope, name))}) for (scope, name), size in self.server.sizes.items()]
        return self._answer(200, page(groups, parse_qs(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        self.server.calls.append(self.path)
        path, _, query = self.path.partition("?")
        *_, scope_kind, scope, _, name, verb = path.split("/")
        assert (verb, query) == ("resize", "size=0")
        if (f"{scope_kind}/{scope}", name) in self.server.scaled or self.server.going:
            self.server.going = max(0, self.server.going - 1)
            return self._answer(412, {"error": "Resizing of autoscaled regional managed instance groups is not allowed."})
        if (how := self.server.broken.get(name)) == "busy":
            return self._answer(503, {"error": "busy"})
        if how:
            return self._answer(200, {"status": "DONE"}, how)
        self.server.sizes[f"{scope_kind}/{scope}", name] = 0
        return self._answer(200, {"status": "DONE"})

    def do_DELETE(self) -> None:
        self.server.calls.append(self.path)
        *_, scope_kind, scope, kind, name = self.path.split("/")
        key = (f"{scope_kind}/{scope}", name)
        assert kind == "autoscalers" and self.headers["Authorization"] == "Bearer a-token"
        if key not in self.server.scaled:
            return self._answer(404, {})
        self.server.going = self.server.scaled.pop(key)
        return self._answer(200, {"status": "RUNNING"})

    def _answer(self, code: int, value: Any, how: str = "") -> None:
        body = b"<html>" if how == "no JSON" else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) + 100 * (how == "cut off")))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def compute() -> Iterator[Compute]:
    server = Compute()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def function(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("ELSON_COMPUTE_URL", compute.url)
    monkeypatch.setenv("ELSON_METADATA_URL", compute.url)
    monkeypatch.setenv("ELSON_PROJECT", "a-project")
    monkeypatch.setenv("ELSON_STOP_FRACTION", "1.0")
    spec = importlib.util.spec_from_file_location("stop_function", SOURCE / "main.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def message(**notice: Any) -> Any:
    body = {"message": {"data": base64.b64encode(json.dumps(notice).encode()).decode()}, "subscription": "projects/a-project/subscriptions/elson-budget"}
    return SimpleNamespace(get_json=lambda force: body)


def test_a_used_up_budget_stops_every_group_of_ours_and_no_other(function: ModuleType, compute: Compute, capsys: pytest.CaptureFixture[str]) -> None:
    function.stop(message(costAmount=50.01, budgetAmount=50.0, budgetDisplayName="elson"))
    assert compute.sizes["regions/us-central1", "elson-train-0b75369b"] == 0
    assert compute.sizes["zones/us-central1-a", "elson-old"] == 0
    assert compute.sizes["regions/us-central1", "somebody-elses"] == 3
    assert len(compute.calls) == 2  # the one that stands at 0 is not called
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["group"] for line in lines} == {"elson-train-0b75369b", "elson-old"}


@pytest.mark.parametrize("notice", [{"costAmount": 49.99, "budgetAmount": 50.0}, {"costAmount": 0.0, "budgetAmount": 50.0}, {"budgetAmount": 50.0}, {}])
def test_within_the_budget_nothing_happens(notice: dict[str, float], function: ModuleType, compute: Compute) -> None:
    function.stop(message(**notice))
    assert compute.calls == []


@pytest.mark.parametrize("how", ["busy", "cut off", "no JSON"])
def test_a_group_that_refuses_keeps_the_message_and_not_the_others(how: str, function: ModuleType, compute: Compute) -> None:
    compute.broken["elson-train-0b75369b"] = how
    with pytest.raises(RuntimeError, match="elson-train-0b75369b"):
        function.stop(message(costAmount=60.0, budgetAmount=50.0))
    assert compute.sizes["zones/us-central1-a", "elson-old"] == 0
    compute.broken.clear()
    function.stop(message(costAmount=60.0, budgetAmount=50.0))  # Pub/Sub delivers it again
    assert compute.sizes["regions/us-central1", "elson-train-0b75369b"] == 0


def test_an_earlier_stop_can_be_asked_for(function: ModuleType, compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSON_STOP_FRACTION", "0.8")
    function.stop(message(costAmount=40.0, budgetAmount=50.0))
    assert len(compute.calls) == 2


def test_executions_of_cloud_run_are_cancelled_too_and_one_refusal_keeps_no_other(function: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud_run = platform(reports=False)
    for name in (QUANTIZE, "somebody-elses"):
        cloud_run.begin(name)
    ours, second, others = cloud_run.executions
    answers = {"items": {}}

    def call(method: str, url: str, token: str) -> Any:
        if "cancel" in url and TRAIN in url and refused:
            raise OSError("busy")
        return cloud_run.call(method, url, token) if "run.googleapis.com" in url else answers

    refused = True
    monkeypatch.setattr(function, "_call", call)
    monkeypatch.setenv("ELSON_RUN_REGIONS", "europe-west4 us-central1")
    with pytest.raises(RuntimeError, match=TRAIN):
        function.stop(message(costAmount=60.0, budgetAmount=50.0))
    refused = False
    cloud_run.step()
    cloud_run.step()
    assert (ours.outcome, second.outcome) == ("", "cancelled")
    function.stop(message(costAmount=60.0, budgetAmount=50.0))  # Pub/Sub delivers it again
    cloud_run.step()
    cloud_run.step()
    assert (ours.outcome, others.outcome) == ("cancelled", "")


def test_services_that_serve_are_deleted_and_no_other_not_even_the_functions(function: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Cloud Function is a service of Cloud Run: one that deletes by the prefix alone would delete itself and the watchdog."""
    cloud_run = services.platform(asked=lambda _: True, refuses_delete=True)
    monkeypatch.setattr(function, "_call", lambda method, url, token: cloud_run.call(method, url, token) if "run.googleapis.com" in url else {"items": {}})
    monkeypatch.setenv("ELSON_RUN_REGIONS", "us-central1 us-east4")
    cloud_run.step()
    with pytest.raises(RuntimeError, match=services.SERVICE):
        function.stop(message(costAmount=60.0, budgetAmount=50.0))
    cloud_run.refuses_delete = False
    function.stop(message(costAmount=60.0, budgetAmount=50.0))  # Pub/Sub delivers it again
    for _ in range(30):
        cloud_run.step()
    assert not cloud_run.is_there and cloud_run.billed <= 3
    assert {call.rpartition("/")[2] for call in cloud_run.calls if call.startswith("DELETE")} == {services.SERVICE}
    function.stop(message(costAmount=60.0, budgetAmount=50.0))


def test_the_function_needs_nothing_but_its_framework() -> None:
    assert (SOURCE / "requirements.in").read_text().split("==")[0] == "functions-framework"


@pytest.mark.parametrize("function", ["stop", "watchdog"])
def test_every_package_of_a_function_has_its_hashes(function: str) -> None:
    """pip refuses the others once one has a hash, so the platform's build installs what was looked at."""
    folder = Path(__file__).resolve().parents[2] / "infra" / "functions" / function
    text = (folder / "requirements.txt").read_text()
    packages = [line for line in text.splitlines() if "==" in line and not line.startswith("#")]
    assert len(packages) > 5 and all(line.endswith("\\") for line in packages), "a hash follows each"
    assert all(wanted in text for wanted in (folder / "requirements.in").read_text().splitlines())
