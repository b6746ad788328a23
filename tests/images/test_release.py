"""What a release is made of: locks that are made again with the index's hashes, bills of materials that name all of it, an audit that asks about all of it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from runners.cloud import images, release
from runners.commands.images import images as command
from runners.errors import Temporary, UserError
from runners.installation import locks, uv
from runners.installation.failure import InstallationError
from runners.spec import EnvironmentDigests, Spec
from runners.stages import provenance

ROOT = images.ROOT


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def wheel(folder: Path, name: str, version: str, needs: str = "", tag: str = "py3-none-any") -> Path:
    file = folder / f"{name}-{version}-{tag}.whl"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (f"Requires-Dist: {needs}\n" if needs else "")
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(f"{name}-{version}.dist-info/METADATA", about)
        made.writestr(f"{name}-{version}.dist-info/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        made.writestr(f"{name}-{version}.dist-info/RECORD", "")
    return file


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[uv.Uv, Path]]:
    """uv, with a folder of three wheels as all the world."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for made in (("alpha", "1.0", "beta"), ("alpha", "2.0", "beta"), ("beta", "1.5")):
        wheel(folder, *made)
    tool = uv.Uv()
    tool.settings = {"no-index": ["1"]}
    tool.environment = locks.published_only(tool.environment) | {"UV_FIND_LINKS": str(folder), "UV_CACHE_DIR": str(tmp_path / "cache")}
    yield tool, folder


def test_every_lock_of_the_repository_is_made_by_the_command() -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout.split()
    there = {file for file in listed if file.endswith(".lock") or re.search(r"infra/functions/.*/requirements\.txt$", file)}
    assert there and there == set(release.lock_files())


def test_every_line_of_every_lock_has_hashes_and_every_direct_requirement_is_locked() -> None:
    for lock in locks.locks():
        found = release.packages((ROOT / lock.file).read_text())
        if "==" not in lock.source:
            wanted = {re.split(r"[=<>~;\s\[]", line)[0] for line in (ROOT / lock.source).read_text().splitlines() if re.match(r"[A-Za-z]", line)}
            assert {name.lower() for name in wanted} <= set(found), lock.file


def test_a_lock_is_made_with_the_index_s_hashes_and_the_old_versions(index: tuple[uv.Uv, Path], tmp_path: Path) -> None:
    tool, folder = index
    (tmp_path / "r.in").write_text("alpha; sys_platform != 'plan9'\n")
    lock = locks.Lock("r.lock", str(tmp_path / "r.in"))
    (tmp_path / "r.lock").write_text(f"# Why it is here.\nalpha==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    assert locks.make(tool, lock, [], tmp_path), "a wrong hash is replaced"
    text = (tmp_path / "r.lock").read_text()
    assert text.startswith("# Why it is here.\nalpha==1.0 ; sys_platform != 'plan9' \\\n")
    assert release.packages(text) == {
        "alpha": ("1.0", [sha256(folder / "alpha-1.0-py3-none-any.whl")]),
        "beta": ("1.5", [sha256(folder / "beta-1.5-py3-none-any.whl")]),
    }
    assert not locks.make(tool, lock, [], tmp_path), "made twice, it is the same"
    wheel(folder, "beta", "1.6")
    assert locks.make(tool, lock, ["alpha"], tmp_path)
    assert {name: version for name, (version, _) in release.packages((tmp_path / "r.lock").read_text()).items()} == {"alpha": "2.0", "beta": "1.5"}
    assert locks.make(tool, lock, ["*"], tmp_path)
    assert release.packages((tmp_path / "r.lock").read_text())["beta"][0] == "1.6"
    before = (tmp_path / "r.lock").read_text()
    (tmp_path / "r.in").write_text("gamma\n")
    with pytest.raises(InstallationError, match=r"r\.lock could not be made"):
        locks.make(tool, lock, [], tmp_path)
    assert (tmp_path / "r.lock").read_text() == before, "a failure leaves the lock"


def test_local_wheels_and_further_indexes_are_no_source_of_a_lock() -> None:
    mine = {"UV_FIND_LINKS": "/wheels", "UV_INDEX": "https://mine", "UV_DEFAULT_INDEX": "https://mirror", "PATH": "/bin"}
    assert locks.published_only(mine) == {"UV_DEFAULT_INDEX": "https://mirror", "PATH": "/bin", "UV_NO_CONFIG": "1"}


def test_the_lock_of_the_cpu_build_is_read_from_pytorch_s_index(server: tuple[str, Any], tmp_path: Path) -> None:
    url, handler = server
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "images" / "train" / "requirements.in").write_text("torch==9.9.9\n")
    file = tmp_path / "images" / "torch-cpu.lock"
    file.write_text("# Kept.\ntorch==9.9.9+cpu \\\n    --hash=sha256:0\n")
    link = '<a href="/whl/torch-9.9.9%2Bcpu-cp3{0}-cp3{0}-{1}.whl#sha256={2}">x</a>\n'
    handler.page = "".join(link.format(n, tag, c * 64) for n, c in ((11, "a"), (12, "b"), (13, "c")) for tag in ("win_amd64", "manylinux_2_28_x86_64"))
    assert locks.make_cpu_torch(url, tmp_path) is True and locks.make_cpu_torch(url, tmp_path) is False
    assert file.read_text().startswith("# Kept.\n") and release.packages(file.read_text()) == {"torch": ("9.9.9+cpu", ["a" * 64, "b" * 64, "c" * 64])}
    assert locks.make_cpu_torch("http://127.0.0.1:9/", tmp_path) is None, "unreachable: the lock of this version stays"
    (tmp_path / "images" / "train" / "requirements.in").write_text("torch==9.9.10\n")
    with pytest.raises(InstallationError, match="no CPU wheel"):
        locks.make_cpu_torch(url, tmp_path)
    with pytest.raises(InstallationError, match="cannot be reached"):
        locks.make_cpu_torch("http://127.0.0.1:9/", tmp_path)


