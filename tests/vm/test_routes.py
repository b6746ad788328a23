"""Which of two models a request's body names: the pattern that the gateway uses, beside a JSON parser. And what is counted of both."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.errors import UserError
from runners.spec import parse
from runners.vm import routes, watch
from runners.vm.metrics import together

NAMES = ("elson", "base", "small/v1.5")
MACHINE = {"role": "serve", "machine_type": "g2-standard-8"}
#: Texts and keys that look like the thing that is looked for.
WORDS = st.sampled_from(["model", "base", '"model": "base"', '{"model": "base"}', "\\", '"', "]", "}", "", "x", "\n", "ü"]) | st.text(max_size=6)
VALUES = st.recursive(
    WORDS | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def two(**changes: Any) -> dict[str, Any]:
    serve = {"model": "tuned-q4", "second": {"model": "base-q4", "served_model_name": "base", **changes}}
    return parse({"serve": serve, "machine": MACHINE}).serve.model_dump(mode="json")


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=5), st.sampled_from([*NAMES, None]), st.booleans(), st.sampled_from([None, 1]))
def test_the_pattern_says_what_a_json_parser_says(rest: dict[str, Any], name: str | None, plain: bool, indent: int | None) -> None:
    body = {**rest, **({"model": name} if name else {})}
    text = json.dumps(body, ensure_ascii=plain, indent=indent)
    for asked in NAMES:
        assert bool(re.search(routes.body_of(asked), text)) == (json.loads(text).get("model") == asked), text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (r'{"model": "small\/v1.5"}', True),  # as PHP writes it
        (' \r\n{ "model"\t:"small/v1.5" }', True),
        ('{"model": "smallxv1x5"}', False),
        ('{"metadata": {"model": "small/v1.5"}, "model": "elson"}', False),
        ('{"messages": [{"content": "\\"model\\": \\"small/v1.5\\""}], "model": "elson"}', False),
        ('["model", {"model": "small/v1.5"}]', False),
        ('"model": "small/v1.5"', False),
        ("", False),
        ('{"a": ' + "[" * routes.DEPTH + "]" * routes.DEPTH + ', "model": "small/v1.5"}', True),
        ('{"a": ' + "[" * (routes.DEPTH + 1) + "]" * (routes.DEPTH + 1) + ', "model": "small/v1.5"}', False),
    ],
)
def test_only_the_bodys_own_model_counts(text: str, named: bool) -> None:
    assert bool(re.search(routes.body_of("small/v1.5"), text)) == named


@given(st.text(max_size=30))
def test_no_name_can_say_anything_else_in_the_gateways_configuration(name: str) -> None:
    try:
        found = routes.body_of(name)
    except UserError:
        return
    assert not set(found) & set("\"'`{}$\n ") and re.search(found, json.dumps({"model": name}))


def test_the_gateway_and_the_server_are_told_of_one_model_or_of_two() -> None:
    one = parse({"serve": {"model": "tuned-q4"}, "machine": MACHINE}).serve.model_dump(mode="json")
    assert routes.gateway(one) == {"ELSON_UPSTREAM": "127.0.0.1:8001", "ELSON_MAX_IN_FLIGHT": "64"}
    assert routes.serve_ports(one) == ["--port", "8001"] and routes.engines(one) == ((8001, "elson"),)
    both = routes.gateway(two(max_sequences=4, max_model_tokens=1024, model_id="qdora-1"))
    assert both.pop("ELSON_SECOND_MODEL") == routes.body_of("base")
    listed = json.loads(both.pop("ELSON_MODEL_LIST"))
    assert [(one["id"], one["root"], one["max_model_len"]) for one in listed["data"]] == [("elson", "tuned-q4", 4096), ("base", "qdora-1", 1024)]
    told = {"ELSON_MODELS": "two_models", "ELSON_SECOND_UPSTREAM": "127.0.0.1:8003", "ELSON_SECOND_MAX_IN_FLIGHT": "8"}
    assert both == {"ELSON_UPSTREAM": "127.0.0.1:8001", "ELSON_MAX_IN_FLIGHT": "64", **told}
    assert routes.serve_ports(two()) == ["--port", "8001", "--second-port", "8003"] and routes.engines(two()) == ((8001, "elson"), (8003, "base"))
    for bad in ({"served_model_name": "a`b"}, {"model_id": "x`{env.KEY}"}):
        with pytest.raises(UserError, match="a model of serve"):
            routes.gateway({**two(), "second": {**two()["second"], **bad}})


def test_uses_of_both_are_counted_and_a_silent_one_makes_no_sum() -> None:
    first, second = {"tokens": 3.0, "answered": 2.0, "in_flight": 0.0}, {"tokens": 1.0, "answered": 1.0, "in_flight": 2.0}
    assert together([first]) == first
    assert together([first, second]) == {"tokens": 4.0, "answered": 3.0, "in_flight": 2.0}
    assert together([first, None]) is None and together([None]) is None


@pytest.mark.parametrize("silent", [None, 8001, 8003])
def test_a_busy_model_does_not_hide_a_silent_one(silent: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[int, str]]()
    tokens = {8001: 10.0, 8003: 0.0}

    def probe(port: int, model: str, _key: str) -> bool:
        asked.append((port, model))
        return port != silent

    monkeypatch.setattr(watch, "probe", probe)
    monkeypatch.setattr(watch, "read_counters", lambda port: None if port == silent else {"tokens": tokens[port]})
    engines = [watch.WatchedEngine(port, name) for port, name in routes.engines(two())]
    assert [engine.completes("k") for engine in engines] == [silent != 8001, silent != 8003]
    assert asked == ([(8001, "elson")] if silent == 8001 else []) + [(8003, "base")]
    assert [engine.probes for engine in engines] == [0, silent != 8003], "tokens for others are no probe"
