"""Train an EAGLE-3 head for the merged model on the dataset that the model was trained on, and prove that it drafts.

In the session that made the model, after the merge: the merged model is on this machine already. The loss is the cross-entropy against the model's own
next-token distribution on the answers of the training split, over several drafted tokens (``training/eagle.py``); the model is frozen.

The gates hold the files that were written, not what is in memory. They count as a server does: the model writes answers to held-out questions greedily, and
the head drafts along them. What is held: the files fit this model; a step gives more tokens than the bound, and more than an untrained head gives; writing
the head lost nothing. A head that misses one is not published, and the model goes on without it: it costs speed, not answers. One that passes is put into
4 bits and held again, against itself in 16; where that loses too much it stays as it was (``packed_head.py``).

Why not vLLM's ``speculators``: 0.9 needs transformers of at most 5.19 and a vLLM beside the training that gives the hidden states; the training's lock has
neither, and the merged model that is loaded here gives them for nothing. It is short enough to begin again: there are no checkpoints.

    elson merge --spec gs://PROJECT-elson-scratch/specs/<digest>.json --work DIR
"""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runners import log
from runners.artifacts.record import Gate, Phase, Stopwatch
from runners.errors import UserError
from runners.fields import HeadSpec
from runners.spec import Spec
from runners.training.examples import Example, load_tokenizer, training_split, validation_split

#: What a later drafted token weighs in the loss against the one before it, as in EAGLE-3.
_LATER = 0.8
_WARMUP = 0.05
#: Share of the trained head's extra tokens a step that the head on the disk must still give, and the one in 4 bits of the one in bf16. By plan four bits make
#: a step of a 14B on an L4 18 % shorter: they are worth it down to 0.82 of the tokens, and 0.9 of the extra ones are never fewer.
_KEPT = 0.9


@dataclass(frozen=True)
class HeadResult:
    """The head's folder, its gates, what was measured, and the time of each phase."""

    head: Path
    gates: tuple[Gate, ...]
    metrics: dict[str, Any]
    phases: tuple[Phase, ...]


def train_head(spec: Spec, merged: Path, dataset: Path, work: Path) -> HeadResult:
    """Write ``work/head`` and hold it against ``merged``.

    Raises:
        UserError: a model that EAGLE-3 does not fit, or a loss that is not finite.
        GateFailed: the head drafts too little; the folder is left for a look, and is not published.
    """
    import torch

    from runners.compression import gates
    from runners.training import eagle

    settings, watch, device = _settings(spec), Stopwatch(), "cuda" if torch.cuda.is_available() else "cpu"
    with watch.phase("load model"):
        tokenizer = load_tokenizer(merged)
        examples, probes = training_split(spec, dataset, tokenizer), validation_split(spec, dataset, tokenizer, settings.probe_examples)
        model = gates.load_plain(merged, device, gates.measuring_dtype(device)).eval().requires_grad_(False)
        torch.manual_seed(settings.seed)
        head = eagle.new(model, eagle.draft_vocabulary(examples, model.config.vocab_size, settings.draft_vocabulary))
    with watch.phase("write probes"):
        written = answers(model, probes, settings.probe_tokens)
        untrained = tokens_a_step(head, model, written, settings.steps)
    parameters = sum(parameter.numel() for parameter in head.parameters())
    log.event("training a head", parameters=parameters, words=len(head.words), examples=len(examples), device=device)
    with watch.phase("train"):
        history = _train(head, model, examples, settings)
    trained = tokens_a_step(head, model, written, settings.steps)
    with watch.phase("measure"):
        folder = eagle.write(head, work / "head")
        del head
        held, metrics = measure(settings, model, folder, written, trained=trained, untrained=untrained)
        if settings.bits == 4 and all(gate.passed for gate in held):
            held, metrics = quantized(settings, model, folder, written, (held, metrics))
    metrics |= {"history": history, "examples": len(examples), "parameters": parameters, "bytes": (folder / eagle.WEIGHTS).stat().st_size}
    gates.hold("head", held, metrics, "raise head.epochs, add data, or leave head out: the model is served without one")
    return HeadResult(folder, held, metrics, tuple(watch.phases))


