"""One process of a training in several: started by ``torch.distributed.run``, once a card. Each writes what the parent reads, then ends at once.

python -m torch.distributed.run --standalone --nproc-per-node 2 -m runners.training.worker SPEC BASE DATASET WORK [RESUME]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from runners import log
from runners.errors import UserError
from runners.spec import load
from runners.training import ranks
from runners.training.train import train

#: Beside the adapter, one a process: metrics and phases, or what stopped it.
RESULT = "training-result-{rank}.json"


def main(arguments: list[str]) -> int:
    """Train, and write ``WORK/training-result-RANK.json``; a line on stdout for each checkpoint."""
    spec_file, base, dataset, work, *resume = map(Path, arguments)
    team = ranks.join()
    log.configure("train" if team.first else f"train {team.rank}")
    try:
        result = train(load(spec_file), base, dataset, work, save_checkpoint=_told, resume=resume[0] if resume else None)
        found: dict[str, Any] = {"metrics": result.metrics, "phases": [phase.model_dump() for phase in result.phases]}
        code = 0
    except UserError as error:
        log.error(error.found, expected=error.expected, fix=error.fix, rank=team.rank)
        found = {"error": [error.found, error.expected, error.fix], "stopped": error.exit_code == 143}
        code = error.exit_code
    file = work / RESULT.format(rank=team.rank)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(found))
    partial.rename(file)
    if not code:
        team.wait()  # a process that ends before the others have written looks like one that died
    ranks.leave()
    return code


def _told(step: int, folder: Path) -> None:
    sys.stdout.write(json.dumps({"step": step, "folder": str(folder)}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written. Taking the interpreter down beside libraries' threads can still abort, and a training that is done would count as failed.
    os._exit(status)
