"""The server's argument list is a pure function of the spec and the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from runners.artifacts import served_with
from runners.errors import UserError
from runners.fields import SpeculationSpec
from runners.serving import serve
from runners.spec import ServeSpec, parse


def arguments(**options) -> list[str]:
    base = {"device": "cuda", "quantized": True, "port": 8001}
    return serve.vllm_arguments(ServeSpec(), Path("/m"), **(base | options))


def value(of: str, options: list[str]) -> str:
    return options[options.index(of) + 1]


def test_only_loopback_is_bound() -> None:
    for device in ("cuda", "cpu"):
        assert value("--host", arguments(device=device)) == "127.0.0.1"


def test_the_key_is_never_an_argument() -> None:
    environment = serve.vllm_environment("a-secret-key-of-24-chars", device="cuda", work=Path("/w"))
    assert environment["VLLM_API_KEY"] == "a-secret-key-of-24-chars"
    assert not any("secret" in argument or argument == "--api-key" for argument in arguments())


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, "auto"),
        ({"capability": 7.5}, "float16"),
        ({"device": "cpu", "quantized": False}, "float32"),
        ({"device": "cpu"}, "auto"),
    ],
)
def test_dtype_is_what_the_machine_can_do(options: dict, dtype: str) -> None:
    assert value("--dtype", arguments(**options)) == dtype


def test_a_cpu_has_an_explicit_kv_cache_and_no_gpu_settings() -> None:
    options = arguments(device="cpu")
    assert value("--kv-cache-memory-bytes", options) == "256M"
    assert "--gpu-memory-utilization" not in options


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_settings_of_the_cache_are_the_same_on_every_machine(device: Literal["cuda", "cpu"]) -> None:
    """A setting that a machine at home left out would be measured by nobody before it is served."""
    usual = arguments(device=device)
    assert value("--kv-cache-dtype", usual) == "auto" and "--enable-prefix-caching" in usual
    changed = ServeSpec(kv_cache_dtype="fp8", prefix_caching=False)
    other = serve.vllm_arguments(changed, Path("/m"), device=device, quantized=True, port=1)
    assert value("--kv-cache-dtype", other) == "fp8"
    assert "--no-enable-prefix-caching" in other and "--enable-prefix-caching" not in other
    for options, spec in ((usual, ServeSpec()), (other, changed)):
        assert value("--fingerprint-mode", options) == "custom" and served_with.read(value("--fingerprint-value", options)) == served_with.of(spec)


@pytest.mark.parametrize("key", ["", "short"])
def test_no_server_without_a_key(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.delenv("ELSON_API_KEY_FILE", raising=False)
    monkeypatch.setenv("VLLM_API_KEY", key)
    with pytest.raises(UserError, match="API key"):
        serve.read_key()


@pytest.mark.parametrize(
    ("wanted", "draft", "config"),
    [
        ({"method": "ngram", "draft_tokens": 4}, None, {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2, "prompt_lookup_max": 4}),
        ({"method": "draft", "model": "small", "draft_tokens": 3}, "/d", {"method": "draft_model", "num_speculative_tokens": 3, "model": "/d"}),
        ({"method": "eagle3", "model": "head"}, "/h", {"method": "eagle3", "num_speculative_tokens": 4, "model": "/h"}),
    ],
)
def test_speculation_is_one_argument_and_off_by_default(wanted: dict, draft: str | None, config: dict) -> None:
    assert "--speculative-config" not in arguments()
    spec = ServeSpec(speculation=SpeculationSpec(**wanted))
    made = serve.vllm_arguments(spec, Path("/m"), device="cuda", quantized=True, port=1, draft=Path(draft) if draft else None)
    assert json.loads(value("--speculative-config", made)) == config
    assert value("--per-request-spec-decode-metrics", made) == "summary" and "--per-request-spec-decode-metrics" not in arguments()


@pytest.mark.parametrize("wrong", [{"method": "draft"}, {"method": "ngram", "model": "small"}])
def test_a_method_has_the_model_that_it_needs_and_no_other(wrong: dict) -> None:
    with pytest.raises(UserError, match="model"):
        parse({"serve": {"speculation": wrong}})
