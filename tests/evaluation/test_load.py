"""`elson load` through the real `vllm bench serve`, against a server that speaks the API; and what it does with bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from runners.commands.load import load
from runners.errors import CannotMeasure, UserError
from runners.evaluation.load import LoadRequest, bench_arguments, document, read_level

FOUND = {"completed": 32, "failed": 1, "request_throughput": 2.0, "output_throughput": 280.0, "mean_ttft_ms": 50.0, "p99_ttft_ms": 90.0}
FOUND |= {"mean_tpot_ms": 30.0, "mean_e2el_ms": 4300.0, "p99_e2el_ms": 5000.0}


def test_the_key_is_no_argument_and_every_level_asks_at_least_its_concurrency() -> None:
    made = bench_arguments(LoadRequest("http://127.0.0.1:8000/v1/", "elson", Path("/t"), requests_per_level=8), 16, Path("/out/c.json"))
    assert made[made.index("--num-prompts") + 1] == "16" and made[made.index("--base-url") + 1] == "http://127.0.0.1:8000"
    assert not any("key" in argument.lower() for argument in made)


def test_the_page_has_the_curves_and_the_floor() -> None:
    levels = [read_level(1, FOUND), read_level(4, FOUND | {"output_throughput": 900.0})]
    drawn = document(LoadRequest("u", "elson", Path("/t")), levels, 3930.0)
    assert "Throughput" in drawn and "the card&#x27;s floor" in drawn and "900" in drawn


@pytest.mark.parametrize("wrong", [{}, {"completed": "x"}, FOUND | {"mean_ttft_ms": None}])
def test_another_result_is_one_sentence(wrong: dict[str, object]) -> None:
    with pytest.raises(CannotMeasure, match="another result"):
        read_level(1, wrong)


def test_bad_levels_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    found = CliRunner().invoke(load, ["--api-url", "http://127.0.0.1:1", "--tokenizer", str(tmp_path), "--concurrency", "1,x"])
    assert isinstance(found.exception, UserError) and "no list of levels" in str(found.exception)
