"""The watchdog function: its judgement by cases and properties, and its calls against a Compute and a Storage API that behave like them."""

from __future__ import annotations

import contextlib
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.infra.regions import page, watchdog

START = datetime(2026, 3, 1, tzinfo=UTC)
BOUNDS = (150, 7)


main = watchdog()


def looks(vms_at: Any, until: int, state_at: Any = lambda minute: {"updated": stamp(minute), "status": "running"}, every: int = 5) -> tuple[int, str]:
    """(minute, reason) of the first look that stops; (-1, "") when none does."""
    memory: dict[str, Any] = {}
    for minute in range(0, until, every):
        memory, reason = main.judge(memory, vms_at(minute), BOUNDS, state_at(minute), START + timedelta(minutes=minute))
        memory = json.loads(json.dumps(memory))
        if reason:
            return minute, reason
    return -1, ""


def stamp(minute: float) -> str:
    return (START + timedelta(minutes=minute)).isoformat()


def test_a_job_that_reports_within_its_bounds_is_left_alone() -> None:
    assert looks(lambda _: ["1"], 150) == (-1, "")


def test_waiting_for_capacity_is_left_alone_however_long() -> None:
    assert looks(lambda _: [], 100_000, lambda _: {}) == (-1, "")


def test_a_vm_that_says_nothing_is_stopped() -> None:
    assert looks(lambda _: ["1"], 500, lambda _: {}) == (25, "its job has not reported for 25 minutes")
    minute, reason = looks(lambda _: ["1"], 500, lambda minute: {"updated": stamp(min(minute, 40)), "status": "running"})
    assert (minute, "not reported" in reason) == (65, True)


def test_a_new_vm_of_an_old_job_has_its_time_to_report() -> None:
    assert looks(lambda minute: [] if minute < 600 else ["2"], 620, lambda _: {"updated": stamp(-30), "status": "running"}) == (-1, "")


