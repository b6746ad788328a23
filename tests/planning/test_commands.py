"""The commands as a user types them: what stands on stdout, what on stderr, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from runners.cloud import api_key, billing
from runners.errors import UserError
from runners.planning import tables
from runners.planning.machines import PRICES_FILE, load_prices, machine
from runners.planning.plan import make_plan
from runners.planning.stacks import FOLDER, load

ROOT = Path(__file__).resolve().parents[2]
STACKS = ("serve-l4", "serve-l4-run", "serve-l4-spot", "train-h100", "train-run")


def elson(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("GOOGLE_", "STORAGE_"))}
    return subprocess.run([sys.executable, "-m", "runners", *arguments], cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False)


def test_a_plan_without_an_account() -> None:
    done = elson("plan", "-s", "train-h100", "--offline", "--verbose")
    assert done.returncode == 0, done.stderr
    assert "110 optimizer steps" in done.stdout
    assert "together, of 77 GB" in done.stdout
    assert "elson prices refresh" in done.stderr


def test_a_plan_as_data() -> None:
    done = elson("plan", "-s", "serve-l4", "--offline", "--json")
    (plan,) = json.loads(done.stdout)
    assert plan["serving"]["cache_tokens"] == 51297
    assert plan["money"]["priced_at"] == load_prices().as_of


def test_a_refused_plan_ends_with_1() -> None:
    done = elson("plan", "-s", "serve-l4", "--offline", "--model-format", "bf16")
    assert done.returncode == 1
    assert "g2-standard-24" in done.stderr
    assert elson("plan", "-s", "train-h100", "--offline", "--whole-logits").returncode in (0, 1)


def test_an_unknown_stack_names_the_known_ones() -> None:
    done = elson("plan", "-s", "train-h200")
    assert done.returncode == 1
    assert all(name in done.stderr for name in STACKS)
    assert "Traceback" not in done.stderr


def test_the_foundation_is_not_planned() -> None:
    assert "pulumi preview -s foundation" in elson("plan", "-s", "foundation").stderr


@pytest.mark.parametrize("page", ["README.md", "infra/README.md"])
def test_the_readmes_cost_table_is_the_plans(page: str) -> None:
    table = (ROOT / page).read_text().split("<!-- elson plan --offline --markdown -->\n")[1].split("\n<!-- end -->")[0]
    plans = [make_plan(stack.name, stack.spec, load_prices(stack.spec.machine.region)) for stack in map(load, STACKS) if stack.spec.machine]
    assert table == tables.cost_table(plans).rstrip("\n"), "elson plan --offline --markdown prints it again"


def test_a_use_of_a_server_and_the_choice_of_a_training() -> None:
    done = elson("plan", "--offline", "-s", "serve-l4-run", "--requests-per-hour", "0.2", "--hours-per-day", "2")
    assert done.returncode == 0, done.stderr
    assert "Use: 0.2 requests an hour, 2 hours a day, 22 days a month" in done.stdout
    assert "recommended: serve-l4-run" in done.stdout and all(stack in done.stdout for stack in STACKS if stack.startswith("serve"))
    beside = elson("plan", "--offline", "-s", "train-h100", "--verbose").stdout
    assert "train-run" in beside and "recommended:" in beside
    assert elson("plan", "--offline", "--requests-per-hour", "0").returncode == 2


def test_doctor_without_a_project() -> None:
    done = elson("doctor")
    assert done.returncode == 1
    assert "export GOOGLE_CLOUD_PROJECT" in done.stdout


def test_doctor_without_credentials(tmp_path: Path) -> None:
    done = elson("doctor", GOOGLE_CLOUD_PROJECT="a-project", HOME=str(tmp_path), CLOUDSDK_CONFIG=str(tmp_path), NO_GCE_CHECK="true")
    assert done.returncode == 1
    assert "gcloud auth login --update-adc" in done.stdout


# --- prices -----------------------------------------------------------------------------------------------------------------------------------


def sku(description: str, usd: float, usage: str = "OnDemand", region: str = "us-central1") -> dict[str, Any]:
    price = {"units": str(int(usd)), "nanos": round(usd % 1 * 1e9), "currencyCode": "USD"}
    return {
        "description": description,
        "category": {"usageType": usage, "resourceFamily": "Compute"},
        "serviceRegions": [region],
        "pricingInfo": [{"pricingExpression": {"tieredRates": [{"startUsageAmount": 0, "unitPrice": price}]}}],
    }


CATALOGUE = [
    sku("G2 Instance Core running in Americas", 0.025),
    sku("G2 Instance Ram running in Americas", 0.003),
    sku("Nvidia L4 GPU running in Americas", 0.56),
    sku("Spot Preemptible G2 Instance Core running in Americas", 0.01, "Preemptible"),
    sku("Spot Preemptible G2 Instance Ram running in Americas", 0.001, "Preemptible"),
    sku("Nvidia L4 GPU attached to Spot Preemptible VMs running in Americas", 0.22, "Preemptible"),
    sku("Nvidia L4 GPU running in Paris", 0.70, region="europe-west9"),
    sku("Nvidia Tesla A100 GPU running in Americas", 2.9),
    sku("Nvidia Tesla A100 80GB GPU running in Americas", 3.9),
    sku("A2 Instance Core running in Americas", 0.03),
    sku("A2 Instance Ram running in Americas", 0.004),
]


def test_prices_are_read_anew_and_say_what_changed(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(PRICES_FILE.read_text())
    changed = billing.refresh("us-central1", file, CATALOGUE)
    table = load_prices("us-central1", file)
    assert table.source == "Google's billing catalogue"
    assert table.of(machine("g2-standard-8"), "STANDARD").usd_per_hour == pytest.approx(8 * 0.025 + 32 * 0.003 + 0.56)
    spot = table.of(machine("g2-standard-8"), "SPOT")
    assert spot.usd_per_hour == pytest.approx(8 * 0.01 + 32 * 0.001 + 0.22)
    assert spot.high_usd_per_hour >= 0.43  # the dearest seen stays
    assert table.of(machine("a2-highgpu-1g"), "STANDARD").usd_per_hour == pytest.approx(12 * 0.03 + 85 * 0.004 + 2.9)
    assert table.of(machine("a3-highgpu-1g"), "SPOT").usd_per_hour == 4.0  # not in this catalogue: kept
    assert any(line.startswith("g2-standard-8 STANDARD: 0.85 -> 0.856") for line in changed)
    assert billing.refresh("us-central1", file, CATALOGUE) == []


def test_a_price_that_is_not_clear_is_not_guessed(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(PRICES_FILE.read_text())
    with pytest.raises(UserError, match="several prices for L4 GPU STANDARD"):
        billing.refresh("us-central1", file, [*CATALOGUE, sku("Nvidia L4 GPU of another kind", 0.6)])
    assert file.read_text() == PRICES_FILE.read_text()


def test_a_region_the_catalogue_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing in moon-north1"):
        billing.refresh("moon-north1", tmp_path / "none.yaml", CATALOGUE)


# --- the key ------------------------------------------------------------------------------------------------------------------------------------


class SecretManager:
    """As the service: versions, newest first in a list."""

    def __init__(self) -> None:
        self.versions: list[tuple[str, bytes]] = []
        self.disabled: set[str] = set()

    def add_secret_version(self, request: dict[str, Any]) -> Any:
        name = f"{request['parent']}/versions/{len(self.versions) + 1}"
        self.versions.insert(0, (name, request["payload"]["data"]))
        return SimpleNamespace(name=name)

    def list_secret_versions(self, request: dict[str, Any]) -> list[Any]:
        assert request["filter"] == "state:ENABLED"
        return [SimpleNamespace(name=name) for name, _ in self.versions if name not in self.disabled]

    def disable_secret_version(self, request: dict[str, Any]) -> None:
        self.disabled.add(request["name"])

    def access_secret_version(self, request: dict[str, Any]) -> Any:
        assert request["name"] not in self.disabled
        return SimpleNamespace(payload=SimpleNamespace(data=dict(self.versions)[request["name"]]))


def test_a_rotated_key_is_random_and_the_last_one_stays_valid_for_one_rotation() -> None:
    from runners.vm.steps import key_matcher

    service = SecretManager()
    names = [api_key.rotate("p", "elson-api-key", 1, service)[0] for _ in range(3)]
    assert names[-1] == "projects/p/secrets/elson-api-key/versions/3"
    assert service.disabled == set(names[:-1])
    third, second, first = (value.decode().split() for _, value in service.versions)
    assert (len(first), second[1:], third[1:]) == (1, first, second[:1])
    assert len({first[0], second[0], third[0]}) == 3
    assert all(key in key_matcher(third) for key in third)  # the gateway takes what is written here


def test_a_leaked_key_is_gone_at_once() -> None:
    service = SecretManager()
    api_key.rotate("p", "elson-api-key", 1, service)
    api_key.rotate("p", "elson-api-key", 0, service)
    assert len(service.versions[0][1].split()) == 1


def test_a_key_is_revoked_by_its_mark_and_the_others_stay() -> None:
    service = SecretManager()
    for _ in range(2):
        api_key.rotate("p", "elson-api-key", 1, service)
    newest, older = service.versions[0][1].decode().split()
    assert api_key.marks("p", "elson-api-key", service) == [api_key.mark_of(newest), api_key.mark_of(older)]
    api_key.revoke("p", "elson-api-key", api_key.mark_of(newest), service)
    assert service.versions[0][1].decode().split() == [older]
    for wrong in ("", api_key.mark_of(older)[:7], "0" * 12):
        with pytest.raises(UserError, match="keys have the mark"):
            api_key.revoke("p", "elson-api-key", wrong, service)
    api_key.revoke("p", "elson-api-key", api_key.mark_of(older), service)
    (left,) = service.versions[0][1].decode().split()
    assert left not in (older, newest) and len(left) >= 20, "never an open server, never an empty secret"


def test_stack_files_hold_values_only() -> None:
    for file in FOLDER.glob("*.yaml"):
        assert set(yaml.safe_load(file.read_text())) == {"config"}
