"""Train a DoRA (or LoRA) adapter on a dataset: one loop, read from top to bottom.

Why not transformers' Trainer or TRL's: a step here is 64 *examples* in a varying number of packed micro-batches, the loss
is the mean over the answer tokens of the whole step (not a mean of micro-batches' means), only the hidden states that
predict an answer reach the output layer, in chunks, and a resumed run ends with the same bits. Each of these is a fight
with a configuration there and a line here.

It does not download, upload or publish: `elson train` does. Stock peft reads what it writes.

    elson train --spec gs://PROJECT-elson-scratch/specs/<digest>.json --work DIR
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runners import log
from runners.artifacts.record import Phase, Stopwatch
from runners.errors import UserError
from runners.spec import Spec, TrainSpec
from runners.training import batches, checkpoint, memory, ranks
from runners.training.examples import Example, load_tokenizer, training_split, validation_split


@dataclass(frozen=True)
class TrainResult:
    """An adapter folder (stock peft files, tokenizer, chat template), what was measured, and the time of each phase."""

    adapter: Path
    metrics: dict[str, Any]
    phases: tuple[Phase, ...]


class Stopped(UserError):
    """SIGTERM came (a spot machine is being taken away): the step was finished and a checkpoint written."""

    exit_code = 143


def train(
    spec: Spec, base: Path, dataset: Path, work: Path, *, save_checkpoint: Callable[[int, Path], None] | None = None, resume: Path | None = None
) -> TrainResult:
    """Train, and write ``work/adapter``.

    Args:
        spec: the whole spec; its train, chat and base_model parts are used.
        base: folder of the base model.
        dataset: folder with train.jsonl and validation.jsonl.
        work: where checkpoints and the adapter are written. A whole checkpoint of this very run found here is resumed from.
        save_checkpoint: called with (step, folder) once a checkpoint is complete on disk.
        resume: a checkpoint folder, or a folder of them, brought from elsewhere.

    Raises:
        UserError: an empty dataset, an example that is too long, too few steps, a loss that is not finite, a held-out loss that never improved.
        Stopped: SIGTERM; the same call again goes on from the checkpoint.
    """
    # Read by torch at its first use of a card. Lengths differ in each micro-batch: blocks that cannot grow left 4.5 GB more unusable (tests/gpu/README.md).
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    import torch

    from runners.training import adapted_model, dora, sharded
    from runners.training.attention import prepare

    settings, watch, device, team = spec.train, Stopwatch(), "cuda" if torch.cuda.is_available() else "cpu", ranks.join()
    with watch.phase("read data"):
        tokenizer = load_tokenizer(base)
        examples, held_out = training_split(spec, dataset, tokenizer), validation_split(spec, dataset, tokenizer)
        check_steps(settings, len(examples))
    with watch.phase("load model"):
        torch.manual_seed(settings.seed)
        implementation = prepare(device) if settings.packing else "sdpa"
        choice = memory_choice(settings, base, [*examples, *held_out], device, team.count)
        budget, checkpointing = choice.micro_batch_tokens, choice.gradient_checkpointing
        model = (sharded if choice.is_sharded else adapted_model).load(base, settings, spec.base_model.name, device, implementation)
        if checkpointing:
            adapted_model.checkpoint_activations(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    steps = batches.plan([len(example) for example in examples], settings.batch_examples, settings.epochs, budget, settings.seed, packing=settings.packing)
    judged = evaluation_steps(settings, len(examples))
    run = checkpoint.run_id(settings, base, [*examples, *held_out])
    shown = {"held_out": len(held_out), "steps": len(steps), "micro_batch_tokens": budget, "attention": implementation, "device": device}
    shown |= {"processes": team.count, "parts": choice.parts}
    log.event("training", adapter=settings.adapter, examples=len(examples), precision=settings.precision, **shown)

    if not team.first:
        torch.manual_seed(settings.seed + team.rank)  # the same adapter everywhere, another dropout
    loop = _Loop(model, optimizer, settings, examples, len(steps), team, is_sharded=choice.is_sharded)
    if whole := checkpoint.newest([place for place in (work / "checkpoints", resume) if place], run):
        state, best = checkpoint.restore(whole, model, optimizer)
        log.event("going on from a checkpoint", step=state.step, of=len(steps))
    else:
        with watch.phase("first evaluation"), dora.declared_writes():
            before = loop.evaluate(held_out, budget)
        state, best = checkpoint.State(run, 0, 0, before, 0, [], [{"step": 0, "loss": before}]), checkpoint.adapter_state(model)
    writer = checkpoint.Writer(work / "checkpoints", save_checkpoint if team.first else None, team.group() if choice.is_sharded else None)
    resumed_from = state.step

    with watch.phase("train"), log.progress("train", len(steps), "steps") as progress, _sigterm() as stop, dora.declared_writes():
        progress.advance(state.step)
        while state.step < len(steps) and state.bad_evaluations < settings.early_stop_evaluations:
            row = loop.step(state.step, steps[state.step])
            state = replace(state, step=state.step + 1, history=[*state.history, row])
            progress.advance(1, note=f"loss {row['loss']:.3f}", **step_fields(row, peak_memory()["peak_memory_gib"]))
            if state.step in judged:
                state = judge(state, loop.evaluate(held_out, budget))
                best = checkpoint.adapter_state(model) if state.best_step == state.step else best
            stopping = team.any(stop.is_set())
            if (team.first or choice.is_sharded) and (state.step in judged or stopping):
                writer.save(state, model, optimizer, best)
            if stopping and state.step < len(steps):
                writer.wait()
                team.wait()
                raise Stopped(
                    f"SIGTERM after step {state.step} of {len(steps)}; a checkpoint is written", fix="run the same command again: it goes on from there"
                )

    check_improvement(state)
    with watch.phase("write adapter"):
        adapter = _write(model, tokenizer, best, work, team, is_sharded=choice.is_sharded)
        writer.wait()
        team.wait()
    measured = _metrics(state, settings, examples, held_out, resumed_from)
    measured |= {**shown, "precision": settings.precision, "gradient_checkpointing": checkpointing, "masks": _mask_sample(examples[0], tokenizer)}
    log.event("trained", steps=state.step, best_step=state.best_step, validation_before=state.validation[0]["loss"], validation_after=state.best_loss)
    return TrainResult(adapter, measured, tuple(watch.phases))


def check_steps(settings: TrainSpec, examples: int) -> None:
    """Refuse a run that is too short to learn anything: the first version made 6 to 10 steps and saved no checkpoint."""
    steps = batches.count_steps(examples, settings.batch_examples, settings.epochs)
    if steps < settings.minimum_steps:
        raise UserError(
            f"{examples} examples, {settings.batch_examples} a step, {settings.epochs} epochs are {steps} optimizer steps",
            f"at least {settings.minimum_steps} (train.minimum_steps)",
            "add data, raise train.epochs, lower train.batch_examples, or lower train.minimum_steps if you mean it",
        )


def check_improvement(state: Any) -> None:
    """Refuse an adapter that never beat the base model: what would be published under a new name is the base model."""
    if state.best_step:
        return
    held_out = ", ".join(f"{row['loss']:.4f} after step {row['step']}" for row in state.validation[1:])
    trained = f"{state.history[0]['loss']:.4f} to {state.history[-1]['loss']:.4f}" if state.history else "not taken"
    raise UserError(
        f"the held-out loss never fell below that of the base model, {state.validation[0]['loss']:.4f}: it was {held_out}; training loss: {trained}",
        "at least one evaluation better than the base model",
        "lower train.learning_rate if the held-out loss rose, raise it or train.epochs if it hardly moved; check that both splits hold pairs of one kind",
    )


def evaluation_steps(settings: TrainSpec, examples: int) -> frozenset[int]:
    """Steps after which the held-out loss is taken and a checkpoint written: ``checkpoints_per_epoch`` of each epoch."""
    per_epoch = batches.count_steps(examples, settings.batch_examples, 1)
    parts = min(settings.checkpoints_per_epoch, per_epoch)
    return frozenset(epoch * per_epoch + round(per_epoch * part / parts) for epoch in range(settings.epochs) for part in range(1, parts + 1))


def learning_rate(step: int, steps: int, settings: TrainSpec) -> float:
    """Linear warm-up to the peak, then half a cosine towards 0, for 0-based ``step``."""
    warmup = max(1, round(settings.warmup_fraction * steps))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def judge(state: Any, loss: float) -> Any:
    """The state after a held-out loss: the best step so far, and how many evaluations were no better since."""
    better = loss < state.best_loss
    found = [*state.validation, {"step": state.step, "loss": loss}]
    log.event("held-out loss", step=state.step, loss=round(loss, 4), best=round(min(loss, state.best_loss), 4))
    if better:
        return replace(state, validation=found, best_step=state.step, best_loss=loss, bad_evaluations=0)
    return replace(state, validation=found, bad_evaluations=state.bad_evaluations + 1)


def step_fields(row: dict[str, Any], peak_memory_gib: float) -> dict[str, float]:
    """What the log says of a step while the training runs; `elson view` draws it. ``row`` is that of :meth:`_Loop.step`."""
    speed = {"tokens_per_s": round(row["tokens"] / row["seconds"], 1)} if row["seconds"] else {}
    return {"loss": row["loss"], "learning_rate": row["learning_rate"], **speed, "peak_memory_gib": peak_memory_gib}


class _Loop:
    """What a step needs, bound together; it holds no state of the run."""

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        settings: TrainSpec,
        examples: Sequence[Example],
        steps: int,
        team: ranks.Ranks = ranks.ALONE,
        *,
        is_sharded: bool = False,
    ) -> None:
        self.model, self.optimizer, self.settings, self.examples, self.steps, self.team = model, optimizer, settings, examples, steps, team
        #: Each forward gathers weights from all processes, each backward sums gradients: all must do equally many.
        self.is_sharded = is_sharded

    def step(self, number: int, step: batches.Step) -> dict[str, Any]:
        """One optimizer step; returns its row of the history. Raises UserError when loss or gradient are not finite."""
        import torch

        from runners.training.adapted_model import summed_loss

        begin, rate = time.perf_counter(), learning_rate(number, self.steps, self.settings)
        answer_tokens = sum(self.examples[index].answer_tokens for index in step.examples)
        self.model.train()
        losses = []
        for micro_batch, weight in self.team.share(step.micro_batches, equally=self.is_sharded):
            loss = summed_loss(self.model, [self.examples[index] for index in micro_batch], packed=self.settings.packing, divisor=answer_tokens) * weight
            loss.backward()
            losses.append(loss.detach())
        # Read once: a loss that is read waits for the card, and the card for the next micro-batch's kernels.
        total = self.team.total(float(torch.stack(losses).sum()) if losses else 0.0)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if not self.is_sharded:
            self.team.add_gradients(parameters)
        share: Any = torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        norm = float(share.full_tensor() if self.is_sharded else share)
        if not math.isfinite(total) or not math.isfinite(norm):
            raise UserError(
                f"step {number + 1}: loss {total}, gradient norm {norm}",
                "finite numbers",
                "lower train.learning_rate, or use train.precision: fp32",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        tokens = sum(len(self.examples[index]) for index in step.examples)
        row = {"step": number + 1, "epoch": step.epoch + 1, "loss": total, "learning_rate": rate, "gradient_norm": norm}
        return {
            **row,
            "tokens": tokens,
            "answer_tokens": answer_tokens,
            "micro_batches": len(step.micro_batches),
            "seconds": round(time.perf_counter() - begin, 4),
        }

    def evaluate(self, held_out: Sequence[Example], budget: int) -> float:
        """Mean loss per answer token of the held-out examples."""
        import torch

        from runners.training.adapted_model import summed_loss

        self.model.eval()
        lengths = [len(example) for example in held_out]
        arrange = batches.pack if self.settings.packing else batches.group_by_length
        with torch.no_grad():
            sums = [
                weight * float(summed_loss(self.model, [held_out[index] for index in one], packed=self.settings.packing))
                for one, weight in self.team.share(arrange(range(len(held_out)), lengths, budget), equally=self.is_sharded)
            ]
        return self.team.total(sum(sums)) / sum(example.answer_tokens for example in held_out)


def memory_choice(settings: TrainSpec, base: Path, examples: Sequence[Example], device: str, processes: int) -> memory.Choice:
    """Tokens of a micro-batch, whether to checkpoint activations, and whether to share the model out: the spec's, or what the memory plan says fits.

    Processes on a CPU have one memory, so nothing is gained by sharing: ELSON_TRAIN_SHARDED=1 does it all the same.
    """
    from runners.training import adapted_model
    from runners.training.shape import Shape

    longest, on_cpu = max(len(example) for example in examples), device == "cpu"
    shape = Shape.of_config(adapted_model.read_config(base).to_dict(), str(base / "config.json"))
    parts = (1,) if on_cpu else (1, processes)
    if on_cpu and os.environ.get("ELSON_TRAIN_SHARDED", "") not in ("", "0"):
        parts = (processes,)
    available, step_tokens = memory.device_bytes() if on_cpu else _card_bytes(), settings.batch_examples * sum(map(len, examples)) / len(examples)
    plan = memory.choose(shape, settings, longest, available, on_cpu=on_cpu, parts=parts, step_tokens=step_tokens)
    if longest > plan.micro_batch_tokens:
        raise UserError(
            f"train.micro_batch_tokens is {plan.micro_batch_tokens}, and the longest example has {longest} tokens",
            f"at least {longest}",
            "raise it, or leave it out",
        )
    return plan


def _card_bytes() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[1])


@contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets (in a program's main thread; elsewhere it stays unset)."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(model: Any, tokenizer: Any, best: dict[str, Any], work: Path, team: ranks.Ranks, *, is_sharded: bool) -> Path:
    from peft import set_peft_model_state_dict

    from runners.training import sharded

    adapter = work / "adapter"
    partial = work / ".adapter.partial"
    set_peft_model_state_dict(model, best)
    gathered = sharded.whole(model, keep=team.first) if is_sharded else None
    if not team.first:
        return adapter
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), save_embedding_layers=False, state_dict=gathered)
    tokenizer.save_pretrained(str(partial))
    # peft's template of a model card says nothing; the record does.
    (partial / "README.md").unlink(missing_ok=True)
    config = partial / "adapter_config.json"
    values = json.loads(config.read_text())
    # peft writes a set in the order of this process's hash seed: the same adapter would get another checksum.
    config.write_text(json.dumps({**values, "target_modules": sorted(values["target_modules"])}, indent=2, sort_keys=True))
    shutil.rmtree(adapter, ignore_errors=True)
    partial.rename(adapter)
    return adapter


def _metrics(state: Any, settings: TrainSpec, examples: Sequence[Example], held_out: Sequence[Example], resumed_from: int) -> dict[str, Any]:
    seconds = sum(row["seconds"] for row in state.history)
    tokens = sum(row["tokens"] for row in state.history)
    planned = batches.count_steps(len(examples), settings.batch_examples, settings.epochs)
    return {
        "history": state.history,
        "validation": state.validation,
        "validation_loss_before": state.validation[0]["loss"],
        "validation_loss_after": state.best_loss,
        "best_step": state.best_step,
        "steps_done": state.step,
        "steps_planned": planned,
        "stopped_early": state.step < planned,
        "resumed_from_step": resumed_from,
        "examples": len(examples),
        "prompt_tokens": sum(example.answer_start for example in examples),
        "answer_tokens": sum(example.answer_tokens for example in examples),
        "tokens": tokens,
        "tokens_per_s": round(tokens / seconds, 2) if seconds else 0.0,
        **peak_memory(),
    }


def peak_memory() -> dict[str, float]:
    """``peak_memory_gib`` is the card's where one is used, else the process's; ``peak_host_memory_gib`` is always the process's."""
    import torch

    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    device = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else host
    return {"peak_memory_gib": round(device, 2), "peak_host_memory_gib": round(host, 2)}


def _mask_sample(example: Example, tokenizer: Any) -> dict[str, str]:
    """One example as the model sees it, so that a wrong mask or template is plain in the record."""
    before, after = example.token_ids[: example.answer_start], example.token_ids[example.answer_start :]
    return {"id": example.id, "not_trained_on": tokenizer.decode(before), "trained_on": tokenizer.decode(after)}