def test_vms_together_live_no_longer_than_the_job_may() -> None:
    minute, reason = looks(lambda minute: [str(minute // 60)], 500)
    assert 150 < minute <= 150 + 5 + 5 * 3 and "lived" in reason, "a change of VMs between two looks is not counted"


def test_too_many_vms_are_stopped() -> None:
    minute, reason = looks(lambda minute: [str(minute // 5)], 500)
    assert (minute, reason) == (35, "it made 8 VMs, 7 are allowed")


@pytest.mark.parametrize("status", ["done", "failed", "deadline"])
def test_a_vm_whose_job_is_over_is_stopped_also_when_it_is_a_new_one_each_time(status: str) -> None:
    minute, reason = looks(lambda minute: [str(minute // 5)], 500, lambda _: {"updated": stamp(0), "status": status})
    assert (minute, status in reason) == (20, True)


def test_an_idle_server_that_was_asked_for_again_is_not_over() -> None:
    assert looks(lambda _: ["9"], 15, lambda _: {"updated": stamp(-10_000), "status": "idle"}) == (-1, "")
    assert looks(lambda _: ["9"], 60, lambda _: {"updated": stamp(-10_000), "status": "idle"})[0] == 20


def test_storage_in_trouble_stops_nobody_but_the_bounds_hold() -> None:
    assert looks(lambda _: ["1"], 150, lambda _: None) == (-1, "")
    assert looks(lambda _: ["1"], 500, lambda _: None)[0] == 155


@given(st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=1, unique=True), min_size=60, max_size=80))
def test_whatever_vms_come_and_go_no_group_has_them_for_longer_than_its_bound(history: list[list[str]]) -> None:
    """Over five hours, by looks of five minutes: at most 150 minutes of one VM after the other, and at most seven of them."""
    billed, minute = 0, looks(lambda minute: history[minute // 5], 5 * len(history))[0]
    seen: set[str] = set()
    for number, vms in enumerate(history):
        if 0 <= minute <= 5 * number:
            break
        billed += 5 * len(vms) if number and set(vms) & set(history[number - 1]) else 0
        seen |= set(vms)
    assert billed <= 155 and len(seen) <= 8


class Cloud(ThreadingHTTPServer):
    """Groups, their VMs and templates, and objects."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sizes = {"elson-train-0b75369b": 1, "elson-serve-2": 0, "somebody-elses": 1}
        self.vms = {"elson-train-0b75369b": ["11"]}
        self.objects: dict[str, tuple[str, str]] = {}
        self.broken: set[str] = set()
        self.bakes: list[tuple[str, dict[str, Any]]] = []
        self.ids = {"elson-train-0b75369b": "77"}
        self.sent, self.cut = 0, ""
        #: Groups with an autoscaler: how many more resizes are refused once it is being deleted.
        self.scaled: dict[str, int] = {}
        self.going = 0
        #: Called once, right after an object's content was read: what a person does in the middle of a look.
        self.after_read: dict[str, Callable[[], None]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def generation(self, name: str) -> str:
        """Another one for each content and time."""
        return str(zlib.crc32(repr(self.objects[name]).encode()) or 1) if name in self.objects else "0"

    def write(self, name: str, content: str) -> None:
        self.objects[name] = (content, datetime.now(UTC).isoformat())


class Handler(BaseHTTPRequestHandler):
    server: Cloud

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        url = urlsplit(self.path)
        query, parts = parse_qs(url.query), [unquote(part) for part in url.path.split("/") if part]
        cloud = self.server
        if any(word in self.path for word in cloud.broken):
            return self._answer(503, {"error": "busy"})
        if parts[-1] == "token":
            return self._answer(200, {"access_token": "a-token"})
        assert self.headers["Authorization"] == "Bearer a-token"
        if parts[-1] == "instanceGroupManagers":
            template = "https://www.googleapis.com/compute/v1/projects/p/regions/r/instanceTemplates/t"
            of = lambda name: {"name": name, "id": cloud.ids.get(name, "1"), "targetSize": cloud.sizes[name], "versions": [{"instanceTemplate": template}]}  # noqa: E731 - short, and of this test alone
            status = lambda name: {"status": {"autoscaler": f"https://www.googleapis.com/compute/v1/projects/p/regions/r/autoscalers/{name}"}}  # noqa: E731 - as above
            return self._answer(200, page([("regions/r", of(name) | (status(name) if name in cloud.scaled else {})) for name in cloud.sizes], query))
        if parts[-2:] == ["aggregated", "instances"]:
            assert query["filter"] == ["labels.elson-bake=true"]
            found = [(zone, vm) for zone, vm in cloud.bakes if vm["labels"].get("elson-bake") == "true"]
            begin = int(query.get("pageToken", ["0"])[0])
            listed: dict[str, Any] = {f"zones/{zone}": {"instances": [vm]} for zone, vm in found[begin : begin + 1]}
            more = {"nextPageToken": str(begin + 1)} if begin + 1 < len(found) else {}
            return self._answer(200, {"items": {"zones/z9": {"warning": {}}} | listed} | more)
        if self.command == "DELETE" and parts[-2] == "instances":
            cloud.bakes = [(zone, vm) for zone, vm in cloud.bakes if (zone, vm["name"]) != (parts[-3], parts[-1])]
            return self._answer(200, {})
        if parts[-1] == "listManagedInstances":
            found = [{"id": vm, "instanceStatus": "RUNNING"} for vm in cloud.vms.get(parts[-2], [])]
            return self._answer(200, {"managedInstances": [*found, {"currentAction": "CREATING"}]})
        if parts[-2] == "instanceTemplates":
            values = {"elson-job-id": "job-1", "elson-max-minutes": "60", "elson-max-vms": "3"}
            return self._answer(200, {"properties": {"metadata": {"items": [{"key": key, "value": value} for key, value in values.items()]}}})
        if self.command == "DELETE" and parts[-2] == "autoscalers":
            if parts[-1] not in cloud.scaled:
                return self._answer(404, {})
            cloud.going = cloud.scaled.pop(parts[-1])  # an operation that takes its time
            return self._answer(200, {"status": "RUNNING"})
        if parts[-1] == "resize" and (parts[-2] in cloud.scaled or cloud.going):
            cloud.going = max(0, cloud.going - 1)
            return self._answer(412, {"error": "Resizing of autoscaled regional managed instance groups is not allowed."})
        if parts[-1] == "resize":
            cloud.sizes[parts[-2]] = int(query["size"][0])
            return self._answer(200, {})
        name = query["name"][0] if self.command == "POST" else parts[-1]
        expected, generation = query.get("ifGenerationMatch", query.get("generation")), cloud.generation(name)
        if name not in cloud.objects and self.command != "POST":
            return self._answer(404, {})
        if expected and expected[0] != generation:
            return self._answer(404 if "generation" in query else 412, {})
        if self.command == "POST":
            cloud.write(name, body)
            return self._answer(200, {"generation": cloud.generation(name)})
        if self.command == "DELETE":
            del cloud.objects[name]
            return self._answer(204, None)
        content, updated = cloud.objects[name]
        answered = content if query.get("alt") else {"updated": updated, "size": str(len(content)), "generation": generation}
        if name in cloud.after_read and query.get("alt"):
            cloud.after_read.pop(name)()
        return self._answer(200, answered)

    do_GET = do_POST = do_DELETE = _handle

    def _answer(self, code: int, value: Any) -> None:
        body = b"" if value is None else value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.server.sent += len(body)
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) + (100 if self.server.cut and self.server.cut in self.path else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    server = Cloud()
    for name in ("COMPUTE", "STORAGE", "METADATA"):
        monkeypatch.setattr(main.apis, name, server.url)
    monkeypatch.setenv("ELSON_PROJECT", "p")
    monkeypatch.setenv("ELSON_SCRATCH", "scratch")
    yield server
    server.shutdown()
    server.server_close()


def aged(cloud: Cloud, minutes: float) -> None:
    """Let the watchdog's memory be older."""
    memory = json.loads(cloud.objects["watchdog/elson-train-0b75369b.json"][0])
    older = lambda text: (datetime.fromisoformat(text) - timedelta(minutes=minutes)).isoformat()  # noqa: E731 - short, and of this test alone
    memory |= {"at": older(memory["at"]), "vms": {vm: older(when) for vm, when in memory["vms"].items()}}
    cloud.objects["watchdog/elson-train-0b75369b.json"] = (json.dumps(memory), "")


def test_it_remembers_between_looks_and_stops_what_does_not_report(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.watch(None) == "ok"
    assert cloud.sizes["elson-train-0b75369b"] == 1 and list(cloud.objects) == ["watchdog/elson-train-0b75369b.json"]
    aged(cloud, 21)
    main.watch(None)
    assert (cloud.sizes["elson-train-0b75369b"], cloud.sizes["somebody-elses"]) == (0, 1)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["severity"], told["group"]) == ("ERROR", "elson-train-0b75369b") and "not reported" in told["reason"]
    cloud.vms = {}
    main.watch(None)
    assert cloud.objects == {}, "whoever starts it again begins with nothing behind it"


def test_a_job_that_reports_lives_until_its_templates_bound(cloud: Cloud) -> None:
    for _ in range(5):
        cloud.objects["jobs/job-1/state.json"] = ('{"status": "running"}', datetime.now(UTC).isoformat())
        main.watch(None)
        aged(cloud, 14)
    assert cloud.sizes["elson-train-0b75369b"] == 1, "56 of 60 minutes"
    main.watch(None)
    assert cloud.sizes["elson-train-0b75369b"] == 0


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{not JSON",
        "[]",
        "[" * 100_000,
        '{"status":' * 100_000,
        "9" * 5000,
        "\x00",
        '{"status": ["x"], "groups": {"elson-train-0b75369b": "77"}, "vms": 5, "minutes": "a", "at": 7}',
        "null",
    ],
)
def test_a_state_or_a_memory_that_cannot_be_read_stops_no_look(content: str, cloud: Cloud) -> None:
    cloud.objects["jobs/job-1/state.json"] = (content, datetime.now(UTC).isoformat())
    cloud.objects["watchdog/elson-train-0b75369b.json"] = (content, "")
    cloud.sizes["elson-other"] = 1
    assert main.watch(None) == "ok"
    assert cloud.sizes["elson-train-0b75369b"] == 1 and "watchdog/elson-other.json" in cloud.objects


def test_a_state_larger_than_the_functions_memory_is_not_fetched(cloud: Cloud) -> None:
    """A thief of the training VM writes it; the bounds of every other group hold on the watchdog's looks."""
    cloud.objects["jobs/job-1/state.json"] = ('{"status": "done"' + " " * (2 << 20) + "}", datetime.now(UTC).isoformat())
    main.watch(None)
    aged(cloud, 18)
    assert main.watch(None) == "ok" and cloud.sizes["elson-train-0b75369b"] == 1
    assert cloud.sent < 1 << 20


@pytest.mark.parametrize("cut", ["state.json", "watchdog%2Felson-train-0b75369b", "elson-train-0b75369b/listManaged"])
def test_an_answer_that_is_cut_off_is_one_groups_trouble(cut: str, cloud: Cloud) -> None:
    cloud.objects["jobs/job-1/state.json"] = ('{"status": "running"}', datetime.now(UTC).isoformat())
    main.watch(None)
    cloud.sizes["elson-other"], cloud.cut = 1, cut
    with contextlib.suppress(RuntimeError):  # the call is an error in the logs
        main.watch(None)
    assert "watchdog/elson-other.json" in cloud.objects and cloud.sizes["elson-train-0b75369b"] == 1


def test_a_group_made_again_under_its_name_is_another(cloud: Cloud) -> None:
    main.watch(None)
    aged(cloud, 10_000)
    cloud.ids["elson-train-0b75369b"], cloud.vms["elson-train-0b75369b"] = "78", ["12"]
    main.watch(None)
    assert cloud.sizes["elson-train-0b75369b"] == 1


@pytest.mark.parametrize("broken", ["instanceTemplates", "state.json"])
def test_it_works_with_defaults_where_a_service_is_in_trouble(broken: str, cloud: Cloud) -> None:
    cloud.broken.add(broken)
    main.watch(None)
    aged(cloud, 200)
    main.watch(None)
    assert cloud.sizes["elson-train-0b75369b"] == 0


def test_a_group_on_the_last_of_many_pages_is_looked_at(cloud: Cloud) -> None:
    cloud.sizes = {**{f"elson-serve-{number}": 0 for number in range(600)}, **cloud.sizes}
    main.watch(None)
    assert list(cloud.objects) == ["watchdog/elson-train-0b75369b.json"]


def test_a_group_that_refuses_is_an_error_and_the_others_are_looked_at(cloud: Cloud) -> None:
    cloud.sizes["elson-other"] = 1
    cloud.vms["elson-other"] = ["5"]
    main.watch(None)
    aged(cloud, 30)
    cloud.broken.add("elson-train-0b75369b/resize")
    with pytest.raises(RuntimeError, match="elson-train-0b75369b"):
        main.watch(None)
    assert "watchdog/elson-other.json" in cloud.objects
    cloud.broken.clear()
    main.watch(None)
    assert cloud.sizes["elson-train-0b75369b"] == 0


MEMORY = "watchdog/elson-train-0b75369b.json"


def again(cloud: Cloud, vm: str) -> None:
    """What `elson retry` does: the memory goes, the group gets a VM."""
    cloud.objects.pop(MEMORY, None)
    cloud.sizes["elson-train-0b75369b"], cloud.vms["elson-train-0b75369b"] = 1, [vm]


@pytest.mark.parametrize("minutes", [1, 30])
def test_a_look_that_began_before_a_retry_neither_stops_the_job_nor_brings_its_memory_back(minutes: int, cloud: Cloud) -> None:
    main.watch(None)
    aged(cloud, minutes)
    cloud.after_read[MEMORY] = lambda: again(cloud, "12")
    assert main.watch(None) == "ok"
    assert cloud.sizes["elson-train-0b75369b"] == 1 and MEMORY not in cloud.objects
    main.watch(None)
    assert list(json.loads(cloud.objects[MEMORY][0])["vms"]) == ["12"] and json.loads(cloud.objects[MEMORY][0])["minutes"] == 0


def test_pulumi_up_right_after_a_stop_begins_with_nothing_behind_it(cloud: Cloud) -> None:
    """It knows nothing of the memory, and may come before a look that sees the group empty."""
    main.watch(None)
    aged(cloud, 200)
    main.watch(None)
    assert cloud.sizes["elson-train-0b75369b"] == 0
    cloud.sizes["elson-train-0b75369b"], cloud.vms["elson-train-0b75369b"] = 1, ["12"]
    main.watch(None)
    assert cloud.sizes["elson-train-0b75369b"] == 1 and list(json.loads(cloud.objects[MEMORY][0])["vms"]) == ["12"]


def test_a_stop_that_was_refused_is_no_new_start(cloud: Cloud) -> None:
    main.watch(None)
    aged(cloud, 200)
    cloud.broken.add("resize")
    with pytest.raises(RuntimeError):
        main.watch(None)
    cloud.broken.clear()
    main.watch(None)
    assert cloud.sizes["elson-train-0b75369b"] == 0


def test_storage_that_takes_no_memory_keeps_no_vm_alive(cloud: Cloud) -> None:
    main.watch(None)
    aged(cloud, 200)
    cloud.broken.add("upload")
    with pytest.raises(RuntimeError):
        main.watch(None)
    assert cloud.sizes["elson-train-0b75369b"] == 0


def test_the_vm_of_a_bake_that_nobody_ended_is_deleted_and_no_other(cloud: Cloud) -> None:
    """Stopped, it has no end of the platform's any more, and its disk is billed by the month."""

    def vm(name: str, minutes: int, **labels: str) -> dict[str, Any]:
        made = (datetime.now(UTC) - timedelta(minutes=minutes)).astimezone().isoformat()
        return {"name": name, "creationTimestamp": made, "labels": labels, "status": "TERMINATED"}

    bake = {"elson-bake": "true"}
    cloud.bakes = [
        ("z1", vm("elson-train-1", 100, **bake)),
        ("z1", vm("elson-train-2", 80, **bake)),
        ("z2", vm("elson-train-1", 5000, **bake)),
        ("z2", vm("mine", 5000)),
    ]
    assert main.watch(None) == "ok"
    assert [(zone, one["name"]) for zone, one in cloud.bakes] == [("z1", "elson-train-2"), ("z2", "mine")]
    cloud.bakes.insert(0, ("z1", vm("elson-train-4", 100, **bake)))
    cloud.broken.add("elson-train-4")
    with pytest.raises(RuntimeError, match="elson-train-4"):
        main.watch(None)
    assert "watchdog/elson-train-0b75369b.json" in cloud.objects, "groups are looked at all the same"
