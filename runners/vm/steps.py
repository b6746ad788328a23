"""What the units do, one function a unit: check, pull, train, container (serve and gateway), deadline, preemption, failed."""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from runners import log, outside
from runners.errors import UserError
from runners.pipeline import image_of, stages_of
from runners.vm import containers, decide, facts, logs, progress, routes, state
from runners.vm.cloud import Cloud, CloudError, call, guest_attribute, metadata
from runners.vm.containers import CONTAINER_USER, RUN, WORK
from runners.vm.decide import Boot, Decision, Job
from runners.vm.facts import Facts
from runners.vm.state import Context
from runners.vm.watch import read_counters

#: Exit code of a check that ended this VM: its dependants must not start.
STOPPED = 10
_PULL_TRIES = 8
_PATIENCE_S = 600
#: A revoked key is refused within a minute: at most this, one call and a reload.
KEYS_S = 20.0
#: The message of the line in which a server tells the phases of its start (runners/serving/phases.py).
PHASES = "phases of the start"
#: The gateway's matcher when no key is valid: a header that no request can hold.
NOBODY = "@authorized header_regexp Authorization `^$a`\n"


def check() -> int:
    """Read the spec and the job's state; go on, or stop at once. A VM that cannot read what it is for ends too, and says so."""
    found = facts.parse(json.loads(metadata(recursive="true")))
    found.save(RUN / "facts.json")
    state.mark("check")
    try:
        context, decision = _first_decision(found)
    except Exception as error:  # noqa: BLE001 - whatever it is: a VM that goes on without its job's state is one that nobody ends
        log.error("this VM cannot learn what it is for, so it ends", problem=repr(error)[:600])
        guest_attribute("state", json.dumps({"status": "failed", "reason": str(error)[:400]}))
        state.end(None, found)
        return STOPPED
    if decision.action == "stop":
        state.end(context, found)
        return STOPPED
    for folder in (WORK, RUN / "health", RUN / "secrets", RUN / "vllm", Path("/var/lib/elson/gateway")):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["chown", str(CONTAINER_USER), str(folder)], check=True)
    if found.role == "serve":
        # vLLM wants a key too; it gets one of this boot, so the users' key stays with the gateway.
        _give(RUN / "vllm" / "key", secrets.token_hex(24))
    return 0


def _first_decision(found: Facts) -> tuple[Context, Decision]:
    """Read the spec and decide about this boot. Asked for again for minutes: rights granted by the same `pulumi up` take that long to be known everywhere."""
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            body, _ = Cloud().read(found.spec_uri)
            if body is None:
                raise UserError(f"{found.spec_uri} is not there", "the spec that `pulumi up` writes", "run `pulumi up` on this stack again")
            spec = outside.parsed_json(body, found.spec_uri)
            outside.check_named_by_digest(found.spec_uri, spec)
            (RUN / "spec.json").write_bytes(body)
            context = Context(found, spec)
            if other := context.elsewhere():
                log.error("this VM ends: its job is at work on another machine", machine=other)
                return context, Decision("stop", context.job())
            return context, context.settle(partial(_at_boot, context))
        except CloudError as error:
            if time.monotonic() > end_s:
                raise
            log.warning("the bucket cannot be used yet", problem=str(error)[:400])
            time.sleep(15)


def _at_boot(context: Context, job: Job) -> Decision:
    boot = Boot(state.boot_id(), context.facts.instance, context.facts.zone, state.now().isoformat(timespec="milliseconds"), state.alive_s())
    return decide.at_boot(job, boot, context.limits, state.now())


def pull(stage: str) -> int:
    """Pull a stage's image by digest, with the VM's token, on and on for some minutes: registries have bad moments too."""
    context = Context.load()
    image = context.facts.images[stage]
    if stage == "serve":
        state.mark("pull")
    for attempt in range(1, _PULL_TRIES + 1):
        present = subprocess.run(["docker", "image", "inspect", "--format", "{{.Id}}", image], capture_output=True, check=False)
        if present.returncode == 0:
            log.event("image is here", stage=stage, image=image)
            if stage == "serve":
                state.mark("image")
            return 0
        if problem := _pulled(context, image):
            log.warning("image not pulled", stage=stage, attempt=attempt, of=_PULL_TRIES, problem=problem)
            time.sleep(min(60, 2**attempt))
    log.error("image cannot be pulled", stage=stage, image=image, fix="`elson doctor` says whether the image is there and readable")
    return 1


