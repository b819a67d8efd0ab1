"""A finding has a value exactly when it was measured, and survives JSON."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from fedsafe.errors import ConfigError, RecordError
from fedsafe.findings import (
    METRICS,
    Finding,
    Metric,
    difference,
    estimate,
    find_metric,
    not_measured,
    proportion,
    register_metric,
)

ACCURACY = "performance.accuracy"


def full_finding() -> Finding:
    return proportion(
        ACCURACY,
        np.int64(30),
        40,
        method="clopper-pearson",
        confidence=0.9,
        where={"attribute": "sex", "radius": np.float32(0.5)},
        bound="upper",
        anchors={"majority": np.float64(0.5), "unknown": float("nan")},
        diagnostics={"ok": np.bool_(True)},
        data="public: test split",
        detail={"table": [{"n": np.int64(3), "share": np.inf}], "row": np.arange(2.0)},
    )


def test_json_form_has_the_keys_of_the_run_folder_in_order():
    expected = (
        "metric where status value interval interval_method confidence n n_unit resolution bound anchors"
    )
    assert list(full_finding().to_json()) == [*expected.split(), "diagnostics", "data", "released", "detail"]


def test_a_finding_survives_json_and_pickle():
    finding = full_finding()
    text = json.dumps(finding.to_json(), allow_nan=False)
    again = Finding.from_json({**json.loads(text), "round": 3, "assessor": "performance"})
    assert again == finding
    assert again.interval == finding.interval == pytest.approx((0.6133, 0.8580), abs=1e-3)
    assert pickle.loads(pickle.dumps(finding)) == finding


def test_numbers_that_are_not_finite_become_null():
    body = full_finding().to_json()
    assert body["anchors"] == {"majority": 0.5, "unknown": None}
    assert body["detail"] == {"table": [{"n": 3, "share": None}], "row": [0.0, 1.0]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_a_failure_not_a_number(value):
    finding = estimate("performance.nll", value, n=5, unit="examples")
    assert (finding.status, finding.value, finding.n) == ("failed", None, 5)
    assert "not finite" in finding.reason
    finding = estimate("performance.nll", 1.0, interval=(0.5, value), method="t")
    assert finding.status == "failed"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"metric": "performance.acuracy"}, "did you mean 'performance.accuracy'"),
        ({"status": "fine"}, "status is one of"),
        ({"bound": "close"}, "bound is one of"),
        ({"value": None}, "exactly when measured"),
        ({"value": float("nan")}, "exactly when measured"),
        ({"value": "0.5"}, "is a number"),
        ({"value": 1.2}, "range"),
        ({"status": "insufficient"}, "exactly when measured"),
        ({"status": "insufficient", "value": None}, "reason"),
        ({"n": 5}, "unit"),
        ({"n": -1, "n_unit": "examples"}, "negative"),
        ({"interval": (0.1, 0.9)}, "its method"),
        ({"interval": (0.9, 0.1), "interval_method": "t", "confidence": 0.95}, "first"),
        ({"interval": (0.1, float("inf")), "interval_method": "t", "confidence": 0.95}, "finite"),
        ({"interval": (0.1, 0.9), "interval_method": "t", "confidence": 95}, "between 0 and 1"),
        ({"where": {"groups": ["a", "b"]}}, "where"),
        ({"where": {"radius": float("nan")}}, "where"),
        ({"detail": {"model": object()}}, "cannot hold"),
    ],
)
def test_contradictions_are_refused(change, word):
    with pytest.raises(ConfigError, match=word):
        Finding(**{"metric": ACCURACY, "status": "measured", "value": 0.5, **change})


def test_a_missing_key_is_a_damaged_record():
    body = full_finding().to_json()
    del body["n_unit"]
    with pytest.raises(RecordError, match="n_unit"):
        Finding.from_json(body)


def test_an_empty_sample_is_insufficient_and_has_no_value():
    for finding in (proportion(ACCURACY, 0, 0), difference("fairness.accuracy_difference", 1, 2, 0, 0)):
        assert (finding.status, finding.value, finding.interval) == ("insufficient", None, None)


def test_difference_has_the_interval_of_newcombe():
    finding = difference("fairness.accuracy_difference", 56, 70, 48, 80)
    assert finding.value == pytest.approx(0.2)
    assert finding.interval == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert finding.resolution == pytest.approx(1 / 70)


def test_not_measured_keeps_the_reason_and_the_detail():
    finding = not_measured(ACCURACY, "too few", status="insufficient", n=3, unit="examples", detail={"k": 1})
    assert finding.reason == "too few"
    assert finding.detail == {"reason": "too few", "k": 1}


def test_registry_lists_every_metric_once_with_its_meaning():
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.unit
        assert metric.description.endswith(".")
    with pytest.raises(TypeError):
        METRICS["mine"] = METRICS[ACCURACY]


def test_a_foreign_metric_can_be_registered_once():
    mine = Metric(name="test.registered", unit="share", direction="higher", description="Mine.")
    assert register_metric(mine) == register_metric(mine) == find_metric("test.registered")
    with pytest.raises(ConfigError, match="another definition"):
        register_metric(Metric(name="test.registered", unit="share", direction="lower", description="Mine."))
    with pytest.raises(ConfigError, match="direction"):
        Metric(name="x", unit="", direction="up", description="")


def test_findings_need_no_torch():
    code = "import sys, fedsafe.findings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