def test_a_line_without_a_hash_is_refused() -> None:
    for line in ("click==8.1", "click>=8 --hash=sha256:" + "0" * 64, "git+https://example.com/x.git"):
        with pytest.raises(UserError, match="make locks"):
            release.packages(line + "\n")


def test_bills_name_every_package_base_and_digest(tmp_path: Path) -> None:
    from cyclonedx.model.bom import Bom

    done = CliRunner().invoke(command, ["sbom", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    texts = {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}
    assert len(texts) == len(release.lock_files()) + len(release.IMAGES)
    for text in texts.values():
        parsed = json.loads(text)
        assert (parsed["bomFormat"], parsed["specVersion"]) == ("CycloneDX", "1.6")
        assert re.match(r"[0-9a-f]{40}", {row["name"]: row["value"] for row in parsed["metadata"]["component"]["properties"]}["elson:commit"])
        Bom.from_json(parsed)  # type: ignore[attr-defined]
    parsed = json.loads(texts["image-train.cdx.json"])
    content = release.packages((ROOT / "images" / "train" / "requirements.lock").read_text())
    listed = {part["name"]: (part["version"], sorted(row["content"] for row in part["hashes"])) for part in parsed["components"] if part["type"] == "library"}
    assert listed == {name: (version, sorted(hashes)) for name, (version, hashes) in content.items()}
    lock = json.loads(texts["train-requirements-lock.cdx.json"])
    assert {"name": "elson:lock-sha256", "value": sha256(ROOT / "images/train/requirements.lock")} in lock["metadata"]["component"]["properties"]
    bases = yaml.safe_load(images.BASES.read_text())
    for base in bases.values():
        base["digest"] = "sha256:" + "d" * 64
    (tmp_path / "bases.yaml").write_text(yaml.safe_dump(bases))
    found = release.bills(digests={"gateway": "registry/gateway@sha256:" + "e" * 64}, bases=tmp_path / "bases.yaml")
    gateway = json.loads(found["image-gateway.cdx.json"])
    (base,) = gateway["components"]
    assert (base["version"], base["hashes"][0]["content"]) == (bases["caddy"]["tag"], "d" * 64) and "sha256" in base["purl"]
    assert {"name": "elson:image", "value": "registry/gateway@sha256:" + "e" * 64} in gateway["metadata"]["component"]["properties"]
    assert sum(part["type"] == "container" for part in json.loads(found["image-serve.cdx.json"])["components"]) == 2, "Python and NVIDIA's base"


class Osv(BaseHTTPRequestHandler):
    """The two services: OSV, which knows one vulnerability, and a page of an index."""

    asked: list[tuple[str, str]]
    known: dict[str, list[dict[str, Any]]]
    page = ""
    status = 200

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = query["package"]["name"]
        type(self).asked.append((name, query["version"]))
        self._answer(json.dumps({"vulns": self.known.get(name, [])} if name in self.known else {}))

    def do_GET(self) -> None:
        self._answer(self.page)

    def _answer(self, text: str) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, Any]]:
    handler = type("Fresh", (Osv,), {"asked": [], "known": {}})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/", handler
    httpd.shutdown()
    httpd.server_close()