def _pulled(context: Context, image: str) -> str:
    """Pull it once; what went wrong, or an empty text."""
    login = ["docker", "login", "--username", "oauth2accesstoken", "--password-stdin", image.split("/")[0]]
    done = subprocess.run(login, input=context.cloud.token(), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        done = subprocess.run(["docker", "pull", "--quiet", image], capture_output=True, text=True, check=False)
    return (done.stderr[-400:] or f"exit code {done.returncode}") if done.returncode else ""


def _pull_ahead(context: Context, stage: str) -> None:
    """Bring the images of later stages while one is at work. Nothing depends on it: what is missing then is pulled by its own unit, which says why."""
    stages = stages_of("train")
    later = dict.fromkeys(image_of(one) for one in stages[stages.index(stage) :])
    for name in [one for one in later if one != image_of(stage)]:
        try:
            problem = _pulled(context, context.facts.images[name])
        except (CloudError, OSError) as error:
            problem = str(error)[:400]
        if problem:
            log.warning("image not pulled ahead", image=name, problem=problem)
        else:
            log.event("image is here ahead of its stage", image=name, during=stage)


def train() -> int:
    """Run the stages of a training job, one after the other, from where the job is."""
    context = Context.load()
    stage = context.job().stage or stages_of("train")[0]
    while True:
        if stage_pull := subprocess.run(["systemctl", "start", f"elson-pull@{image_of(stage)}.service"], check=False).returncode:
            return stage_pull  # the pull unit's own failure is being dealt with
        beginning = context.settle(partial(_running, stage))
        if beginning.action == "stop":
            state.end(context, context.facts)
        if beginning.action != "work":
            return 0
        threading.Thread(target=_pull_ahead, args=(context, stage), daemon=True).start()
        with progress.Publisher(context, stage) as publisher:
            code = containers.run(stage, containers.run_arguments(stage, context.facts, context.spec), publisher.line, _terminated)
        decision = context.settle(partial(_ended, context, stage, code))
        if decision.action == "stop":
            state.end(context, context.facts)
            return 0
        if decision.action == "leave":
            _keep_logs(context)
            return 0
        stage = decision.job.stage or stage
        time.sleep(decide.pause_s(decision.job) if decision.action == "retry" else 0)


def container(stage: str) -> int:
    """Run a container of a server until it ends; systemd starts it again. The gateway gets the keys it accepts as a file in memory."""
    context = Context.load()
    if stage == "gateway":
        threading.Thread(target=follow_keys, args=(context, _write_keys(context)), daemon=True).start()
    if stage == "serve":
        state.mark("container")
    code = containers.run(stage, containers.run_arguments(stage, context.facts, context.spec), _note_phases, _terminated)
    return 0 if state.interruption() else code or 1


def _note_phases(line: str) -> None:
    """Keep what the server says of its start; the first start of this boot counts, whose end ``watch`` sees."""
    if f'"{PHASES}"' not in line or state.PHASES.exists():
        return
    try:
        found = json.loads(line)["phases"]
        state.PHASES.write_text(json.dumps({str(name)[:40]: float(seconds) for name, seconds in found.items()}))
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    state.mark("engine")


def deadline() -> int:
    """Write down how long this VM has lived; stop everything when the job's deadline has passed, or when it is over. Runs twice a minute."""
    context = Context.load()
    try:
        decision = context.settle(lambda job: decide.at_deadline(job, context.limits, state.now()))
    except CloudError as error:
        log.warning("bucket not reachable: the deadline is judged by this VM's own copy", problem=str(error)[:300])
        job = decide.live(Job.from_json(json.loads((RUN / "job.json").read_text())), state.boot_id(), state.alive_s())
        decision = decide.at_deadline(job, context.limits, state.now())
    if decision.action != "stop":
        return 0
    state.interrupt("deadline")
    for stage in reversed(stages_of(context.facts.role)):
        containers.stop(stage, 60)
    state.end(context, context.facts)
    return 0


def preemption() -> int:
    """Wait for the platform's notice, then stop the container with time to write."""
    context, tag = Context.load(), "0"
    while True:
        try:
            body, headers = call(
                "GET",
                f"http://metadata.google.internal/computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec=60&last_etag={tag}",
                headers={"Metadata-Flavor": "Google"},
                timeout_s=90,
            )
        except CloudError as error:
            log.warning("metadata server does not answer", problem=str(error)[:200])
            time.sleep(2)
            continue
        tag = headers.get("etag", "0")
        if body.strip() == b"TRUE":
            break
    log.warning("this VM is being preempted")
    guest_attribute("preempted", state.now().isoformat())
    was_ready = (RUN / "health" / "ready").exists()
    state.interrupt("preempted")
    if context.facts.role == "serve":
        _drain(context, was_ready=was_ready)
    for stage in reversed(stages_of(context.facts.role)):  # the gateway first: it lets the answers on their way end
        containers.stop(stage)
    try:
        if context.facts.role == "serve":
            context.settle(
                lambda job: Decision("leave", replace(job, status="preempted", reason="the platform took the VM back", updated_at=state.now().isoformat()))
            )
        _keep_logs(context)
    except CloudError as error:
        log.warning("preemption not written down", problem=str(error)[:200])
    return 0


def _drain(context: Context, *, was_ready: bool) -> None:
    """Go on answering for as long as the notice allows and somebody is asking; /health says no, so a load balancer sends nothing new.

    A server that was ready and is silent is busy: a full one may take longer than we wait for its counters.
    """
    begin, several = time.monotonic(), context.facts.replicas > 1
    ports = [port for port, _ in routes.engines(context.spec["serve"])]
    while any(found := [read_counters(port) for port in ports]) or was_ready:
        in_flight = sum(one["in_flight"] if one else int(was_ready) for one in found)
        if decide.has_drained(in_flight, time.monotonic() - begin, context.spec["machine"]["preemption_notice_s"], several=several):
            return
        time.sleep(1)


def failed(unit: str) -> int:
    """A unit was given up by systemd: boot afresh while attempts are left, else end.

    systemd calls this for a unit whose dependency failed, too; that one has its own call.
    """
    shown = subprocess.run(["systemctl", "show", "--property=ActiveState", "--value", unit], capture_output=True, text=True, check=False).stdout.strip()
    if shown not in ("failed", ""):
        return 0
    try:
        context = Context.load()
        decision = context.settle(lambda job: decide.after_unit_failure(job, unit, state.interruption(), context.limits, state.now()))
    except Exception as error:  # noqa: BLE001 - no spec, no bucket, no facts: nothing is left to try
        log.error("this VM cannot learn what to do about a failed unit, so it ends", unit=unit, problem=repr(error)[:600])
        _end_without_a_job()
        return 0
    if decision.action == "stop":
        state.end(context, context.facts)
    elif decision.action == "reboot":
        _keep_logs(context)
        state.interrupt("retrying")
        subprocess.run(["systemctl", "reboot"], check=False)
    return 0


def _end_without_a_job() -> None:
    try:
        found = Facts.load(RUN / "facts.json") if (RUN / "facts.json").exists() else facts.parse(json.loads(metadata(recursive="true")))
        context = Context.load() if (RUN / "spec.json").exists() else None
    except Exception as error:  # noqa: BLE001 - whatever it was, the VM must not stay
        log.error("switching off: this VM does not know its group", problem=repr(error)[:600])
        subprocess.run(["systemctl", "poweroff"], check=False)
        return
    state.end(context, found)


def _running(stage: str, job: Job) -> Decision:
    if job.status in decide.OVER or state.interruption():
        return Decision("leave", job)
    return Decision("work", replace(job, status="running", stage=stage, updated_at=state.now().isoformat(timespec="milliseconds")))


def _ended(context: Context, stage: str, code: int, job: Job) -> Decision:
    if job.status in decide.OVER:
        return Decision("leave", job)
    return decide.after_stage(job, stage, code, state.interruption(), context.limits, state.now())


def _terminated() -> None:
    # Without notice the platform presses the power button: then this signal is all that is heard of it.
    try:
        preempted = call(
            "GET", "http://metadata.google.internal/computeMetadata/v1/instance/preempted", headers={"Metadata-Flavor": "Google"}, tries=1, timeout_s=2
        )[0]
    except CloudError:
        preempted = b""
    state.interrupt("preempted" if preempted.strip() == b"TRUE" else "stopped")


def _write_keys(context: Context) -> list[str]:
    keys = context.cloud.secret(context.facts.secret).split()
    _give(RUN / "secrets" / "keys.caddy", key_matcher(keys))
    _give(RUN / "secrets" / "upstream.caddy", f'header_up Authorization "Bearer {(RUN / "vllm" / "key").read_text()}"\n')
    return keys


def follow_keys(context: Context, known: list[str], rounds: int = 1 << 62) -> None:
    """Read the keys again every KEYS_S; when they changed, the gateway reloads its configuration and requests on their way go on.

    A secret without a usable version locks everybody out; one that cannot be read for a moment changes nothing.
    """
    for _ in range(rounds):
        time.sleep(KEYS_S)
        try:
            keys = context.cloud.secret(context.facts.secret).split()
            text = key_matcher(keys)
        except (CloudError, UserError) as error:
            if isinstance(error, CloudError) and error.code not in (400, 404):
                log.warning("the keys could not be read again", problem=str(error)[:200])
                continue
            keys, text = [], NOBODY
        if keys != known:
            _give(RUN / "secrets" / "keys.caddy", text)
            subprocess.run(["docker", "kill", "--signal", "USR1", containers.name("gateway")], capture_output=True, check=False)
            log.warning("the accepted keys changed", number=len(keys))
            known = keys


def _give(file: Path, text: str) -> None:
    """A file (in memory, below /run) that only the containers' user may read."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(text)
    file.chmod(0o400)
    subprocess.run(["chown", str(CONTAINER_USER), str(file)], check=True)


def key_matcher(keys: list[str]) -> str:
    """The gateway's matcher of the accepted keys. The secret holds one a line, so that a key can be replaced without a gap.

    Raises UserError, which shows none of them.
    """
    if not keys or any(not key.replace("-", "").replace("_", "").isalnum() or not key.isascii() or len(key) < 20 for key in keys):
        raise UserError(
            "the API key's secret is empty, short or has odd characters",
            "20 or more of A-Z a-z 0-9 - _ on each line",
            "add a version to the secret, see infra/README.md",
        )
    return f"@authorized header_regexp Authorization `^(?i:bearer) +({'|'.join(keys)})$`\n"


def _keep_logs(context: Context) -> None:
    try:
        logs.upload(context.cloud, context.folder, context.facts)
    except CloudError as error:
        log.warning("log not kept in the bucket", problem=str(error)[:200])