def measure(
    settings: HeadSpec, model: Any, folder: Path, written: Sequence[Example], *, trained: float, untrained: float
) -> tuple[tuple[Gate, ...], dict[str, Any]]:
    """Hold a head's folder against the model it drafts for: the gates, and what was measured.

    Args:
        written: held-out questions with the answers that the model itself gives (``answers``).
        trained: tokens a step of the head that was written.
        untrained: tokens a step of the head before its training.
    """
    from runners.compression import packed_head

    head, problems = packed_head.read(folder, model)
    for problem in problems[:20]:
        log.warning("the head is not one of this model", problem=problem)
    held = [Gate(name="head's files unlike what the model needs", value=len(problems), bound=0, rule="at most")]
    metrics: dict[str, Any] = {"problems": problems[:20], "tokens_a_step_untrained": round(untrained, 4)}
    if head is None:
        return tuple(held), metrics
    found = tokens_a_step(head, model, written, settings.steps)
    held += [
        Gate(name="tokens a step on held-out questions", value=found, bound=settings.min_tokens_a_step, rule="at least"),
        Gate(name="tokens a step, above an untrained head's", value=found - untrained, bound=settings.min_tokens_gained, rule="at least"),
        Gate(name="tokens a step, files against the trained head", value=found, bound=1 + _KEPT * (trained - 1), rule="at least"),
    ]
    metrics |= {"tokens_a_step": round(found, 4), "drafted_a_step": settings.steps, "probe_tokens": sum(one.answer_tokens for one in written)}
    log.event("head", tokens_a_step=round(found, 3), untrained=round(untrained, 3), probe_tokens=metrics["probe_tokens"])
    return tuple(held), metrics


def quantized(
    settings: HeadSpec, model: Any, folder: Path, written: Sequence[Example], measured: tuple[tuple[Gate, ...], dict[str, Any]]
) -> tuple[tuple[Gate, ...], dict[str, Any]]:
    """Put a head that passed its gates into 4 bits in its folder, if it passes them there too; else it stays. Returns the gates and metrics of what is there.

    Args:
        measured: gates and metrics of the folder as it is, in bf16: what the 4 bits are held against.
    """
    from runners.compression import packed_head

    gates, metrics = measured
    size = packed_head.group_size(json.loads((folder / "config.json").read_text()))
    if size is None:
        log.warning("the head stays in 16 bits: its widths fit no groups of 32 or more")
        return gates, metrics | {"bits": 16}
    whole, small = metrics["tokens_a_step"], packed_head.write(folder, folder.with_name("head-4-bit"), size)
    held, found = measure(settings, model, small, written, trained=whole, untrained=metrics["tokens_a_step_untrained"])
    if not all(gate.passed for gate in held):
        shutil.rmtree(small)
        log.warning("the head stays in 16 bits: it drafts too little in 4", in_4=found.get("tokens_a_step"), in_16=whole)
        return gates, metrics | {"bits": 16, "tokens_a_step_4_bit": found.get("tokens_a_step")}
    shutil.rmtree(folder)
    small.rename(folder)
    return held, found | {"bits": 4, "group_size": size, "tokens_a_step_16_bit": whole}


def answers(model: Any, probes: Sequence[Example], most: int) -> list[Example]:
    """The same questions with the answers that the model gives, greedily, of ``most`` tokens or less."""
    import torch

    written = []
    with torch.no_grad(), log.progress("write probes", len(probes), "answers") as progress:
        for probe in probes:
            prompt = torch.tensor([probe.token_ids[: probe.answer_start]], device=model.device)
            found = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=most, do_sample=False, num_beams=1)
            written.append(replace(probe, token_ids=tuple(found[0].tolist())))
            progress.advance()
    return written


