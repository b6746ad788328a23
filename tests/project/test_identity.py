"""What makes a model new: one file of every room is edited, and the ids that change are counted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runners import identity
from runners.cloud import images
from runners.errors import UserError
from runners.pipeline import IMAGES, MAKERS, STAGES
from runners.spec import BaseModelSpec, DatasetSpec, QuantizeSpec, Spec, TrainSpec

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING, NOTHING = {"train", "merge", "head", "quantize"}, set[str]()
AFTER = {"train": EVERYTHING, "merge": {"merge", "head", "quantize"}, "head": {"head"}, "quantize": {"quantize"}}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the project that may be edited."""
    for folder in ("runners", "images", "infra"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("qa", "guides"))
    return tmp_path


def resolved(root: Path, **changes: object) -> Spec:
    spec = Spec(base_model=BaseModelSpec(id="base-1"), dataset=DatasetSpec(id="data-1")).model_copy(update=changes)
    identity.code_digest.cache_clear()
    return identity.with_code(spec, root)


def ids(root: Path, **changes: object) -> dict[str, str]:
    spec = resolved(root, **changes)
    return {stage.name: identity.stage_id(spec, stage.name) for stage in MAKERS}


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("runners/training/loss.py", EVERYTHING),
        ("runners/training/dora.py", EVERYTHING),
        ("runners/training/attention.py", EVERYTHING),
        ("images/train/requirements.lock", EVERYTHING),
        ("runners/training/examples.py", EVERYTHING),
        ("runners/compression/merge.py", AFTER["merge"]),
        ("runners/compression/head.py", AFTER["head"]),
        ("runners/training/eagle.py", AFTER["head"]),
        ("runners/compression/packed_head.py", AFTER["head"]),
        ("runners/compression/quantize.py", AFTER["quantize"]),
        ("runners/compression/awq_autoawq.py", AFTER["quantize"]),
        ("runners/compression/gates.py", AFTER["merge"]),
        ("runners/compression/general.py", AFTER["merge"]),
        ("images/quantize/requirements.lock", AFTER["quantize"]),
        ("runners/planning/prices.yaml", NOTHING),
        ("runners/planning/machines.py", NOTHING),
        ("runners/planning/plan.py", NOTHING),
        ("runners/pages/page.css", NOTHING),
        ("runners/pages/page.py", NOTHING),
        ("runners/corpus/build.py", NOTHING),
        ("runners/evaluation/scoring.py", NOTHING),
        ("runners/commands/cli.py", NOTHING),
        ("runners/commands/stages.py", NOTHING),
        ("runners/cloud/images.py", NOTHING),
        ("runners/local/report.py", NOTHING),
        ("runners/local/run.py", NOTHING),
        ("runners/vm/steps.py", NOTHING),
        ("runners/artifacts/storage.py", NOTHING),
        ("runners/artifacts/registry.py", NOTHING),
        ("runners/profiles/local.yaml", NOTHING),
        ("runners/serving/serve.py", NOTHING),
        ("runners/stages.py", NOTHING),
        ("runners/spec.py", NOTHING),
        ("runners/log.py", NOTHING),
        ("runners/training/DORA.md", NOTHING),
        ("infra/plan.py", NOTHING),
        ("infra/stacks/Pulumi.train-h100.yaml", NOTHING),
        ("images/Dockerfile", NOTHING),
        ("images/serve/requirements.lock", NOTHING),
        ("images/gateway/Caddyfile", NOTHING),
        ("data/taxonomy.yaml", NOTHING),
        ("README.md", NOTHING),
        ("pyproject.toml", NOTHING),
    ],
)
def test_an_edited_file_makes_new_what_depends_on_it_and_nothing_else(tree: Path, file: str, changed: set[str]) -> None:
    before = ids(tree)
    with (tree / file).open("a") as text:
        text.write("\n# edited\n")
    after = ids(tree)
    assert {stage for stage in before if before[stage] != after[stage]} == changed


def test_a_setting_of_a_stage_changes_its_id_and_those_after_it(tree: Path) -> None:
    before, after = ids(tree), ids(tree, train=TrainSpec(rank=64))
    assert all(before[stage] != after[stage] for stage in EVERYTHING)
    after = ids(tree, quantize=QuantizeSpec(group_size=64))
    assert {stage for stage in before if before[stage] != after[stage]} == {"quantize"}


def test_the_other_quantizer_has_the_lock_of_its_own_environment(tree: Path) -> None:
    other = QuantizeSpec(backend="llmcompressor")
    before = ids(tree, quantize=other)
    with (tree / "images/quantize-llmcompressor/requirements.lock").open("a") as text:
        text.write("\n# edited\n")
    assert ids(tree, quantize=other)["quantize"] != before["quantize"]


def test_a_lora_adapter_is_not_called_dora(tree: Path) -> None:
    made = ids(tree, train=TrainSpec(adapter="lora"))
    assert made["train"].startswith("lora-") and made["quantize"].startswith("qlora-")


@pytest.mark.parametrize(
    "file", ["runners/planning/prices.yaml", "runners/pages/page.css", "runners/corpus/build.py", "runners/evaluation/verdict.py", "README.md"]
)
def test_no_image_is_named_after_what_it_does_not_hold(tree: Path, file: str) -> None:
    before = {image: images.content_tag(image, "base", tree) for image in IMAGES}
    with (tree / file).open("a") as text:
        text.write("\n# edited\n")
    assert {image: images.content_tag(image, "base", tree) for image in IMAGES} == before


@pytest.mark.parametrize("image", [image for image in IMAGES if image != "gateway"])
def test_an_image_holds_all_that_its_stages_import(image: str, tmp_path: Path) -> None:
    """Also inside functions; and every module of the context is imported there, with everything else of the project out of reach."""
    for stage in (stage for stage in STAGES if stage.image == image):
        assert set(identity.files(stage.name)) <= set(identity.image_files(image))
    images.context(image, tmp_path)
    assert not (tmp_path / "runners" / "corpus").exists() and not (tmp_path / "runners" / "planning").exists()
    modules = [file.relative_to(tmp_path).with_suffix("").as_posix().replace("/", ".") for file in sorted((tmp_path / "runners").rglob("*.py"))]
    heavy = ("torch", "transformers", "peft", "safetensors", "awq")
    program = (
        "import importlib, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"for name in {modules!r}:\n"
        "    if name.endswith(('__init__', '__main__')): continue\n"
        "    try: importlib.import_module(name)\n"
        f"    except ModuleNotFoundError as error:\n        if error.name.split('.')[0] not in {heavy!r}: raise\n"
        "import runners; assert runners.__file__.startswith(sys.path[0]), runners.__file__\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)


def test_an_image_of_other_code_refuses_to_work(tree: Path) -> None:
    spec = resolved(ROOT)
    identity.verify_code(spec, "train")
    with (tree / "runners/training/loss.py").open("a") as text:
        text.write("\n# edited\n")
    identity.code_digest.cache_clear()
    with pytest.raises(UserError, match="other code for train"):
        identity.verify_code(spec, "train", tree)
    identity.verify_code(spec, "quantize", tree)
