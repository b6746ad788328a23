"""The agent on a VM: what boots, watches and ends one job. Only the standard library: it runs before Docker is there.

It reaches the VM as text in the instance's metadata (``payload.py``), runs under the system's Python (3.11 or newer) from ``/opt/elson`` and is started by the
units of ``infra/startup/units``. Every choice is a pure function of ``decide.py``; the other files fetch, call and report.
Deliberately not here: anything about models. That is the containers' part, which run the same commands as at home.

    python3 -m runners.vm --help
"""
