"""Cloud Run jobs as a task sees them, and as strict: one process a try with an empty file system, time-outs, maintenance, retries, the API that starts a job.

* CLOUD_RUN_JOB, CLOUD_RUN_EXECUTION, CLOUD_RUN_TASK_INDEX, _COUNT and _ATTEMPT are set; nothing of this machine's user is.
* At the time-out of a try, and at maintenance, SIGTERM comes and SIGKILL ten seconds later; ``vanish`` takes the machine without either.
* Any exit code but 0 is tried again, ``retries`` times.
* ``jobs.run`` needs the token that the metadata server gives; ``refuse`` calls are answered 403 first, as grants take a while to be known.

Left out: the image (the container is the stage's environment of this machine), memory as a limit.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from infra.run_plan import WORK, JobPlan, TrainingPlan
from runners import environments
from runners.planning.cloud_run import GRACE_S

ROOT = Path(__file__).resolve().parents[2]
Moment = Callable[[dict[str, object]], bool]
_TOKEN = "a-token-of-elson-train"


@dataclass
class Try:
    """One try of a task."""

    job: str
    execution: str
    attempt: int
    code: int
    seconds: float
    log: str = ""
    killed: bool = False


@dataclass
class Jobs:
    """A project's jobs. ``maintenance`` and ``vanish``: (job, attempt) -> the log line at which it comes."""

    plan: TrainingPlan
    folder: Path
    storage: str
    tries: list[Try] = field(default_factory=list)
    refuse: int = 0
    calls: list[str] = field(default_factory=list)
    maintenance: dict[tuple[str, int], Moment] = field(default_factory=dict)
    vanish: dict[tuple[str, int], Moment] = field(default_factory=dict)
    timeout_s: dict[tuple[str, int], float] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        jobs, self._threads = self, list[threading.Thread]()

        class Google(http.server.BaseHTTPRequestHandler):
            """The metadata server and Cloud Run's API in one."""

            def do_GET(self) -> None:
                if self.path != "/" and self.headers.get("Metadata-Flavor") != "Google":
                    self._answer(403, {})
                    return
                token = {"access_token": _TOKEN, "expires_in": 3599, "token_type": "Bearer"}
                account = {
                    "email": "elson-train@a-project.iam.gserviceaccount.com",
                    "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
                    "aliases": [],
                }
                if "/token" in self.path:
                    self._answer(200, token)
                    return
                if "/service-accounts/" in self.path:
                    self._answer(200, account)
                    return
                self._answer(200 if self.path == "/" else 404, {})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                jobs.calls.append(self.path)
                if self.headers.get("Authorization") != f"Bearer {_TOKEN}":
                    self._answer(401, {"error": {"message": "no token"}})
                    return
                if jobs.refuse:
                    jobs.refuse -= 1
                    self._answer(403, {"error": {"message": "Permission 'run.jobs.run' denied"}})
                    return
                name = self.path.removesuffix(":run").rsplit("/", 1)[-1]
                job = next((job for job in (jobs.plan.train, jobs.plan.quantize) if job.name == name), None)
                if not self.path.startswith("/v2/projects/a-project/locations/") or job is None:
                    self._answer(404, {})
                    return
                thread = threading.Thread(target=jobs.execute, args=(job,))
                jobs._threads.append(thread)
                thread.start()
                self._answer(200, {"name": "operations/1"})

            def _answer(self, status: int, body: object) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Metadata-Flavor", "Google")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Google)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def run(self) -> None:
        """What `pulumi up` does: start the first job, and here wait for all that follows."""
        self.execute(self.plan.train)
        for thread in self._threads:
            thread.join()

    def execute(self, job: JobPlan) -> bool:
        """One execution of one task; whether it succeeded."""
        execution = f"{job.name}-{len(self.tries):05d}"
        return any(self._try(job, execution, attempt).code == 0 for attempt in range(job.retries + 1))

    def of(self, stage: str) -> list[Try]:
        return [one for one in self.tries if one.job.startswith(f"elson-{stage}-")]

    def _try(self, job: JobPlan, execution: str, attempt: int) -> Try:
        place = self.folder / f"{execution}-{attempt}"
        place.mkdir(parents=True)
        container, stage, address = job.container, job.container.name, f"127.0.0.1:{self._server.server_port}"
        given = {name: value.replace(WORK, str(place)) for name, value in container.environment}
        platform = {"JOB": job.name, "EXECUTION": execution, "TASK_INDEX": "0", "TASK_COUNT": "1", "TASK_ATTEMPT": str(attempt)}
        values = {f"CLOUD_RUN_{name}": value for name, value in platform.items()} | given | self.variables
        values |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "ELSON_COMMIT": "simulated", "OMP_NUM_THREADS": "1", "ELSON_PROGRESS_EVERY_S": "0"}
        values |= {"STORAGE_EMULATOR_HOST": self.storage, "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN": f"http://{address}/", "CLOUDSDK_CONFIG": str(place)}
        values |= {"GCE_METADATA_HOST": address, "GCE_METADATA_IP": address, "GCE_METADATA_ROOT": address}
        command = [str(environments.python(stage)), "-m", "runners", *(argument.replace(WORK, str(place)) for argument in container.arguments)]
        begin, key = time.monotonic(), (stage, attempt)
        made = Try(job.name, execution, attempt, 0, 0)
        with subprocess.Popen(command, env=values, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
            out_of_time = threading.Timer(self.timeout_s.get(key, job.timeout_s), self._terminate, (process, made))
            out_of_time.start()
            assert process.stderr is not None
            for line in process.stderr:
                made.log += line
                row = _row(line)
                if row and (comes := self.vanish.get(key)) and comes(row):
                    os.killpg(process.pid, signal.SIGKILL)
                    break
                if row and (comes := self.maintenance.get(key)) and comes(row):
                    del self.maintenance[key]
                    threading.Thread(target=self._terminate, args=(process, made)).start()
            made.code = process.wait()
            out_of_time.cancel()
        made.seconds = time.monotonic() - begin
        self.tries.append(made)
        shutil.rmtree(place)  # memory, gone with the instance
        return made

    def _terminate(self, process: subprocess.Popen[str], made: Try) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            made.killed = True
            os.killpg(process.pid, signal.SIGKILL)


def _row(line: str) -> dict[str, object] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
