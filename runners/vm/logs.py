"""The units' journal to Cloud Logging, and its end to the bucket, where it outlives the VM. No agent is installed for it."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any

from runners import log
from runners.vm.cloud import Cloud, CloudError
from runners.vm.facts import Facts

#: Who is forwarded, by syslog identifier: `--unit=elson-*` is resolved once, to the units that have spoken by then.
_SPEAKERS = ("elson", "systemd", "dockerd", "google_metadata_script_runner")
#: Whose journal is kept: ours, what starts us, and what runs our containers.
_UNITS = ("--unit=elson-*", "--unit=docker", "--unit=google-startup-scripts")
_SEND_S, _UPLOAD_S, _BATCH = 3.0, 60.0, 200
#: Kept of a boot's log: the end, where the reason is.
_KEPT_BYTES = 4 << 20
_PRIORITY = ("EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG")


def forward(cloud: Cloud, folder: str, facts: Facts) -> None:
    """Follow the journal until SIGTERM: entries to Cloud Logging every few seconds, the text to the bucket every minute and at the end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    command = ["journalctl", "--boot", "--follow", "--no-tail", "--output=json", *(f"--identifier={name}" for name in _SPEAKERS)]
    lines: queue.Queue[str] = queue.Queue(maxsize=20_000)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as journal:
        threading.Thread(target=_read, args=(journal, lines), daemon=True).start()
        uploaded_s, pending = 0.0, list[dict[str, Any]]()
        try:
            while journal.poll() is None:
                time.sleep(_SEND_S)
                pending = _send(cloud, facts, pending + _drain(lines))
                if time.monotonic() - uploaded_s > _UPLOAD_S:
                    uploaded_s = time.monotonic()
                    _try_upload(cloud, folder, facts)
        finally:
            journal.terminate()
            _send(cloud, facts, pending + _drain(lines))
            _try_upload(cloud, folder, facts)


def upload(cloud: Cloud, folder: str, facts: Facts) -> None:
    """Write this boot's log (its last 4 MiB) beside the job's state. Raises CloudError."""
    shown = subprocess.run(["journalctl", "--boot", "--no-pager", "--output=short-iso", *_UNITS], capture_output=True, check=False)
    boot = subprocess.run(["journalctl", "--boot", "--lines=1", "--output=json", "--no-pager"], capture_output=True, text=True, check=False).stdout
    boot_id = json.loads(boot).get("_BOOT_ID", "boot") if boot.strip() else "boot"
    cloud.write(f"{folder}/logs/{facts.instance}-{boot_id[:8]}.log", shown.stdout[-_KEPT_BYTES:], kind="text/plain; charset=utf-8")


def entry(row: dict[str, Any]) -> dict[str, Any]:
    """A Cloud Logging entry of a journal row: our runners' JSON lines keep their severity and fields."""
    message = row.get("MESSAGE")
    text = message if isinstance(message, str) else bytes(message or []).decode(errors="replace")  # journald gives bytes as a list of numbers
    seconds = int(row["__REALTIME_TIMESTAMP"]) / 1e6
    common = {
        "timestamp": datetime.fromtimestamp(seconds, UTC).isoformat(),
        "labels": {"unit": str(row.get("_SYSTEMD_UNIT") or row.get("UNIT") or "")},
        "insertId": str(row["__CURSOR"])[-60:],
    }
    try:
        fields = json.loads(text)
        if isinstance(fields, dict) and "message" in fields:
            return {**common, "severity": str(fields.get("severity", "INFO")), "jsonPayload": fields}
    except ValueError:
        pass
    return {**common, "severity": _PRIORITY[int(row.get("PRIORITY", 6))], "textPayload": text[:100_000]}


def _read(journal: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert journal.stdout is not None  # noqa: S101 - a pipe was asked for
    for line in journal.stdout:
        try:
            lines.put_nowait(line)
        except queue.Full:
            continue  # Cloud Logging has been away for long; the bucket's copy has the line


def _drain(lines: queue.Queue[str]) -> list[dict[str, Any]]:
    rows = []
    while not lines.empty():
        row = json.loads(lines.get_nowait())
        if is_forwarded(row):
            rows.append(entry(row))
    return rows


def is_forwarded(row: dict[str, Any]) -> bool:
    """Whether Cloud Logging gets a journal row: not what this unit says (a failure to send must not make more to send), nor the chatter of others."""
    speaker = row.get("SYSLOG_IDENTIFIER")
    if row.get("_SYSTEMD_UNIT") == "elson-logs.service":
        return False
    if speaker == "systemd":
        return str(row.get("UNIT", "")).startswith("elson-")
    return speaker != "dockerd" or "level=info" not in str(row.get("MESSAGE"))


def _send(cloud: Cloud, facts: Facts, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send in batches; returns what could not be sent, for the next time (bounded)."""
    while entries:
        try:
            cloud.write_logs(facts, entries[:_BATCH])
        except CloudError as error:
            log.warning("logs not sent", waiting=len(entries), problem=str(error)[:300])
            return entries[-5000:]
        entries = entries[_BATCH:]
    return entries


def _try_upload(cloud: Cloud, folder: str, facts: Facts) -> None:
    try:
        upload(cloud, folder, facts)
    except CloudError as error:
        log.warning("log not kept in the bucket", problem=str(error)[:300])
