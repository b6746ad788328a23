"""``elson status`` and ``elson retry`` over a real bucket."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from click.testing import CliRunner

from runners import stages
from runners.artifacts import layout, storage
from runners.cloud import follow, jobs
from runners.commands import places
from runners.commands.cli import cli
from runners.errors import UserError
from runners.identity import stage_id
from runners.spec import BaseModelSpec, BucketSpec, CodeDigests, DatasetSpec, MachineSpec, Spec
from runners.view import runs
from runners.vm.decide import Boot, Job
from tests.infra.regions import Platform

BOOTS = (
    Boot("aaaaaaaa-1111", "vm-1", "us-central1-a", "2026-03-01T00:00:00+00:00"),
    Boot("bbbbbbbb-2222", "vm-2", "us-central1-b", "2026-03-01T01:00:00+00:00"),
)


def put(buckets: BucketSpec, **changes: Any) -> None:
    job = Job("job-1", "train", attempts=2, first_started_at="2026-03-01T00:00:00+00:00", boots=BOOTS, stage="merge", **changes)
    storage.write_json(f"{layout.job(buckets, 'job-1')}/state.json", {**job.to_json(), "max_attempts": 5}, generation=0)


def test_jobs_are_found_by_their_states(buckets: BucketSpec) -> None:
    assert jobs.names(buckets) == []
    put(buckets, status="running")
    storage.write(f"{layout.job(buckets, 'job-1')}/logs/vm-1-aaaaaaaa.log", "first", generation=0)
    assert jobs.names(buckets) == ["job-1"]
    assert jobs.state(buckets, "job-1")["status"] == "running"
    with pytest.raises(UserError, match="no job job-9"):
        jobs.state(buckets, "job-9")


def test_the_newest_boots_log_is_shown(buckets: BucketSpec) -> None:
    put(buckets, status="running")
    assert jobs.last_log(buckets, "job-1", 5) == []
    for name, text in (("vm-2-bbbbbbbb.log", "new 1\nnew 2\n"), ("vm-1-aaaaaaaa.log", "old\n")):
        storage.write(f"{layout.job(buckets, 'job-1')}/logs/{name}", text, generation=0)
    assert jobs.last_log(buckets, "job-1", 1) == ["new 2"]


@pytest.mark.parametrize("status", ["failed", "deadline"])
def test_a_job_that_is_over_may_begin_again(buckets: BucketSpec, status: str) -> None:
    put(buckets, status=status, reason="no quota")
    again = jobs.retry(buckets, "job-1")
    assert (again["status"], again["attempts"], again["first_started_at"], again["stage"]) == ("queued", 0, None, "")
    assert "no quota" in again["reason"] and Job.from_json(again).boots == BOOTS and again["earlier_s"] == 0


@pytest.mark.parametrize("status", ["running", "done", "ready"])
def test_a_job_that_is_not_over_is_left_alone(buckets: BucketSpec, status: str) -> None:
    put(buckets, status=status)
    with pytest.raises(UserError, match=f"is {status}"):
        jobs.retry(buckets, "job-1")


@pytest.mark.parametrize("status", ["running", "starting", "ready", "preempted", "retrying"])
def test_a_job_whose_vm_went_without_a_word_may_begin_again(buckets: BucketSpec, status: str) -> None:
    put(buckets, status=status, earlier_s=7000.0)
    with pytest.raises(UserError, match=f"is {status}"):
        jobs.retry(buckets, "job-1", lambda _: {"size": 1})
    again = jobs.retry(buckets, "job-1", lambda _: {"size": 0})
    assert (again["status"], again["attempts"], again["earlier_s"]) == ("queued", 0, 0.0)


def test_where_compute_cannot_be_asked_the_state_s_age_decides(buckets: BucketSpec) -> None:
    put(buckets, status="running", updated_at="2026-03-01T00:00:00+00:00")
    assert jobs.retry(buckets, "job-1", lambda _: {"problem": "no rights"})["status"] == "queued"
    with pytest.raises(UserError, match="is queued"):
        jobs.retry(buckets, "job-1", lambda _: {"size": 1})


BAD = [{"attempts": "many"}, {"attempts": 10**400}, {"max_attempts": "x"}, {"retries": "y"}, {"machine": "elson-train"}, {"minutes_left": []}]


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, *(json.dumps({"job_id": "job-1", "role": "train", "status": "failed", **bad}) for bad in BAD)])
def test_a_job_whose_state_cannot_be_read_may_begin_again(buckets: BucketSpec, content: str) -> None:
    storage.write(f"{layout.job(buckets, 'job-1')}/state.json", content, generation=0)
    again = jobs.retry(buckets, "job-1")
    assert (again["status"], again["role"]) == ("queued", "train") and Job.from_json(again).attempts == 0


def test_what_compute_says_is_optional() -> None:
    assert "problem" in jobs.machine({})


@dataclass
class Session:
    """``requests`` in front of the simulated regions."""

    platform: Platform

    def get(self, url: str, params: dict[str, Any] | None = None, timeout: float = 0) -> Any:
        return self._ask("GET", url, params)

    def post(self, url: str, params: dict[str, Any] | None = None, timeout: float = 0) -> Any:
        return self._ask("POST", url, params)

    def _ask(self, method: str, url: str, params: dict[str, Any] | None) -> Any:
        try:
            found = self.platform.call(method, f"{url}?{urlencode(params or {})}", "a-token")
        except urllib.error.HTTPError as error:
            return SimpleNamespace(status_code=error.code, text=str(error.reason))
        return SimpleNamespace(status_code=200, json=lambda: found, text="")


AT_SECOND = {"project": "p", "region": "us-east4", "group": "elson-train-0b75369b-2"}
#: What the VM of a job's second place writes, and the spec that it was made with.
SPEC = Spec(
    base_model=BaseModelSpec(id="base-1"),
    dataset=DatasetSpec(id="data-1"),
    code=CodeDigests(train="a", merge="b", quantize="c"),
    machine=MachineSpec(machine_type="a3-highgpu-1g", region="us-east4"),
)
JOB = stage_id(SPEC, "quantize")
OTHER = SPEC.model_copy(update={"train": SPEC.train.model_copy(update={"seed": 9})})


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> Platform:
    platform = Platform([("us-central1", 15), ("us-east4", 15)], lambda _place, _minute: "ZONE_RESOURCE_POOL_EXHAUSTED")
    monkeypatch.setattr(jobs, "_session", lambda: Session(platform))
    return platform


def test_a_job_is_found_in_whichever_place_it_is(regions: Platform) -> None:
    regions.step()
    found = jobs.machine(AT_SECOND)
    assert (found["group"], found["size"]) == ("elson-train-0b75369b", 1), "the state's group is the last that had a VM, another is asked now"
    assert "ZONE_RESOURCE_POOL_EXHAUSTED" in found["instances"][0]["problem"]
    assert [(one["region"], one["size"]) for one in found["places"]] == [("us-central1", 1), ("us-east4", 0)]
    del regions.groups["elson-train-0b75369b-2"], regions.groups["elson-train-0b75369b"]
    assert jobs.machine(AT_SECOND)["note"] == "the group is gone"
    regions.groups["elson-train-0b75369b0"] = Platform([("us-east4", 15)], regions.capacity).groups["elson-train-0b75369b"]
    regions.groups["elson-train-0b75369b0"].name = "elson-train-0b75369b0"
    assert jobs.machine(AT_SECOND)["size"] == 0, "another job's group has a name that begins alike"


def test_a_job_that_is_waiting_or_working_in_another_place_is_not_begun_again(buckets: BucketSpec, regions: Platform) -> None:
    put(buckets, status="running")
    with pytest.raises(UserError, match="is running"):
        jobs.retry(buckets, "job-1", lambda _: jobs.machine(AT_SECOND))
    regions.groups["elson-train-0b75369b"].size = 0
    assert jobs.retry(buckets, "job-1", lambda _: jobs.machine(AT_SECOND))["status"] == "queued"


def test_a_job_begins_again_in_its_first_place_and_never_in_two(regions: Platform) -> None:
    assert jobs.start(AT_SECOND) == "" and [group.size for group in regions.groups.values()] == [1, 0], "the first is asked already"
    regions.groups["elson-train-0b75369b"].size = 0
    assert jobs.start(AT_SECOND) == "" and [group.size for group in regions.groups.values()] == [1, 0]
    regions.groups["elson-train-0b75369b"].size = 0
    regions.refuses_resize.add("elson-train-0b75369b")
    assert "503" in jobs.start(AT_SECOND)
    regions.groups.clear()
    assert "is gone" in jobs.start(AT_SECOND)
    assert "says where it is" in jobs.start({}) and "cannot be asked" in jobs.start({"project": "p"})


class Scratch(MutableMapping[str, str]):
    """Objects of the scratch bucket as the simulated regions keep theirs."""

    def __init__(self, buckets: BucketSpec) -> None:
        self.uri = buckets.scratch

    def __getitem__(self, name: str) -> str:
        if not (found := storage.read(f"{self.uri}/{name}")):
            raise KeyError(name)
        return found[0].decode()

    def __setitem__(self, name: str, text: str) -> None:
        storage.client().bucket(storage.split(self.uri)[0]).blob(name).upload_from_string(text)

    def __delitem__(self, name: str) -> None:
        storage.delete_object(f"{self.uri}/{name}")

    def __iter__(self) -> Iterator[str]:
        return (stored.path for stored in storage.listing(self.uri))

    def __len__(self) -> int:
        return sum(1 for _ in self)


STOPPED = "qdora-0b75369b00000000"


@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("how", ["retry", "up"])
def test_who_starts_a_stopped_job_again_at_once_begins_with_nothing_behind_it(
    how: str, places: int, buckets: BucketSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real watchdog: it stops what lived too long, and a person does not wait for its next look."""
    names = [("us-central1", 15), ("us-east4", 15), ("us-east5", 15)][:places]
    run = Platform(names, lambda _place, _minute: "", needs_minutes=1000, objects=Scratch(buckets))
    monkeypatch.setattr(jobs, "_session", lambda: Session(run))
    while not run.said:
        run.play(5, monkeypatch)
    assert "lived" in run.said[0]["reason"] and run.billed <= 160 and [group.size for group in run.groups.values()] == [0] * places
    run.play(1, monkeypatch)
    where = {"project": "p", "region": "us-central1", "group": "elson-train-0b75369b"}
    if how == "retry":
        storage.write_json(f"{layout.job(buckets, STOPPED)}/state.json", Job(STOPPED, "train", status="running").to_json(), generation=0)
        jobs.retry(buckets, STOPPED, lambda _: jobs.machine(where))
        assert jobs.start(where) == ""
    else:
        assert jobs.begin(buckets, STOPPED, where) == ""
    run.play(120, monkeypatch)
    assert len(run.said) == 1 and run.made == 2 and len(run.alive) == 1
    run.play(60, monkeypatch)
    assert len(run.said) == 2 and not run.alive, "the same bounds hold again"


