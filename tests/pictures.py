"""The pictures and the figures of the README, from a real run on this machine; nothing is drawn or typed by hand.

.venv/bin/python -m tests.pictures .elson [NOTE]        after `make demo`; NOTE: what was special about the machine, e.g. "8 busy processes beside it"
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import sys
import time
from pathlib import Path
from typing import Any

from runners.pages import page, svg
from tests.browser import Browser

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / ".github" / "pictures"
COLUMNS = 100
#: The newest run of each kind of machine: {machine: {"date": ISO, "peak_gib": x, "stages": {stage: [seconds, processor seconds]}}}.
RECORD = ROOT / "tests" / "benchmarks" / "demo.json"
#: A row of the README's tables: its phases (a regular expression).
STAGES = {
    "base model made and published, dataset built": "base|data",
    "train": "train",
    "merge": "merge",
    "quantize": "quantize",
    "serve: until the first completion": "serve: .*",
    "evaluate": "evaluate",
    "base and tuned beside it": r"(base|tuned): .*|evaluate (base|tuned).*",
    "together": ".*",
}


def main(home: Path, note: str = "") -> None:
    """Write every picture and the README's tables of runs."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "architecture.svg").write_text(architecture())
    summaries = sorted((home / "runs").glob("local-*/summary.json"), key=lambda file: file.stat().st_mtime)
    assert summaries, f"no finished run in {home / 'runs'}: make demo makes one"
    summary = json.loads(summaries[-1].read_text())
    elson = str(ROOT / ".venv" / "bin" / "elson")
    commands = [[elson, "plan", "-s", "train-h100", "--offline"], [elson, "run", "--profile", "local", "--home", str(home)]]
    (OUT / "terminal.svg").write_text(recording(commands))
    with Browser() as browser:
        for dark in (False, True):
            name = "dark" if dark else "light"
            _picture(browser, summaries[-1].parent / "report.html", OUT / f"report-{name}.png", dark=dark)
    readme = ROOT / "README.md"
    machine = f"{cpu()}; {note}" if note else cpu()
    record = json.loads(RECORD.read_text()) | {machine: recorded(summary)}
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    readme.write_text(with_table(readme.read_text(), f"{run_table(summary, machine)}\n\n{machines_table(record)}"))


def _compared(summary: dict[str, Any]) -> str:
    """The verdicts of a run on its training."""
    found = summary["compared"]
    return found if isinstance(found, str) else "; ".join(f"{one['model']} against {one['against']} {one['verdict']}" for one in found)


def recorded(summary: dict[str, Any]) -> dict[str, Any]:
    """A run as the record keeps it."""
    stages = {}
    for stage, names in STAGES.items():
        found = [phase for phase in summary["phases"] if re.fullmatch(names, phase["name"])]
        stages[stage] = [round(sum(one["seconds"] for one in found), 1), round(sum(one["processor_s"] for one in found))]
    return {"date": summary["finished_at"][:10], "peak_gib": round(max(summary["peak_mib"].values(), default=0.0) / 1024, 1), "stages": stages}


def machines_table(record: dict[str, Any]) -> str:
    """The same job on every kind of machine that it was run on: time, and processor seconds."""
    lines = [" | ".join(["| stage", *(f"{name}, {run['date']}" for name, run in record.items())]) + " |", "|---" * (len(record) + 1) + "|"]
    for stage in STAGES:
        cells = [f"{page.duration(run['stages'][stage][0])}, {run['stages'][stage][1]:,} s" for run in record.values()]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def run_table(summary: dict[str, Any], machine: str) -> str:
    """What a run said, as the README has it."""
    train, run = summary["training"], recorded(summary)

    def row(stage: str, said: str = "") -> str:
        seconds, processor_s = run["stages"][stage]
        return f"| {stage}{said and ': ' + said} | {page.duration(seconds)} | {processor_s:,} |"

    gates: dict[str, list[str]] = {}
    for gate in summary["gates"]:
        gates.setdefault(gate["stage"], []).append(f"{gate['name']} {gate['value']:.3g} ({gate['rule']} {gate['bound']:.3g})")
    lines = [
        "| stage | time | processor seconds |",
        "|---|---|---|",
        row("base model made and published, dataset built"),
        row("train", f"{train['examples']} pairs, {train['steps']} steps; validation loss **{train['before']:.3f} → {train['after']:.3f}**"),
        *(row(stage, "; ".join(said)) for stage, said in gates.items() if stage in ("merge", "quantize")),
        row("serve: until the first completion"),
        row("evaluate", summary["evaluation"]["line"].removeprefix("elson evaluate: ").replace("|", ";")),
        row("base and tuned beside it", _compared(summary)),
        row("together"),
    ]
    return "\n".join([*lines, "", f"Run of {run['date']} on {machine}; peak memory {run['peak_gib']:.1f} GiB. On each kind of machine it was run on:"])


def with_table(text: str, table: str) -> str:
    """The README with this table between its marks."""
    return re.sub(r"(<!-- tests\.pictures -->\n).*?(<!-- end -->)", lambda found: f"{found[1]}{table}\n{found[2]}", text, count=1, flags=re.DOTALL)