def test_two_versions_of_a_package_are_both_asked_about() -> None:
    one, two = {"a": ("1", ["x"]), "b": ("1", ["x"])}, {"a": ("2", ["x"]), "b": ("1", ["x"]), "c": ("3", ["x"])}
    assert [{name: version for name, (version, _) in found.items()} for found in release.rounds([one, two])] == [{"a": "1", "b": "1", "c": "3"}, {"a": "2"}]
    named = [release.packages((ROOT / file).read_text()) for file in release.lock_files()]
    pairs = [(name, version) for found in release.rounds(named) for name, (version, _) in found.items()]
    assert len(pairs) == len(set(pairs)) and set(pairs) == {(name, version) for found in named for name, (version, _) in found.items()}


def test_the_audit_asks_about_every_package_and_fails_on_a_known_vulnerability(server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    url, handler = server
    monkeypatch.setattr(release, "lock_files", lambda root=ROOT: ["infra/functions/stop/requirements.txt", "tests/requirements.lock"])
    version = release.packages((ROOT / "infra/functions/stop/requirements.txt").read_text())["jinja2"][0]
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999"}]}]
    affected = [{"package": {"name": "jinja2", "ecosystem": "PyPI"}, "ranges": ranges, "versions": [version]}]
    handler.known = {"jinja2": [{"id": "GHSA-test-test-test", "aliases": [], "summary": "A hole.", "affected": affected, "published": "2026-01-01T00:00:00Z"}]}
    done = CliRunner().invoke(command, ["audit", "--url", url, "--json"])
    assert done.exit_code == 1, done.output
    every = {(name, version) for file in release.lock_files() for name, (version, _) in release.packages((ROOT / file).read_text()).items()}
    assert {(name.lower().replace("_", "-"), version) for name, version in handler.asked} == {(name.lower(), version) for name, version in every}
    answer = json.loads(done.stdout)
    assert answer["packages"] == len(every)
    found = next(row for row in answer["found"] if row["version"] == version)
    assert (found["package"], found["id"], found["fixed in"]) == ("jinja2", "GHSA-test-test-test", "999") and found[
        "in"
    ] == "infra/functions/stop/requirements.txt"
    assert CliRunner().invoke(command, ["audit", "--url", url, "--ignore", "GHSA-test-test-test"]).exit_code == 0


def test_a_database_that_does_not_answer_is_temporary_and_never_a_clean_bill(server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "lock_files", lambda root=ROOT: ["tests/requirements.lock"])
    with pytest.raises(Temporary, match="does not answer"):
        release.audit(url="http://127.0.0.1:9/")
    server[1].status = 503
    with pytest.raises(Temporary, match="does not answer"):
        release.audit(url=server[0])


def test_ci_makes_the_locks_the_bills_and_the_audit() -> None:
    workflow, targets = yaml.safe_load((ROOT / ".github/workflows/test.yaml").read_text()), (ROOT / "Makefile").read_text()
    runs = [step["run"] for step in workflow["jobs"]["release"]["steps"] if "run" in step]
    assert [name for run in runs for name in re.findall(r"make (\w+)", run)] == ["locks", "sbom", "audit"]
    for name in ("locks", "sbom", "audit"):
        assert re.search(rf"(?m)^{name}:", targets), name


def test_the_functions_packages_have_hashes_and_pip_is_not_told_to_skip_them() -> None:
    for file in sorted((ROOT / "infra" / "functions").glob("*/requirements.txt")):
        content = release.packages(file.read_text())
        assert "functions-framework" in content and all(len(value) == 64 for _, hashes in content.values() for value in hashes)


def test_a_record_says_which_lock_and_image_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    image = "registry/train@sha256:" + "a" * 64
    spec = Spec(environments=EnvironmentDigests(train=image))
    monkeypatch.delenv("ELSON_COMMIT", raising=False)
    at_home = provenance(spec, "merge")
    assert (at_home["lock"], at_home["lock_sha256"]) == ("train/requirements.lock", sha256(ROOT / "images/train/requirements.lock")) and at_home[
        "image"
    ] is None
    monkeypatch.setenv("ELSON_COMMIT", "c" * 40)
    in_a_container = provenance(spec, "merge")
    assert (in_a_container["commit"], in_a_container["image"]) == ("c" * 40, image)
