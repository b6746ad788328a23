"""A tiny model that knows what it will say, and a head trained on it: a random model is as unsure as dice, and nothing can draft for it.

.elson/envs/train/bin/python -m tests.torch.taught DIR
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from runners import spec as declared
from runners.spec import Spec
from tests.torch.conftest import rows, write_dataset

#: Small enough for seconds, and fewer words than the model has.
HEAD = {"draft_vocabulary": 512, "epochs": 4, "learning_rate": 5e-4, "probe_examples": 8, "probe_tokens": 48, "bits": 16}


def make_spec(**changes: object) -> Spec:
    return declared.parse({"train": {"max_tokens": 512}, "head": HEAD | changes})


def teach(folder: Path, dataset: Path, *, seed: int = 0) -> Path:
    """Train all weights of a tiny Qwen2 on a dataset until its answers are sure; it stands for a merged model."""
    import torch
    from transformers import AutoModelForCausalLM

    from runners.local.base_model import make_tiny
    from runners.training.examples import load_tokenizer, training_split

    make_tiny(folder, seed=seed)
    examples = training_split(make_spec(), dataset, load_tokenizer(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for begin in [start for _ in range(4) for start in range(0, len(examples), 4)]:
        for example in examples[begin : begin + 4]:
            ids = torch.tensor([example.token_ids])
            labels = ids.clone()
            labels[:, : example.answer_start] = -100
            (model(input_ids=ids, labels=labels).loss / 4).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(str(folder))
    return folder


def main(folder: Path) -> None:
    """Write ``merged``, ``data``, ``head`` and ``head-4-bit`` below a folder, and print what the gate says of the head, and of its tokens a step in 4 bits."""
    import torch

    from runners.compression import gates, head, packed_head
    from runners.training.examples import load_tokenizer, validation_split

    torch.set_num_threads(1)
    data = write_dataset(folder / "data", rows(40, "train"), rows(8, "validation"))
    merged, spec = teach(folder / "merged", data), make_spec()
    found, settings, model = head.train_head(spec, merged, data, folder), spec.head, gates.load_plain(merged, "cpu", torch.float32)
    assert settings
    size = packed_head.group_size(json.loads((found.head / "config.json").read_text()))
    assert size
    small, _ = packed_head.read(packed_head.write(found.head, folder / "head-4-bit", size), model)
    written = head.answers(model, validation_split(spec, data, load_tokenizer(merged), settings.probe_examples), settings.probe_tokens)
    print(json.dumps(found.metrics | {"tokens_a_step_4_bit": head.tokens_a_step(small, model, written, settings.steps)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
