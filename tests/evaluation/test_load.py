"""`elson load` through the real `vllm bench serve`, against a server that speaks the API; and what it does with bad input."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from runners import environments
from runners.commands.load import load
from runners.errors import CannotMeasure, UserError
from runners.evaluation.load import LoadRequest, bench_arguments, document, first_error, read_level
from tests.evaluation.stub_server import Play, serving

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


def test_a_folder_without_a_tokenizer_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    found = CliRunner().invoke(load, ["--api-url", "http://127.0.0.1:1", "--tokenizer", str(tmp_path)])
    assert isinstance(found.exception, UserError) and "holds no tokenizer.json" in str(found.exception)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A folder with a tokenizer of single bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in plain] + [chr(256 + number) for number in range(256 - len(plain))]
    whole = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {letter: number for number, letter in enumerate(letters)}, "merges": []}
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model, "pre_tokenizer": whole, "decoder": whole}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 4096}))
    return folder


@pytest.mark.timeout(600)
def test_the_real_tool_counts_what_is_lost_and_refuses_to_time_nothing(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not environments.path("serve").exists():
        pytest.skip("no serve environment")
    asked = itertools.count(1)
    play = Play(lambda *_: " ".join(["word"] * 140), token_s=0.001, finish="length", key="k" * 20, fail=lambda *_: 500 if next(asked) % 4 == 0 else None)
    with serving(None, play) as url:
        options = ["--api-url", url, "--tokenizer", str(tokenizer), "--requests", "8", "--concurrency", "2", "--out", str(tmp_path / "out"), "--json"]
        monkeypatch.setenv("ELSON_API_KEY", "k" * 20)
        done = CliRunner().invoke(load, options)
        assert done.exit_code == 0, done.exception
        (level,) = json.loads(done.stdout)
        assert (level["completed"], level["failed"]) == (6, 2)
        assert level["answer_ms"] >= 140 and level["tokens_per_s"] > 0
        assert all(body["max_completion_tokens"] == 140 and body["ignore_eos"] and body["model"] == "elson" for body in play.seen)
        assert "Requests lost" in (tmp_path / "out" / "load.html").read_text()
        monkeypatch.setenv("ELSON_API_KEY", "another-key-altogether")
        refused = CliRunner().invoke(load, options)
    assert isinstance(refused.exception, CannotMeasure)
    assert "none of 8 requests was answered: X" in refused.exception.found, refused.exception.found


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Failed requests:\nError 0: Unauthorized\nError 1: Unauthorized\n====", "Unauthorized"),
        ("Error 0: Traceback (most recent call last):\n  File x\nConnectionError: refused\n\nError 1: Traceback\n", "ConnectionError: refused"),
        ("Error 0: Traceback (most recent call last):\n  File x\nConnectionError: refused\n\n======= Serving =====\n", "ConnectionError: refused"),
        ("nothing", "it does not say why"),
    ],
)
def test_the_first_error_is_said(said: str, reason: str) -> None:
    assert first_error(said) == reason
