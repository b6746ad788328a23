"""From what the doctor misses to what ``elson up`` builds, in order, with time and dollars; and what only a person can give. Pure.

Each step is a command that a person could run too, so ``elson up --dry-run`` prints the long way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runners.cloud.doctor import GLOBAL_GPUS, Finding
from runners.planning.parts import Plan
from runners.planning.session import BAKED_BOOT_S, boot
from runners.spec import Spec

#: Baking: half an hour of a small VM and its disk; a month of the image, about 20 GB. By arithmetic, not measured.
BAKE_USD, BAKE_MINUTES, IMAGE_USD_PER_MONTH = 0.10, 15, 1.0


@dataclass(frozen=True)
class BuildStep:
    """One command: ``elson`` and its words; ``("up", "foundation")`` is the stack everything else needs."""

    call: tuple[str, ...]
    why: str
    minutes: float
    usd: float = 0.0

    def __str__(self) -> str:
        money = f", about ${self.usd:.2f}" if self.usd else ""
        return f"elson {' '.join(self.call)}   ({self.why}; about {self.minutes:g} min{money})"


@dataclass(frozen=True)
class Needs:
    """Steps that ``up`` takes, and findings that it cannot do anything about."""

    steps: tuple[BuildStep, ...]
    blockers: tuple[Finding, ...]


def needed(findings: Sequence[Finding], spec: Spec, project: str, region: str, *, unresolved: bool) -> Needs:
    """Sort what is missing into steps and blockers.

    Args:
        findings: the doctor's.
        spec: the stack's.
        project: where it runs.
        region: where images are built.
        unresolved: a base image has no digest yet.
    """
    missing = [finding for finding in findings if not finding.ok and not finding.needs]
    waiting = {finding.name for finding in findings if finding.needs and finding.after_foundation}
    names = {finding.name for finding in missing}

    def lacks(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in names | waiting)

    steps = []
    if any(name.startswith(("API ", "bucket ")) and name != "API key" for name in names):
        steps.append(BuildStep(("up", "foundation"), "buckets, registry, network, accounts, budget", 5))
    role = spec.machine.role if spec.machine else "foundation"
    if role == "serve" and lacks("API key"):
        steps.append(BuildStep(("key", "rotate", "--project", project), "the servers' key", 0.1))
    images = sorted({name.removeprefix("image ") for name in names if name.startswith("image ")})
    if images and role != "foundation":
        if unresolved:
            steps.append(BuildStep(("images", "resolve"), "the digests of the base images", 0.1))
        steps.append(
            BuildStep(
                ("images", "build", *images, "--project", project, "--region", region), "the containers, in Cloud Build", 12 * len(images), 0.25 * len(images)
            )
        )
    if role == "train" and lacks("dataset"):
        steps.append(BuildStep(("data", "build", "--publish", "--name", spec.dataset.name), "the dataset", 2))
    if role == "train" and lacks("base model") and spec.base_model.source:
        steps.append(_base_model(spec, spec.base_model.source, region))
    built = ("API ", "bucket ", "image ", "dataset", *(("base model",) if spec.base_model.source else ()))
    blockers = [finding for finding in missing if not finding.name.startswith(built)]
    # One place with a quota is enough; the watchdog goes past those without.
    if any(finding.ok and finding.name.startswith("quota ") and not finding.name.endswith(GLOBAL_GPUS) for finding in findings):
        blockers = [finding for finding in blockers if not finding.name.startswith("quota ") or finding.name.endswith(GLOBAL_GPUS)]
    if role == "foundation":
        steps, blockers = [], [finding for finding in blockers if not finding.name.startswith("quota")]
    return Needs(tuple(steps), tuple(blockers))


def _base_model(spec: Spec, source: str, region: str) -> BuildStep:
    in_cloud = ("--in-cloud", "--region", region) if source.startswith("hf:") else ()
    return BuildStep(("base", "publish", spec.base_model.name, "--from", source, *in_cloud), "the base model, once; its licence is kept beside it", 15, 0.1)


def bake(plan: Plan, stack: str, project: str, zone: str, image: str) -> BuildStep | None:
    """A boot image, where one boot saves more than it costs; None when it is there already, or is not worth it.

    Args:
        plan: the stack's.
        stack: its name.
        project: where the image is kept.
        zone: where the small VM runs.
        image: the name that an image of the present containers has.
    """
    if plan.wanted.image_is_baked and plan.wanted.image == image:
        return None
    unbaked = plan.wanted.model_copy(update={"image_is_baked": False})
    saved_s = sum(phase.expected_s for phase in boot(unbaked)) - BAKED_BOOT_S.expected
    saved_usd = saved_s / 3600 * plan.money.usd_per_hour
    if saved_usd <= BAKE_USD:
        return None
    why = f"a boot image: {saved_s / 60:.0f} min and ${saved_usd:.2f} less at every boot; about ${IMAGE_USD_PER_MONTH:.0f} a month while it is kept"
    weights = ("--weights",) if plan.wanted.baked_model else ()
    return BuildStep(("images", "bake", "-s", stack, "--project", project, "--zone", zone, *weights), why, BAKE_MINUTES, BAKE_USD)
