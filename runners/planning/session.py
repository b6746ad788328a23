"""A training session phase by phase: the seconds to expect, at best and at worst, and where each figure comes from. Pure.

The phases of the stages have the names that the stages' records give them, so a record can be held against its plan (``runners/stages.py``).
"Measured" is `make test-gpu` on one H100 with the 14B's shape (tests/gpu/README.md). What was neither measured nor computed is said to be assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from runners.fields import PlannedSeconds
from runners.planning import serving, training
from runners.planning.machines import H100, Machine, machine
from runners.planning.parts import PlannedPhase
from runners.planning.serving import ANSWERS
from runners.planning.training import CorpusSize
from runners.spec import MachineSpec, Spec
from runners.training.shape import QWEN2_14B, Shape, resident_bytes


@dataclass(frozen=True)
class Estimate:
    """Something's speed or cost: at best, to expect, at worst, and the source."""

    best: float
    expected: float
    worst: float
    source: str

    @property
    def values(self) -> tuple[float, float, float]:
        """The three figures."""
        return self.best, self.expected, self.worst

    def times(self, amount: float) -> Estimate:
        """So many times these seconds."""
        return Estimate(self.best * amount, self.expected * amount, self.worst * amount, self.source)

    def takes(self, amount: float) -> Estimate:
        """The seconds of an amount at this speed."""
        return Estimate(amount / self.best, amount / self.expected, amount / self.worst, self.source)

    def plus(self, other: Estimate) -> Estimate:
        """Both, one after the other."""
        return _sum(self, other)

    def over(self, speed: Estimate) -> Estimate:
        """The seconds of this amount at a speed."""
        best, expected, worst = (amount / each for amount, each in zip(self.values, speed.values, strict=True))
        return Estimate(best, expected, worst, f"bytes {self.source}; {speed.source}")

    def phase(self, name: str) -> PlannedPhase:
        """These seconds as a phase of the plan."""
        return PlannedPhase(name, *self.values, self.source)


#: Driver, docker and toolkit on a stock image; a baked image; a machine's two images from the registry. One report: 457 s of installing, 587 s of pulling.
BOOT_S = Estimate(90, 240, 460, "assumed; worst: one report")
#: 25 s until ssh answers have been measured of 5,000 VMs of up to 32 cores (R. Aboukhalil, 2018, no GPU); driver, docker and the units come on top.
BAKED_BOOT_S = Estimate(30, 50, 120, "assumed; 25 s of it quoted, without a GPU")
PULL_S = Estimate(60, 300, 590, "assumed; worst: one report")
#: A task of a Cloud Run job: until it is scheduled, its instance, its image. A service's instance: about 5 s with its card (Google's documentation), and 1 to
#: 2 s until the first blocks of the image have streamed (S. Meir Lador of Google, "A guide to AI cold starts on Cloud Run", 2026).
RUN_START_S = Estimate(5, 30, 120, "assumed")
RUN_INSTANCE_S = Estimate(5, 7, 60, "quoted; worst: assumed")
#: A stage's program until it reads its first input: the container, Python, torch, transformers, the card's context.
PROGRAM_S = Estimate(8, 20, 35, "measured at worst, a cold disk")
#: Share of the network's bandwidth that a parallel, checksummed transfer reaches.
DOWNLOAD_SHARE = Estimate(0.85, 0.63, 0.20, "assumed")
UPLOAD_SHARE = Estimate(0.70, 0.45, 0.15, "assumed")
#: GB/s from a folder onto the card (at worst from a disk that is read for the first time), and the adapter put on the model.
LOAD_GB_S, ADAPTER_S = Estimate(7.0, 4.4, 1.5, "measured"), Estimate(2, 4.5, 10, "measured")
#: GB/s of the copy that the training waits for; writing goes on behind it.
CHECKPOINT_GB_S = Estimate(3.0, 1.07, 0.5, "measured")
WRITE_GB_S = Estimate(1.5, 0.75, 0.3, "measured")
#: GB/s that reach a card from the others, of a model that they share out. NVLink carries 450, PCIe 25; at best most of it hides behind the products.
NVLINK_GB_S, PCIE_GB_S = Estimate(1500, 300, 80, "gathering: assumed"), Estimate(50, 10, 4, "gathering: assumed")
#: Seconds a GB of the base model: read, merged and written; both models read and compared.
MERGE_S_PER_GB, COMPARE_S_PER_GB = Estimate(0.6, 0.95, 2.0, "measured, 16 cores"), Estimate(0.5, 0.85, 1.8, "measured with whole models")
#: AWQ's search for 16,384 tokens and one layer of the 14B; what its loading and writing take a GB of the base model; its gate.
AWQ_LAYER_S, AWQ_TOKENS = Estimate(1.5, 1.9, 3.0, "measured"), 16_384
AWQ_S_PER_GB, MEASURE_S_PER_GB = Estimate(0.7, 1.5, 3.0, "measured"), Estimate(0.8, 1.4, 3.0, "measured with whole models")