def test_a_job_that_nobody_stopped_keeps_what_the_watchdog_knows_of_it(buckets: BucketSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """`elson up` of a job that works follows it: its bounds do not begin again."""
    run = Platform([("us-central1", 15)], lambda _place, _minute: "", needs_minutes=1000, objects=Scratch(buckets))
    monkeypatch.setattr(jobs, "_session", lambda: Session(run))
    while not run.said:
        run.play(5, monkeypatch)
        if not run.said:
            assert jobs.begin(buckets, STOPPED, {"project": "p", "region": "us-central1", "group": "elson-train-0b75369b"}) == ""
    assert run.billed <= 160


def test_a_region_that_does_not_answer_is_no_empty_group(buckets: BucketSpec, regions: Platform) -> None:
    regions.is_away = lambda region, _minute: region == "us-east4"
    assert "us-east4 does not answer" in jobs.machine(AT_SECOND)["problem"]
    assert "us-east4 does not answer" in jobs.start(AT_SECOND)


def told(buckets: BucketSpec, spec: Spec = SPEC, **changes: Any) -> dict[str, Any]:
    """The state of a job, as its VM wrote it, with a lie in it."""
    spec_uri = stages.save_spec(spec.model_copy(update={"buckets": buckets}))
    group = {"project": "p", "region": "us-east4", "group": f"elson-train-{JOB[6:14]}-2"}
    machine = group | {key: value for key, value in changes.items() if key in group}
    rest = {key: value for key, value in changes.items() if key not in group}
    return {**Job(JOB, "train", status="failed").to_json(), "machine": machine, "spec_uri": spec_uri, **rest}


def test_a_job_s_machine_is_the_one_that_its_own_id_project_and_spec_give(buckets: BucketSpec) -> None:
    assert jobs.where(buckets, JOB, told(buckets), "p") == {"project": "p", "region": "us-east4", "group": f"elson-train-{JOB[6:14]}-2"}
    assert jobs.where(buckets, JOB, told(buckets, machine={}), "p") == {}, "no VM has said where it is"
    assert jobs.where(buckets, JOB, told(buckets), "") == {}, "whose project it is must be known from here"
    with pytest.raises(UserError, match="no spec"):
        jobs.where(buckets, JOB, told(buckets, spec_uri=layout.spec(buckets, "0" * 16)), "p")


@pytest.mark.parametrize(
    "lie",
    [
        {"group": "elson-serve-0123abcd"},
        {"group": "elson-train-0123abcd"},
        {"group": f"elson-train-{JOB[6:14]}-2/resize?size=1#"},
        {"group": f"../instanceGroupManagers/elson-train-{JOB[6:14]}"},
        {"group": f"elson-train-{JOB[6:14]}-99"},
        {"group": f"elson-train-{JOB[6:14]}-2\n"},
        {"group": ""},
        {"group": ["elson-train"]},
        {"group": None},
        {"project": "another-project"},
        {"project": "p/../another-project"},
        {"project": "p?alt=media&"},
        {"project": "p@evil.example.org"},
        {"project": {}},
        {"region": "us-central1"},
        {"region": "us-east4/../us-central1"},
        {"region": "https://evil.example.org/us-east4"},
        {"region": None},
        {"role": "serve"},
        {"job_id": "qdora-0123456789abcdef"},
        {"spec": OTHER},
        {"spec": SPEC.model_copy(update={"machine": MachineSpec(role="serve", machine_type="g2-standard-4", region="us-east4")})},
        {"spec_uri": "gs://another-bucket/specs/0123456789abcdef.json"},
        {"spec_uri": "gs://scratch/jobs/qdora-1/specs/0123456789abcdef.json"},
        {"spec_uri": "/etc/hostname"},
        {"spec_uri": 3},
    ],
    ids=lambda lie: " ".join(f"{key}={str(value)[:40]!r}" for key, value in lie.items()),
)
def test_a_state_that_names_another_machine_than_its_job_s_is_not_followed(lie: dict[str, Any], buckets: BucketSpec, regions: Platform) -> None:
    """A thief of the training VM writes the state; the rights are those of the user who reads it."""
    uri = f"{layout.job(buckets, JOB)}/state.json"
    storage.write_json(uri, told(buckets, **lie), generation=0)
    before = storage.read(uri)
    for run in (jobs.where, lambda *given: jobs.retry(*given[:2], project=given[3])):
        with pytest.raises(UserError, match="names another") as raised:
            run(buckets, JOB, (storage.read_json(uri) or ({},))[0], "p")
        assert uri in raised.value.found + raised.value.fix and "\n" not in raised.value.found
    assert storage.read(uri) == before and not regions.calls


def test_retry_follows_no_lie_to_another_group(buckets: BucketSpec, regions: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command: a job's own group gets its VM, and another job's group keeps its size whatever the state says."""
    other, own = "elson-serve-0123abcd", f"elson-train-{JOB[6:14]}-2"
    at_first, at_second = regions.groups.values()
    regions.groups = {other: at_first, own: at_second}
    at_first.name, at_second.name, at_first.size = other, own, 0
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    monkeypatch.setattr(places, "must_belong", lambda *_: None)
    asked = ["retry", JOB, "--models-bucket", buckets.models, "--scratch-bucket", buckets.scratch]
    uri = f"{layout.job(buckets, JOB)}/state.json"
    storage.write_json(uri, told(buckets, group=other, region="us-central1"), generation=0)
    with pytest.raises(UserError, match="names another group"):
        CliRunner().invoke(cli, asked, catch_exceptions=False, standalone_mode=False)
    assert (at_first.size, at_second.size) == (0, 0)
    shown = CliRunner().invoke(cli, ["status", *asked[1:]], catch_exceptions=False, standalone_mode=False).output
    assert "not asked" in shown and "names another group" in shown and not regions.calls
    storage.update_json(uri, lambda _: told(buckets))
    assert "its group gets a VM" in CliRunner().invoke(cli, asked, catch_exceptions=False, standalone_mode=False).output
    assert (at_first.size, at_second.size) == (0, 1)


def test_what_a_vm_writes_is_shown_without_its_control_characters(buckets: BucketSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape sequences would clear the terminal, set its title, or write lines that nobody printed."""
    evil = "\x1b[2J\x1b]0;title\x07\x9b31m\rsize 0\nstatus    done\u202e"
    uri = f"{layout.job(buckets, JOB)}/state.json"
    boots = [{"id": "aaaaaaaa", "instance": f"vm{evil}", "zone": evil, "started_at": evil}]
    state = told(buckets, machine={}, reason=evil, updated_at=evil, boots=boots, progress={"message": evil, "unit": evil, "done": 1, "total": 2, evil: evil})
    storage.write_json(uri, state, generation=0)
    storage.write(f"{layout.job(buckets, JOB)}/logs/vm-1-aaaaaaaa.log", f"ends well\n{evil}\tx é 日\n", generation=0)
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    asked = ["--models-bucket", buckets.models, "--scratch-bucket", buckets.scratch]
    for arguments in ([], [JOB, "--log", "9"]):
        shown = CliRunner().invoke(cli, ["status", *arguments, *asked], catch_exceptions=False, standalone_mode=False).output
        assert JOB in shown and not [mark for mark in "\x1b\x07\x9b\r\u202e" if mark in shown]
        assert not [line for line in shown.splitlines() if line.startswith("status    done") and "--log" not in arguments]
    assert "ends well" in shown and "\tx é 日" in shown
    said: list[str] = []
    seen = follow._Seen(said.append)
    seen.state(state)
    seen.log([evil])
    assert said and not [mark for mark in "\x1b\x07\x9b\r\u202e\n" if mark in "".join(said)]


def test_one_bad_state_hides_no_other_job(buckets: BucketSpec) -> None:
    put(buckets, status="running")
    for number, content in enumerate(("[" * 100_000, "[]", json.dumps({"job_id": "job-1", "role": "train", "status": "done", "attempts": 1}))):
        storage.write(f"{layout.job(buckets, f'bad-{number}')}/state.json", content, generation=0)
    asked = ["status", "--models-bucket", buckets.models, "--scratch-bucket", buckets.scratch]
    shown = CliRunner().invoke(cli, asked, catch_exceptions=False, standalone_mode=False).output
    assert [line.split()[0] for line in shown.splitlines()] == ["bad-0", "bad-1", "bad-2", "job-1"]
    assert [job["job_id"] for job in runs.load(buckets, "here").jobs] == ["job-1"]
