"""What a server says of its settings in each answer: written and read back for every spec, and nothing read out of other texts."""

from __future__ import annotations

import itertools

import pytest

from runners.artifacts import served_with
from runners.artifacts.served_with import ServedWith
from runners.fields import SpeculationSpec
from runners.spec import ServeSpec

DRAFTING = (None, SpeculationSpec(), SpeculationSpec(method="eagle3", draft_tokens=16), SpeculationSpec(method="draft", model="small"))
SPECS = [
    ServeSpec(kv_cache_dtype=dtype, prefix_caching=prefix, speculation=drafts)
    for dtype, prefix, drafts in itertools.product(("auto", "fp8"), (True, False), DRAFTING)
]


def test_every_spec_is_read_back_and_no_two_are_the_same() -> None:
    found = [served_with.of(spec) for spec in SPECS]
    assert [served_with.read(each.text) for each in found] == found
    assert len({each.text for each in found}) == len(SPECS)


@pytest.mark.parametrize("dtype", ["auto", "fp8"])
def test_the_settings_are_the_specs(dtype: str) -> None:
    spec = ServeSpec(kv_cache_dtype=dtype, prefix_caching=False, speculation=SpeculationSpec(draft_tokens=3))
    assert served_with.of(spec) == ServedWith(kv_cache_dtype=dtype, prefix_caching=False, speculation="ngram:3")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "vllm-0.32.0-0123abcd",
        "elson",
        "elson kv_cache_dtype=int4 prefix_caching=on speculation=none",
        "elson kv_cache_dtype=fp8 prefix_caching=maybe speculation=none",
        "elson kv_cache_dtype=fp8 prefix_caching=on speculation=none and more",
        "not elson kv_cache_dtype=fp8 prefix_caching=on speculation=none",
        "elson kv_cache_dtype=fp8 prefix_caching=on speculation=none\n",
    ],
)
def test_other_texts_tell_nothing(text: str | None) -> None:
    assert served_with.read(text) is None


def test_settings_are_known_only_where_every_answer_tells_the_same() -> None:
    auto, fp8 = (served_with.of(ServeSpec(kv_cache_dtype=dtype)) for dtype in ("auto", "fp8"))
    assert served_with.told([auto.text, auto.text]) == auto and served_with.told([fp8.text]) == fp8
    for mixed in ([], [None], [auto.text, None], [auto.text, fp8.text], [auto.text, "vllm-0.32.0-0123abcd"], ["vllm-0.32.0-0123abcd"]):
        assert served_with.told(mixed) is None, mixed