#: Share of the card's FLOP/s that one example at a time reaches, and of its bandwidth that transformers' own decoding does.
HEAD_SHARE, WRITTEN_SHARE = Estimate(0.35, 0.20, 0.08, "assumed"), Estimate(0.5, 0.25, 0.1, "assumed")


def phases(spec: Spec, wanted: MachineSpec, host: Machine, shape: Shape, corpus: CorpusSize, *, checkpointing: bool) -> tuple[PlannedPhase, ...]:
    """Every phase of a training session, in order. On Cloud Run a second instance quantizes, and the merged model goes there through the bucket."""
    base, quantized = resident_bytes(shape, "bf16") / 1e9, resident_bytes(shape, "awq", spec.quantize.group_size) / 1e9
    adapter = 4 * shape.adapter_parameters(spec.train.rank, spec.train.target_modules) / 1e9
    evaluations = spec.train.epochs * spec.train.checkpoints_per_epoch
    cards = training.times_faster(shape, spec.train, corpus, host)
    one = partial(training.tokens_per_s, shape, spec.train, host, checkpointing=checkpointing)
    best, usual, worst = (cards * one(utilisation=share) for share in training.UTILISATIONS)
    speed = Estimate(best, usual, worst, f"measured, {training.UTILISATION:.0%} of an H100")
    steps = speed.takes(corpus.tokens * spec.train.epochs)
    parts = training.chosen(shape, spec.train, host, corpus).parts
    if parts > 1:
        link = NVLINK_GB_S if host.accelerator == H100 else PCIE_GB_S
        steps = _sum(steps, link.takes(training.gathered_gb(shape, spec.train, corpus, host)))
    # A forward without a backward, of the held-out examples.
    held_out = speed.takes(corpus.tokens * spec.data.validation_fraction / (1 - spec.data.validation_fraction) / 2)
    # Each card copies its own part.
    copies = CHECKPOINT_GB_S.takes(3 * adapter / parts).times(evaluations)
    # The search multiplies each layer's weights with the calibration text.
    layers = QWEN2_14B.layers * shape.linear_parameters / QWEN2_14B.linear_parameters * spec.quantize.calibration_tokens / AWQ_TOKENS
    awq = _sum(AWQ_LAYER_S.times(layers * H100.tflops / host.accelerator.tflops), AWQ_S_PER_GB.times(base))
    moved = (
        transfer(base, host, UPLOAD_SHARE).phase("merge: publish"),
        RUN_START_S.phase("second instance"),
        transfer(base, host, DOWNLOAD_SHARE).phase("quantize: download"),
    )
    first = (
        PROGRAM_S.phase("train: program"),
        transfer(base, host, DOWNLOAD_SHARE).phase("train: download"),
        Estimate(1, 3, 10, "assumed").phase("train: read data"),
        _sum(LOAD_GB_S.takes(base), ADAPTER_S).phase("train: load model"),
        held_out.phase("train: first evaluation"),
        _sum(steps, held_out.times(evaluations), copies).phase("train: train"),
        WRITE_GB_S.takes(adapter).phase("train: write adapter"),
        transfer(adapter, host, UPLOAD_SHARE).phase("train: publish"),
        PROGRAM_S.phase("merge: program"),
        MERGE_S_PER_GB.times(base).phase("merge: merge"),
        COMPARE_S_PER_GB.times(base).phase("merge: compare with the adapter"),
        *_head(spec, host, shape, corpus),
    )
    return (
        *boot(wanted),
        *first,
        *(moved if host.is_run else ()),
        *_second_image(wanted, first),
        PROGRAM_S.phase("quantize: program"),
        awq.phase(f"quantize: quantize with {spec.quantize.backend}"),
        MEASURE_S_PER_GB.times(base).phase("quantize: measure"),
        transfer(quantized, host, UPLOAD_SHARE).phase("quantize: publish"),
    )


