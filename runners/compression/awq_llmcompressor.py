"""AWQ through llm-compressor: maintained, and written as compressed-tensors, which vLLM reads through the same kernels.

It wants a transformers of its own, so it lives in an environment of its own (``images/quantize-llmcompressor/requirements.lock``)
and runs as a child process of the quantize stage. That environment is only made when somebody asks for this backend:

    python3 -m runners.installation quantize-llmcompressor
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from runners import environments, log
from runners.errors import UserError
from runners.spec import QuantizeSpec

STAGE = "quantize-llmcompressor"


def run(merged: Path, dest: Path, blocks: list[list[int]], settings: QuantizeSpec, device: str) -> None:
    """Quantize ``merged`` into ``dest`` with llm-compressor's own interpreter. Raises UserError when that is not installed, or fails."""
    python = environments.python(STAGE)
    if not python.exists():
        raise UserError("llm-compressor is not installed", f"the environment {STAGE}", f"python3 -m runners.installation {STAGE}")
    order = dest.parent / f"{dest.name}.calibration.json"
    order.write_text(json.dumps({"merged": str(merged), "dest": str(dest), "blocks": blocks, "group_size": settings.group_size, "bits": settings.bits}))
    done = subprocess.run([str(python), "-m", "runners.compression.awq_llmcompressor", str(order)], cwd=environments.ROOT, capture_output=True, text=True)
    order.unlink()
    if done.returncode:
        raise UserError(f"llm-compressor failed: {done.stderr[-1500:]}", "a quantized model", "use quantize.backend: autoawq, or report this")
    log.event("llm-compressor is done", device=device)


def _quantize(merged: str, dest: str, blocks: list[list[int]], group_size: int, bits: int) -> None:
    import torch
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not torch.cuda.is_available():
        # It pins memory for a copy to a card that is not there, and dies (0.14.0.1).
        from llmcompressor.pipelines.cache import IntermediatesCache

        IntermediatesCache.pin_memory = _do_nothing
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.bfloat16, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(merged, local_files_only=True)
    rows = Dataset.from_list([{"input_ids": block, "attention_mask": [1] * len(block)} for block in blocks])
    weights = QuantizationArgs(num_bits=bits, type="int", symmetric=False, strategy="group", group_size=group_size)
    scheme = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
    recipe = [AWQModifier(duo_scaling=True), QuantizationModifier(ignore=["lm_head"], config_groups=scheme)]
    oneshot(model=model, tokenizer=tokenizer, dataset=rows, recipe=recipe, max_seq_length=len(blocks[0]), num_calibration_samples=len(blocks))
    model.save_pretrained(dest, save_compressed=True, max_shard_size="1GB")


def _do_nothing(*_: Any, **__: Any) -> None:
    return None


if __name__ == "__main__":
    _quantize(**json.loads(Path(sys.argv[1]).read_text()))
