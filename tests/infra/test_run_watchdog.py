"""The watchdog over trainings on Cloud Run: the real function, executions in simulated time. What the platform bounds alone is played as well."""

from __future__ import annotations

from typing import Any

import pytest
from discovery import schemas

from tests.infra.executions import QUANTIZE, TRAIN, RunPlatform, platform


def play(monkeypatch: pytest.MonkeyPatch, minutes: int = 1500, watched: str = "europe-west4 us-central1", **changes: Any) -> RunPlatform:
    monkeypatch.setenv("ELSON_RUN_REGIONS", watched)
    made = platform(**changes)
    made.play(minutes, monkeypatch)
    return made


def cancelled(played: RunPlatform) -> list[str]:
    return [row["reason"] for row in played.said if "cancelled" in row["message"]]


def test_a_training_that_reports_runs_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch)
    assert (played.status, played.billed, cancelled(played)) == ("done", 40, []) and not [row for row in played.said if row["severity"] == "ERROR"]
    assert [one.outcome for one in played.executions] == ["succeeded", "succeeded"]


def test_the_platform_alone_ends_a_hung_training_after_five_hours_and_its_two_jobs_after_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bound is hard and too far: time-out times tries, for each of the two jobs."""
    assert play(monkeypatch, watched="", reports=False).billed == 300
    both = platform(reports=False)
    both.begin(QUANTIZE)
    monkeypatch.setenv("ELSON_RUN_REGIONS", "")
    assert both.play(1500, monkeypatch).billed == 600


def test_a_training_that_says_nothing_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, reports=False)
    assert played.executions[0].outcome == "cancelled" and played.billed <= 30, played.billed
    assert cancelled(played)[0].startswith("its job has not reported for 2")


def test_a_training_that_reports_for_ever_is_cancelled_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that is written is no work: minutes are the watchdog's own, over all tries."""
    played = play(monkeypatch, needs_minutes=10_000, trains_minutes=10_000)
    assert 180 <= played.billed <= 195 and "180 are allowed" in cancelled(played)[0]
    assert played.executions[0].outcome == "cancelled" and played.executions[0].tries > 1


def test_waiting_for_a_card_is_free_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first = play(monkeypatch, capacity=lambda _place, minute: "" if minute > 300 else "no card")
    assert (first.status, first.billed, cancelled(first)) == ("done", 40, [])
    later = play(monkeypatch, waits_between_tries=100, timeout_minutes=15, needs_minutes=40, trains_minutes=20)
    assert later.status == "done" and not cancelled(later)


def test_a_try_after_a_long_wait_has_its_time_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken in its first try, and without a card for two hours: its state is old when the second begins, and that is no silence."""
    monkeypatch.setenv("ELSON_RUN_REGIONS", "us-central1")
    made = platform(waits_between_tries=120, timeout_minutes=10, trains_minutes=15)
    for _ in range(400):
        # The first report of a try comes eight minutes after its start.
        one = made.executions[-1]
        made.reports = one.try_began is not None and (one.tries == 1 or made.minute - one.try_began > 8)
        made.play(1, monkeypatch)
    assert made.executions[0].tries >= 2 and not cancelled(made)


def test_a_cancel_that_is_refused_is_tried_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, minutes=60, reports=False, refuses_cancel=True)
    assert len([call for call in played.calls if call.endswith(":cancel")]) >= 6
    assert any("run-elson-train-0b75369b" in row["message"] for row in played.said), "an error of the look"
    played.refuses_cancel = False
    assert played.play(10, monkeypatch).executions[0].outcome == "cancelled"


def test_a_region_that_is_away_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, minutes=60, reports=False, is_away=lambda region, _minute: region == "europe-west4")
    assert played.executions[0].outcome == "cancelled"
    assert any(row.get("region") == "europe-west4" for row in played.said)


def test_a_job_of_somebody_else_is_left_alone_and_one_on_the_last_page_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSON_RUN_REGIONS", "us-central1")
    made = platform(reports=False)
    (ours,) = made.executions
    made.executions.clear()
    others = [made.begin(name) for name in ("somebody-elses", "elson-nightly-report", "elson-train-0b75369b-copy", "elson-quantize-x")]
    made.executions.append(ours)
    made.play(40, monkeypatch)
    assert ours.outcome == "cancelled" and {one.outcome for one in others} == {""}


@pytest.mark.parametrize("content", ["[]", "null", '{"groups": {}, "vms": 5, "minutes": "a", "at": 7}', '{"groups": {}, "present": 4, "vms": {"a": 1}}'])
def test_a_memory_of_another_shape_stops_no_look(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSON_RUN_REGIONS", "us-central1")
    made = platform(reports=False)
    made.objects["watchdog/run-elson-train-0b75369b.json"] = content
    assert made.play(40, monkeypatch).executions[0].outcome == "cancelled"


def test_the_stand_in_speaks_of_what_the_api_has() -> None:
    run = schemas("run.v2")["GoogleCloudRunV2Execution"]["properties"]
    made = platform()
    made.begin(QUANTIZE)
    for _ in range(30):
        made.step()
        for one in made.executions:
            assert one.shown().keys() <= run.keys()
    assert made.executions[0].job == TRAIN and "runningCount" not in made.executions[0].shown(), "what is 0 is left out"