def _head(spec: Spec, host: Machine, shape: Shape, corpus: CorpusSize) -> tuple[PlannedPhase, ...]:
    """The EAGLE-3 head, trained on the merged model in the merge's program; nothing where the spec asks for none.

    Each example goes through the frozen model and through the head alone; the head drafts ``steps`` tokens at each token of the answer.
    """
    if spec.head is None:
        return ()
    parameters = serving.head_parameters(shape, spec.head.draft_vocabulary)
    answer_share = ANSWERS.answer_tokens / (ANSWERS.prompt_tokens + ANSWERS.answer_tokens)
    flops = corpus.tokens * (2 * shape.parameters + 6 * parameters * (1 + spec.head.steps * answer_share)) * spec.head.epochs
    # Adam reads and writes 28 bytes of each parameter a step: weight, gradient, two moments.
    updates = spec.head.epochs * -(-corpus.examples // spec.head.batch_examples) * 28 * parameters / (host.accelerator.bandwidth_gb_s * 1e9)
    trained = HEAD_SHARE.takes(flops / (host.accelerator.tflops * 1e12))
    # A token that is written reads every weight once.
    written = WRITTEN_SHARE.takes(spec.head.probe_examples * spec.head.probe_tokens * 2 * shape.parameters / (host.accelerator.bandwidth_gb_s * 1e9))
    checked = HEAD_SHARE.takes(4 * spec.head.probe_examples * spec.train.max_tokens * 2 * shape.parameters / (host.accelerator.tflops * 1e12))
    return (
        LOAD_GB_S.takes(2 * shape.parameters / 1e9).phase("head: load model"),
        written.phase("head: write probes"),
        _sum(trained, Estimate(updates, updates, updates, "computed")).phase("head: train"),
        checked.phase("head: measure"),
        transfer(serving.head_bytes(shape, spec.head) / 1e9, host, UPLOAD_SHARE).phase("head: publish"),
    )


def boot(wanted: MachineSpec) -> tuple[PlannedPhase, ...]:
    """Until the first container runs."""
    if wanted.provisioning_model == "RUN":
        return (RUN_START_S.phase("instance with its GPU"),)
    if wanted.image_is_baked:
        return (BAKED_BOOT_S.phase("boot (baked image)"),)
    # A training waits for its first image alone; that the two are of one size is assumed.
    pulled = PULL_S.times(0.5).phase("first container image") if wanted.role == "train" else PULL_S.phase("container images")
    return (BOOT_S.phase("boot, docker, toolkit"), pulled)


def _second_image(wanted: MachineSpec, beside: tuple[PlannedPhase, ...]) -> tuple[PlannedPhase, ...]:
    """What a machine still waits for its second image, which it pulls ``beside`` the work with the first."""
    if wanted.provisioning_model == "RUN" or wanted.image_is_baked:
        return ()
    passed = (sum(values) for values in zip(*((one.optimistic_s, one.expected_s, one.pessimistic_s) for one in beside), strict=True))
    best, expected, worst = (max(0.0, needed - done) for needed, done in zip(PULL_S.times(0.5).values, passed, strict=True))
    return (PlannedPhase("second container image", best, expected, worst, PULL_S.source),) if max(best, expected, worst) else ()


def with_plan(spec: Spec, shape: Shape, corpus: CorpusSize) -> Spec:
    """The spec with the seconds that its plan gives each phase of the stages, which their records are held against."""
    if spec.machine is None:
        return spec
    host = machine(spec.machine.machine_type)
    found = phases(spec, spec.machine, host, shape, corpus, checkpointing=training.chosen(shape, spec.train, host, corpus).checkpointing)
    planned = {
        one.name: PlannedSeconds(optimistic_s=round(one.optimistic_s, 2), expected_s=round(one.expected_s, 2), pessimistic_s=round(one.pessimistic_s, 2))
        for one in found
        if ": " in one.name
    }
    return spec.model_copy(update={"machine": spec.machine.model_copy(update={"planned": planned})})


def _sum(*parts: Estimate) -> Estimate:
    best, expected, worst = (sum(values) for values in zip(*(part.values for part in parts), strict=True))
    return Estimate(best, expected, worst, "; ".join(dict.fromkeys(part.source for part in parts)))


def transfer(gigabytes: float, host: Machine, share: Estimate) -> Estimate:
    """Seconds of bytes between the bucket and a machine that reaches a share of its network's bandwidth."""
    return share.takes(gigabytes * 8 / host.network_gbps)
