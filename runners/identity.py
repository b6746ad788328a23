"""What a stage is and what its id holds: its inputs, its spec, its lock, and the files it imports; nothing else.

The same rule at home and in the cloud. A file counts when the stage's module reaches it by an import, found by reading the code, so a
price table, a page, the corpus tools, the evaluation or the serving never make a finished model "new", and the loss always does.
The shared words (``SHARED``) are left out: a setting reaches a stage as a value of its spec, and the spec's values are in the id already.
A container image holds the files of its stages and of the frame around them (``image_files``), no others.

    python3 -c "from runners import identity; print(*identity.files('train'), sep='\\n')"
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runners.errors import UserError
from runners.outside import digest
from runners.pipeline import FRAME, MAKERS, STAGE, STAGES, Kind
from runners.spec import CodeDigests, Spec

ROOT = Path(__file__).resolve().parent.parent
#: Release 0.1 took every file of ``runners`` into an image's name and so into the ids; a registry entry says which rule made its id.
RULE = 2
#: Declarations, messages, logging, processes: imported everywhere, and without influence on a number but through the spec's values.
SHARED = frozenset({"runners.spec", "runners.errors", "runners.log", "runners.outside", "runners.processes", "runners.pipeline", "runners.identity"})


def kind_of(spec: Spec, stage: str) -> Kind:
    """The kind of artifact a stage of a spec publishes."""
    adapter = spec.train.adapter
    kinds: dict[str, Kind] = {"train": adapter, "merge": "merged", "head": "eagle3", "quantize": "qdora" if adapter == "dora" else "qlora"}
    return kinds[stage]


def stage_id(spec: Spec, stage: str) -> str:
    """Id of what a stage of a resolved spec makes: ``train``, ``merge``, ``head`` or ``quantize``. Raises UserError when the spec is not resolved."""
    inputs = {"train": _training_inputs, "merge": _merge_inputs, "head": _head_inputs, "quantize": _quantize_inputs}[stage](spec)
    return f"{kind_of(spec, stage)}-{digest([stage, *inputs, _need(getattr(spec.code, stage), f'code.{stage}')])}"


def model_name(spec: Spec, stage: str) -> str:
    """The registry name a stage publishes under: the spec's, or one derived from the id."""
    field = STAGE[stage].published_as
    return (getattr(spec.names, field) if field else None) or f"{spec.profile}-{stage_id(spec, stage)}"


def with_code(spec: Spec, root: Path = ROOT) -> Spec:
    """The spec with the digest of each stage's code in it, as these files have it."""
    return spec.model_copy(update={"code": CodeDigests(**{stage.name: code_digest(stage.name, root, backend=spec.quantize.backend) for stage in MAKERS})})


def verify_code(spec: Spec, stage: str, root: Path = ROOT) -> None:
    """Raise UserError when the files that run here are not those the spec was resolved with (an image of another commit)."""
    here = code_digest(stage, root, backend=spec.quantize.backend)
    if here != getattr(spec.code, stage):
        raise UserError(
            f"this machine has other code for {stage} ({here}) than the spec was resolved with ({getattr(spec.code, stage)})",
            "an image of the same files, so that the id says what ran",
            "elson images build, then pulumi up",
        )


@functools.cache
def code_digest(stage: str, root: Path = ROOT, *, backend: str = "autoawq") -> str:
    """16 hex digits over a stage's lock and the files it imports."""
    content = hashlib.sha256()
    for file in (lock_file(stage, root, backend), *files(stage, root)):
        content.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return content.hexdigest()[:16]


def lock_file(stage: str, root: Path = ROOT, backend: str = "autoawq") -> Path:
    """The lock whose packages a stage runs on. The other quantizer has an environment of its own."""
    image = "quantize-llmcompressor" if stage == "quantize" and backend == "llmcompressor" else STAGE[stage].image
    return root / "images" / image / "requirements.lock"


def files(stage: str, root: Path = ROOT) -> list[Path]:
    """The files of ``runners`` that a stage's numbers depend on, in a fixed order."""
    return _paths(_reached([STAGE[stage].module], root) - SHARED, root)


def image_files(image: str, root: Path = ROOT) -> list[Path]:
    """The files of ``runners`` that an image is made of: its stages, the frame, and what these import; with the packages' own ``__init__``.

    The frame leads to every stage, so it is followed up to them; a stage is followed all the way, into another one too (a server merges an adapter).
    """
    own = [stage.module for stage in STAGES if stage.image == image]
    modules = _reached(FRAME, root, without=[stage.module for stage in STAGES]) | _reached(own, root)
    packages = {".".join(module.split(".")[:depth]) for module in modules for depth in range(1, module.count(".") + 1)}
    return _paths(modules | packages, root)


def _reached(roots: Iterable[str], root: Path, without: Iterable[str] = ()) -> set[str]:
    """Every module of ``runners`` that ``roots`` import, directly or not, but ``without``."""
    skipped, found, todo = set(without), set[str](), list(roots)
    while todo:
        module = todo.pop()
        if module in found or module in skipped:
            continue
        found.add(module)
        todo += _imports(_file(module, root), root)
    return found


def _imports(file: Path, root: Path) -> list[str]:
    """Modules of ``runners`` a file imports, at its top or inside a function; imports for type checkers only are not made when it runs."""
    found = []
    for node in _run_nodes(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("runners.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "runners":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append(inner if _file(inner, root).exists() else str(node.module))
    return [name for name in found if _file(name, root).name != "__init__.py"]


def _run_nodes(node: ast.AST) -> Iterable[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _run_nodes(child)


def _file(module: str, root: Path) -> Path:
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _paths(modules: Iterable[str], root: Path) -> list[Path]:
    return sorted(_file(module, root) for module in modules)


def _training_inputs(spec: Spec) -> list[Any]:
    return [
        _need(spec.base_model.id, "base_model.id"),
        _need(spec.dataset.id, "dataset.id"),
        spec.train.model_dump(mode="json"),
        spec.chat.model_dump(mode="json"),
    ]


def _merge_inputs(spec: Spec) -> list[Any]:
    return [stage_id(spec, "train"), spec.merge.model_dump(mode="json", exclude={"publish"})]


def _head_inputs(spec: Spec) -> list[Any]:
    return [stage_id(spec, "merge"), spec.head.model_dump(mode="json") if spec.head else None]


def _quantize_inputs(spec: Spec) -> list[Any]:
    return [stage_id(spec, "merge"), spec.quantize.model_dump(mode="json")]


def _need(value: str | None, key: str) -> str:
    if value is None:
        raise UserError(f"the spec is not resolved: {key} is missing", "an id", "pass the spec that `elson plan` or `elson run` wrote")
    return value
