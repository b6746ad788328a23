"""Stands in for a runner where only a container's behaviour matters: the metadata key ``standin`` holds, by stage, the steps of each run in turn.

    {"train": [["exit 139"], ["sleep 60"], ["progress 1 3", "exit 0"]]}: crashes, then works until it is stopped, then finishes. The last entry repeats.
A SIGTERM writes a checkpoint into the work folder and ends with 143, as the trainer does.
"""

import json
import signal
import sys
import time
import urllib.request
from pathlib import Path

stage, work = sys.argv[1], Path(sys.argv[sys.argv.index("--work") + 1])
request = urllib.request.Request("http://metadata.google.internal/computeMetadata/v1/instance/attributes/standin", headers={"Metadata-Flavor": "Google"})
runs = json.loads(urllib.request.urlopen(request, timeout=10).read()).get(stage, [["exit 0"]])
counter = work / f"{stage}.runs"
number = int(counter.read_text()) if counter.exists() else 0
counter.write_text(str(number + 1))


def terminated(*_):
    print(json.dumps({"severity": "WARNING", "stage": stage, "message": "stopping: checkpoint written"}), flush=True)
    (work / "checkpoint").write_text("saved")
    sys.exit(143)


signal.signal(signal.SIGTERM, terminated)
print(json.dumps({"severity": "INFO", "stage": stage, "message": f"{stage} run {number}"}), flush=True)
for step in runs[min(number, len(runs) - 1)]:
    verb, *values = step.split()
    if verb == "progress":
        print(json.dumps({"severity": "INFO", "stage": stage, "message": "step", "done": int(values[0]), "total": int(values[1])}), flush=True)
    elif verb == "sleep":
        time.sleep(float(values[0]))
    elif verb == "exit":
        sys.exit(int(values[0]))
