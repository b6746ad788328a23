"""Twenty models of sixteen architectures with tiny random weights: computed as transformers' eager attention does, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from runners.errors import UserError
from runners.training import adapted_model, attention
from runners.training.examples import Example

SMALL = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BOTH = ["sliding_attention", "full_attention"]
SUPPORTED: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "qwen2 with windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "layer_types": BOTH}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "llama": ("llama", {}),
    "mistral with a window": ("mistral", {"sliding_window": 8, "head_dim": 8}),
    "mixtral with a window": ("mixtral", {"sliding_window": 8, "num_local_experts": 2}),
    "gemma": ("gemma", {"head_dim": 8}),
    "gemma-3 with windows": ("gemma3_text", {"sliding_window": 8, "layer_types": BOTH, "head_dim": 8}),
    "phi-2, bias of the output layer": ("phi", {}),
    "phi-3 with a window": ("phi3", {"sliding_window": 8}),
    "olmo-2": ("olmo2", {}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "starcoder2 with a window": ("starcoder2", {"sliding_window": 8}),
    "gpt-neox": ("gpt_neox", {}),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt-oss": (
        "gpt_oss",
        {"sliding_window": 8, "layer_types": BOTH, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
        "attention sinks|cannot be loaded",
    ),
    "gemma-2": ("gemma2", {"head_dim": 8, "final_logit_softcapping": None}, "soft-capped attention scores"),
    "gemma-2, logits": ("gemma2", {"head_dim": 8, "attn_logit_softcapping": None}, "changes its logits after the output layer"),
    "granite": ("granite", {"logits_scaling": 8.0}, "changes its logits after the output layer"),
    "cohere": ("cohere", {"logit_scale": 0.25}, "changes its logits after the output layer"),
    "stablelm": ("stablelm", {}, "is computed differently by this loop"),
    "llama-4": ("llama4_text", {"attention_chunk_size": 8, "num_local_experts": 1, "head_dim": 8, "interleave_moe_layer_step": 1}, "attention in chunks"),
}


def made(kind: str, changes: dict[str, Any], folder: Path) -> Path:
    """A folder with a random model in which nothing is zero: biases and sinks too."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**SMALL, **TOKENS, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(str(folder))
    return folder


def examples() -> list[Example]:
    """Shorter than the window, as long as it, longer, and several times as long."""
    chance = torch.Generator().manual_seed(1)
    return [Example(str(size), tuple(torch.randint(3, 97, (size,), generator=chance).tolist()), 2) for size in (5, 8, 9, 40)]


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_loss_is_that_of_transformers_eager_attention(name: str, tmp_path: Path) -> None:
    folder = made(*SUPPORTED[name], tmp_path)
    implementation = attention.prepare("cpu")
    ours = adapted_model.load_base(folder, "fp32", "cpu", implementation)
    eager = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, attn_implementation="eager")
    rows = examples()
    expected = []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row.token_ids])
            logits = eager(input_ids=ids, use_cache=False).logits[0, row.answer_start - 1 : -1]
            expected.append(float(torch.nn.functional.cross_entropy(logits, ids[0, row.answer_start :], reduction="sum")))
        assert [float(adapted_model.summed_loss(ours, [row], packed=True)) for row in rows] == pytest.approx(expected, rel=1e-5)
        assert float(adapted_model.summed_loss(ours, rows, packed=True)) == pytest.approx(sum(expected), rel=1e-5)
        padded = adapted_model.load_base(folder, "fp32", "cpu", "sdpa")
        assert float(adapted_model.summed_loss(padded, rows, packed=False)) == pytest.approx(sum(expected), rel=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    kind, changes, said = REFUSED[name]
    folder = made(kind, changes, tmp_path)
    with pytest.raises(UserError, match=said):
        adapted_model.load_base(folder, "fp32", "cpu", attention.prepare("cpu"))


def test_a_model_that_nobody_knows_is_compared_before_it_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Granite's scaled logits, had their name been another."""
    folder = made("granite", {"logits_scaling": 8.0}, tmp_path)
    monkeypatch.setattr(adapted_model, "_BENT_OUTPUTS", ())
    with pytest.raises(UserError, match="is computed differently by this loop: a loss of"):
        adapted_model.load_base(folder, "fp32", "cpu", attention.prepare("cpu"))
