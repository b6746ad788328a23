"""`serve.second` through the whole program: pinned, shared out, refused where it does not fit, is deprecated or is the first model again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runners import stages
from runners.artifacts import registry
from runners.spec import parse
from runners.vm import routes
from tests.infra.conftest import Cloud, publish
from tests.infra.declared import content

SMALL = {
    "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936
}  # fmt: skip
SECOND = {"second": {"model": "small-one", "served_model_name": "small"}}


def small(cloud: Cloud, folder: Path) -> registry.Entry:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**SMALL, "tie_word_embeddings": True}))
    stages.publish_base(cloud.buckets, folder, "small-one")
    return registry.usable(cloud.buckets, "small-one")


def test_two_models_are_pinned_and_share_the_card(cloud: Cloud, tmp_path: Path) -> None:
    entry = small(cloud, tmp_path / "small")
    alone, run, on_run = cloud.run("serve-l4"), cloud.run("serve-l4", serve=SECOND), cloud.run("serve-l4-run", serve=SECOND)
    assert run.returncode == 0 and on_run.returncode == 0, (run.errors, on_run.errors)
    for made in (run, on_run):
        told = {key: made.outputs[key] for key in ("model", "model_id", "second_model", "second_model_id")}
        assert told == {"model": "first-q4", "model_id": "qdora-00000000000000aa", "second_model": "small-one", "second_model_id": entry.id}
        serve = parse(content(made.only("BucketObject", "spec"))).serve
        assert serve.second and serve.second.model_manifest == entry.manifest
        first, second = (one.gpu_memory_fraction for one in serve.models())
        assert 0.1 < second < first and round(first + second, 3) == 0.92
    assert run.outputs["job"] != alone.outputs["job"]
    gateway, server = (next(one for one in on_run.only("Service").inputs["template"]["containers"] if one["name"] == name) for name in ("gateway", "serve"))
    told = {one["name"]: one["value"] for one in gateway["envs"] if "value" in one}
    assert routes.gateway(serve.model_dump(mode="json")).items() <= told.items() and "--second-port" in server["args"]


def test_a_second_model_that_does_not_fit_is_the_first_or_is_deprecated_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    publish(cloud.buckets, tmp_path / "other", "other-q4", "qdora", "qdora-00000000000000cc")
    entry = small(cloud, tmp_path / "small")

    def refused(**second: Any) -> str:
        run = cloud.run("serve-l4", serve={"second": {**SECOND["second"], **second}})
        assert run.returncode and not run.custom
        return run.errors

    assert "elson and small do not fit 1 x" in refused(model="other-q4")
    assert "are both first-q4" in refused(model="first-q4")
    assert "no-such" in refused(model="no-such")
    registry.deprecate(cloud.buckets, entry.name, reason="it is wrong")
    assert "it is wrong" in refused()