def cpu() -> str:
    """The processor, its cores, whether it has bf16 units, and whether this environment holds torch and oneDNN below them."""
    info = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", info)
    flags = set(re.search(r"flags\s*: (.*)", info)[1].split()) if "flags" in info else set()  # type: ignore[index]
    units = "AMX" if "amx_bf16" in flags else "AVX512_BF16" if "avx512_bf16" in flags else "AVX2"
    if held := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        units += f", held to {held}"
    return f"{name[1].strip() if name else 'a processor'} ({os.cpu_count()} cores, {units})"


def recording(commands: list[list[str]]) -> str:
    """A terminal with the last screen of each command, as it really was."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=Path(os.devnull).open("w"))  # noqa: SIM115 - rich writes until the process ends
    for command in commands:
        console.print(Text(f"$ elson {' '.join(argument for argument in command[1:] if not argument.startswith(str(ROOT)))}", style="bold"))
        for line in _screen(command):
            console.print(Text.from_ansi(line.replace(f"{ROOT}/", "")), overflow="fold")
        console.print()
    drawn = console.export_svg(title="elson")
    return re.sub(r"<!--.*?-->|@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # no font is fetched from elsewhere


def _screen(command: list[str], rows: int = 24) -> list[str]:
    """What a terminal shows when the command has ended: lines that were drawn over are gone."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES="40")
        os.execv(command[0], command)
    text, end = b"", time.monotonic() + 600
    while time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            try:
                block = os.read(terminal, 1 << 16)
            except OSError:
                break
            if not block:
                break
            text += block
    os.waitpid(pid, 0)
    lines: list[str] = []
    for line in text.decode(errors="replace").replace("\r\n", "\n").split("\n"):
        shown = re.sub(r"\x1b\[[0-9;?]*[A-HJKfhl]", "", line.split("\r")[-1])
        if shown.strip():
            lines.append(shown)
    return lines[-rows:]


def architecture() -> str:
    """Who does what where, light and dark."""
    boxes = {
        "data": (8, 60, 236, 96, "your documents and pairs", "elson data build", "checked, deduplicated, no leaks"),
        "bucket": (312, 60, 212, 96, "buckets (kept)", "datasets, models, records", "content ids, verified"),
        "train": (592, 16, 260, 84, "train-h100: one spot H100", "DoRA, merge, AWQ, gates", "deletes itself"),
        "serve": (592, 116, 260, 84, "serve-l4: one L4", "gateway, vLLM, a key", "deletes itself when idle"),
        "you": (8, 216, 236, 84, "you", "elson plan, up, status, view", "evaluate, compare, promote"),
        "guards": (
            290,
            216,
            550,
            84,
            "what stops spending, each by itself",
            "the machine, a timer in it, the platform's limit,",
            "a watchdog outside, the budget",
        ),
    }
    links = (("data", "bucket"), ("bucket", "train"), ("bucket", "serve"), ("you", "data"), ("you", "guards"), ("guards", "serve"))
    style = (
        "svg{--ink:#1a1f26;--soft:#59636e;--line:#9aa5b1;--raised:#f6f7f9}"
        "@media(prefers-color-scheme:dark){svg{--ink:#e8ecf1;--soft:#a3adb8;--line:#5b6875;--raised:#1b2129}}"
        "text{font:14px system-ui,sans-serif;fill:var(--ink)}.soft{fill:var(--soft);font-size:13px}.name{font-weight:600}"
        ".box{fill:var(--raised);stroke:var(--line)}.arrow{fill:none;stroke:var(--line);stroke-width:1.6}"
    )
    parts = []
    for start, end in links:
        (x1, y1, w1, h1, *_), (x2, y2, w2, h2, *_) = boxes[start], boxes[end]
        if x1 + w1 <= x2:
            route, head = f"M{x1 + w1} {y1 + h1 / 2}C{x1 + w1 + 40} {y1 + h1 / 2} {x2 - 46} {y2 + h2 / 2} {x2 - 6} {y2 + h2 / 2}", "m-3 -5l9 5l-9 5"
        else:
            middle = x1 + w1 / 2 if start == "you" else x2 + w2 / 2
            route, head = f"M{middle} {y1}L{middle} {y2 + h2 + 6}", "m-5 3l5 -9l5 9"
        parts.append(svg.path(route + head, "arrow"))
    for x, y, width, height, name, first, second in boxes.values():
        lines = ((y + 26, name, "name"), (y + 48, first, ""), (y + 68, second, "soft"))
        parts.append(svg.rect(x, y, width, height, "box") + "".join(svg.text(x + 12, line, said, kind=kind) for line, said, kind in lines))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 316" role="img" aria-label="How elson works: data and models in buckets, '
        f'one machine that trains, one that serves, and what stops them"><style>{style}</style>{"".join(parts)}</svg>\n'
    )


def _picture(browser: Browser, file: Path, out: Path, *, dark: bool) -> None:
    """The first screen of a page."""
    import base64

    browser.open(file, width=1200, height=820, dark=dark)
    out.write_bytes(base64.b64decode(browser.call("Page.captureScreenshot")["data"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
