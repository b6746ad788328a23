"""The table of stops in infra/README.md, played by tests/vm/stops.py.

.venv/bin/python -m tests.vm.stops_table
"""

from __future__ import annotations

from tests.vm.scenarios import SCENARIOS
from tests.vm.stops import ROOT, STOPS, World


def table(results: dict[str, dict[str, World]] | None = None) -> list[str]:
    """Rows of Markdown: every scenario with all stops ("all"), then with each of them alone; played here unless they are given."""
    head = " | ".join(f"{stop} alone" for stop in STOPS)
    rows = [f"| scenario | ended by | billed min | VMs | {head} |", f"|---|---|---:|---:|{'---:|' * len(STOPS)}"]
    for scenario in SCENARIOS:
        found = (results or {}).get(scenario.name, {})
        every = found.get("all") or World(scenario).run()
        alone = [found.get(stop) or World(scenario, (stop,)).run() for stop in STOPS]
        figures = " | ".join(_figure(world) for world in alone)
        rows.append(f"| {scenario.name} | {every.ended_by} | {every.minutes} | {len(every.vms)} | {figures} |")
    return rows


def _figure(world: World) -> str:
    if world.minutes is not None:
        return str(world.minutes)
    return f"{world.machine.max_run_minutes} a VM" if world.stops == ("platform",) and world.machine else "–"


def main() -> None:
    file = ROOT / "infra/README.md"
    text = file.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index("<!-- end -->", text.index(BEGIN))
    file.write_text(text[:begin] + "\n".join(["", *table(), ""]) + text[end:])


BEGIN = "<!-- python -m tests.vm.stops_table -->"

if __name__ == "__main__":
    main()
