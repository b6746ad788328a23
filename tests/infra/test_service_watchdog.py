"""The watchdog over a service on Cloud Run: the real function, requests in simulated time. What the platform ends alone is played as well."""

from __future__ import annotations

from typing import Any

import pytest
from discovery import schemas

from tests.infra.services import SERVICE, ServicePlatform, platform


def play(monkeypatch: pytest.MonkeyPatch, minutes: int, watched: str = "us-central1 us-east4", made: ServicePlatform | None = None, **changes: Any) -> Any:
    monkeypatch.setenv("ELSON_RUN_REGIONS", watched)
    return (made or platform(**changes)).play(minutes, monkeypatch)


def deleted(played: ServicePlatform) -> list[str]:
    return [row["reason"] for row in played.said if row["message"] == "watchdog: service deleted"]


def test_a_service_that_is_used_now_and_then_is_left_alone_for_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve uses of five minutes a day: the platform ends each instance, and nothing adds up."""
    played = play(monkeypatch, 4 * 1440, asked=lambda minute: minute % 120 < 5)
    assert played.is_there and not deleted(played) and played.billed == 4 * 12 * 16


def test_a_service_that_nobody_asks_costs_nothing_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, 5 * 1440)
    assert played.is_there and played.billed == 0 and not played.said


def test_the_platform_alone_never_ends_a_service_that_is_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert play(monkeypatch, 4 * 1440, watched="", asked=lambda _: True).billed == 4 * 1440


def test_a_service_that_is_asked_for_ever_is_deleted_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, 4 * 1440, asked=lambda _: True)
    assert not played.is_there and 1455 < played.billed <= 1470, played.billed
    assert deleted(played) == ["it has served for 1460 minutes without a pause, 1455 are allowed"]


def test_instances_that_are_kept_are_billed_though_nobody_asks_and_end_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, 4 * 1440, min_instances=2)
    assert not played.is_there and 2 * 1455 < played.billed <= 2 * 1470


def test_a_pause_begins_a_new_count(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, 4 * 1440, asked=lambda minute: minute % 1400 < 1370)
    assert played.is_there and not deleted(played)


def test_a_delete_that_is_refused_is_tried_at_each_look_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, 1500, asked=lambda _: True, refuses_delete=True)
    assert len([call for call in played.calls if call.startswith("DELETE")]) >= 6 and not deleted(played)
    assert any(f"serve-{SERVICE}" in row["message"] for row in played.said), "an error of the look"
    played.refuses_delete = False
    assert not play(monkeypatch, 10, made=played).is_there


def test_metrics_that_are_away_are_an_error_and_the_count_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch, 1400, asked=lambda _: True)
    played.metrics_are_away = True
    assert play(monkeypatch, 100, made=played).is_there and any(row["severity"] == "ERROR" for row in played.said)
    played.metrics_are_away = False
    assert not play(monkeypatch, 10, made=played).is_there


@pytest.mark.parametrize("content", ["[]", "null", '{"groups": {}, "since": 5}', '{"groups": {}, "since": "soon"}'])
def test_a_memory_of_another_shape_stops_no_look(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = platform(asked=lambda _: True)
    made.objects[f"watchdog/serve-{SERVICE}.json"] = content
    assert not play(monkeypatch, 1480, made=made).is_there


def test_the_stand_in_speaks_of_what_the_apis_have() -> None:
    fields = schemas("run.v2")["GoogleCloudRunV2Service"]["properties"]
    template, scaling = (schemas("run.v2")[f"GoogleCloudRunV2Revision{name}"]["properties"] for name in ("Template", "Scaling"))
    assert {"manualInstanceCount", "minInstanceCount"} <= schemas("run.v2")["GoogleCloudRunV2ServiceScaling"]["properties"].keys()
    for one in platform(min_instances=1).shown():
        assert one.keys() <= fields.keys() and one.get("template", {}).keys() <= template.keys()
        assert one.get("template", {}).get("scaling", {}).keys() <= scaling.keys()
    series = schemas("monitoring.v3")
    assert {"metric", "points"} <= series["TimeSeries"]["properties"].keys() and "int64Value" in series["TypedValue"]["properties"]
    assert {"timeSeries", "nextPageToken"} <= series["ListTimeSeriesResponse"]["properties"].keys()