def tokens_a_step(head: Any, model: Any, written: Sequence[Example], steps: int) -> float:
    """Tokens that a step of a server gives which drafts ``steps`` tokens and keeps those that the model would have written itself.

    The first token of an answer comes from reading the question, as in a server; each step afterwards gives what was accepted and one token more.
    """
    import torch

    given = taken = 0
    for example in written:
        if example.answer_tokens < 2:
            continue
        start, ids = example.answer_start - 1, torch.tensor(example.token_ids, device=model.device)
        with torch.no_grad():
            embeddings, states, _ = _seen(model, example, head.config["eagle_aux_hidden_state_layer_ids"])
            drafts = torch.stack([head.words[logits.argmax(-1)] for logits in head(embeddings, states, start, steps)], 1).tolist()
        tokens, place = ids.tolist(), example.answer_start + 1
        while place < len(tokens):
            # Drafted after the token at place - 1, whose predecessor is the last one that the model has read.
            draft = drafts[place - 2 - start]
            right = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(draft, tokens[place:], strict=False)))
            step = min(right + 1, len(tokens) - place)
            given, taken, place = given + step, taken + 1, place + step
    return given / taken if taken else 0.0


def _seen(model: Any, example: Example, layers: Sequence[int]) -> tuple[Any, Any, Any]:
    """What the model makes of an example, without gradients, in fp32: embeddings [T, hidden], states [T, 3 hidden], last states [T, hidden]."""
    import torch

    from runners.training import eagle

    with torch.no_grad(), eagle.watched(model, layers) as seen:
        last = model.base_model(input_ids=torch.tensor([example.token_ids], device=model.device), use_cache=False).last_hidden_state[0]
        embeddings, *states = (one[0].float() for one in seen)
    return embeddings, torch.cat(states, -1), last


def _train(head: Any, model: Any, examples: Sequence[Example], settings: HeadSpec) -> list[dict[str, float]]:
    """Train the head in place; returns each epoch's mean loss."""
    import torch

    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=0.0, betas=(0.9, 0.95), fused=True)
    batches = math.ceil(len(examples) / settings.batch_examples)
    total, history = batches * settings.epochs, []
    with log.progress("train head", total, "steps") as progress:
        for epoch in range(settings.epochs):
            order, losses = list(range(len(examples))), []
            random.Random(f"head {settings.seed} {epoch}").shuffle(order)
            for number in range(batches):
                batch = [examples[index] for index in order[number * settings.batch_examples : (number + 1) * settings.batch_examples]]
                found = [_loss(head, model, example, settings.steps) for example in batch]
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * _rate(epoch * batches + number, total)
                norm = float(torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0))
                loss = float(torch.stack(found).mean())
                if not math.isfinite(loss) or not math.isfinite(norm):
                    raise UserError(f"the head's loss is {loss}, its gradient's norm {norm}", "finite numbers", "lower head.learning_rate")
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(loss)
                progress.advance(1, note=f"loss {loss:.3f}", loss=loss)
            history.append({"epoch": epoch + 1, "loss": sum(losses) / len(losses)})
            log.event("head's loss", epoch=epoch + 1, of=settings.epochs, loss=round(history[-1]["loss"], 4))
    return history


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine towards 0, as a share of the peak."""
    warmup = max(1, round(_WARMUP * steps))
    return (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _loss(head: Any, model: Any, example: Example, steps: int) -> Any:
    """The loss of an example, whose gradient is added to the head's: cross-entropy against what the model says, a token, over the drafted tokens."""
    import torch

    start, total = example.answer_start - 1, len(example)
    embeddings, states, last = _seen(model, example, head.config["eagle_aux_hidden_state_layer_ids"])
    output = model.get_output_embeddings()
    with torch.no_grad():
        # What the model says after positions start + 1 .. total - 2: the tokens that are drafted.
        logits = output(last[start + 1 : total - 1]).float()
        drafted = torch.isin(logits.argmax(-1), head.words)
        targets = logits[:, head.words].softmax(-1)
    count, loss = len(targets), torch.zeros((), device=model.device)
    if not count:
        return loss
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
        for step, predicted in enumerate(head(embeddings, states, start, steps)):
            left = count - step  # the last positions draft beyond the example's end
            if left <= 0:
                break
            wrong = -(targets[step:] * predicted[:left].float().log_softmax(-1)).sum(-1)
            loss = loss + _LATER**step * (wrong * drafted[step:]).sum() / drafted[step:].sum().clamp_min(1)
    loss.backward()
    return loss.detach()


def _settings(spec: Spec) -> HeadSpec:
    if spec.head is None:
        raise UserError("the spec has no head", "head: {} in the spec", "leave it out where no head is trained")
    return spec.head
