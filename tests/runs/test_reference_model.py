"""A private run beside one without privacy: who pays is found, and the claim does not cover the other model."""

import json

import pytest
from tiny_federation import config

from fedsafe.errors import ConfigError
from fedsafe.runs import run

OFF = {"privacy__record": {"epsilon": float("inf")}, "privacy__client": {"epsilon": float("inf")}}


def test_a_private_run_is_compared_with_a_run_without_privacy_group_by_group(tmp_path):
    plain = run(config(**OFF, privacy__noise_key="seed"), out=tmp_path / "plain")
    assessor = {"name": "fairness", "reference": str(tmp_path / "plain"), "minimum": 5}
    private = run(
        config(assess__assessors=["performance", assessor], privacy__noise_key="seed"),
        out=tmp_path / "private",
    )
    lines = [json.loads(line) for line in (private.path / "findings.jsonl").read_text().splitlines()]
    costs = {
        line["where"]["group"]: line
        for line in lines
        if line["metric"] == "fairness.accuracy_cost" and line["round"] == 3
    }
    assert set(costs) == {"Female", "Male"}
    for line in costs.values():
        assert line["value"] == pytest.approx(line["detail"]["reference"] - line["detail"]["own"])
        assert "which the run's claims do not cover" in line["released"]
    (gap,) = (f for f in lines if f["metric"] == "fairness.accuracy_cost_difference" and f["round"] == 3)
    assert gap["detail"]["pays_most"] in costs
    for claims, covered in ((private.claims, False), (plain.claims, True)):
        for claim in claims:
            assert any("beside its reference" in phrase for phrase in claim["not_covered"]) != covered


def test_a_reference_that_is_not_there_stops_the_run_before_it_starts(tmp_path):
    assessor = {"name": "fairness", "reference": "nowhere"}
    with pytest.raises(ConfigError, match="the reference 'nowhere' is not there"):
        run(config(assess__assessors=[assessor]), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
