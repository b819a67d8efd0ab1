import json

import numpy as np
import pytest
from guarded_model import SCHEMA, draw, images, model, monitor, table, trained, unseen
from scipy import stats

from fedsafe.data import Examples, Source, Target, Task, TokenSchema
from fedsafe.errors import CalibrationError, ConfigError, DataError, RecordError
from fedsafe.serve import Monitor, load_monitor, monitor_findings, save_monitor
from fedsafe.serve.detectors.column_tree import ColumnTree
from fedsafe.serve.detectors.synthetic import shuffled, uniform
from fedsafe.serve.monitor import COMBINED
from fedsafe.serve.published import Effort


def test_the_false_alarm_rate_of_the_whole_monitor_is_the_stated_one():
    fresh = draw(6000, 11).x
    n = len(monitor().calibrations[COMBINED].scores)
    alarms = int(monitor().check(fresh).alarms.sum())
    # Given one calibration the rate is a beta variable: both sampling errors are in it.
    spread = np.sqrt(0.05 * 0.95 * (1 / n + 1 / 6000))
    assert abs(alarms / 6000 - 0.05) < 3.5 * spread
    several = [
        Monitor.fit(model(), table(), draw(900, 20 + s), seed=s).check(fresh).alarms.mean() for s in range(6)
    ]
    assert np.mean(several) == pytest.approx(0.05, abs=0.012)


def test_alarms_by_the_smaller_of_two_p_values_would_be_too_many():
    p = monitor().check(draw(6000, 11).x).p_values
    either = (np.minimum(p["ood"], p["adversarial"]) <= 0.05).sum()
    assert stats.binomtest(int(either), 6000, 0.05).pvalue < 1e-6


def test_strangers_are_found_and_permuted_columns_too():
    rng = np.random.default_rng(0)
    for x, least in ((uniform(500, SCHEMA, rng), 0.95), (shuffled(unseen().x, SCHEMA, rng), 0.6)):
        assert monitor().check(x).alarms.mean() > least


def test_a_batch_gives_what_single_rows_give():
    x = unseen().x[:40]
    whole = monitor().check(x)
    for row in range(40):
        single = monitor().check(x[row : row + 1])
        assert all(
            single.p_values[name][0] == pytest.approx(whole.p_values[name][row], abs=0.01)
            for name in whole.p_values
        )


def test_a_monitor_in_files_says_the_same_and_only_of_its_model(tmp_path):
    save_monitor(monitor(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["monitor.json", "monitor.safetensors"]
    again = load_monitor(tmp_path, model(), table())
    x = unseen().x[:100]
    for name, values in monitor().check(x).p_values.items():
        assert np.array_equal(again.check(x).p_values[name], values)
    assert again.temperature == monitor().temperature
    assert again.areas == monitor().areas
    with pytest.raises(RecordError, match="another model"):
        load_monitor(tmp_path, trained(table(), hidden=8, steps=1), table())
    facts = json.loads((tmp_path / "monitor.json").read_text())
    facts["detectors"]["ood"][0]["kind"] = "os.system"
    (tmp_path / "monitor.json").write_text(json.dumps(facts))
    with pytest.raises(RecordError, match="fit"):
        load_monitor(tmp_path, model(), table())


def test_images_have_no_column_tree_and_work():
    task = images()
    net = trained(task, steps=60, flatten=True)
    found = Monitor.fit(net, task, task.evaluation.take(np.arange(1000)))
    assert "column tree" not in found.areas
    noise = np.random.default_rng(0).random((200, 1, 8, 8)).astype(np.float32)
    assert found.check(noise).alarms.mean() > 0.9
    assert found.check(task.evaluation.x[1000:]).alarms.mean() < 0.12


def test_a_regression_is_monitored_without_confidence_and_without_energy():
    target = Target(name="sum", low=0.0, high=2.0)
    examples = [
        Examples(x=part.x, y=target.encode(part.x[:, 7] + part.x[:, 8]))
        for part in (draw(500, 3), draw(900, 4))
    ]
    from fedsafe.data import Schema

    task = Task(
        name="sum",
        kind="regression",
        classes=(),
        schema=Schema(target=target, columns=SCHEMA.columns),
        train=examples[0],
        evaluation=examples[1],
        evaluation_name="made by hand",
        source=Source(name="made by hand"),
        target=target,
        evaluation_public=True,
    )
    found = Monitor.fit(model(), task, task.evaluation)
    assert "energy" not in found.areas
    assert list(found.detectors) == ["ood"]
    assert found.temperature == 1.0
    assert not found.check(task.evaluation.x).alarms.all()


def test_wrong_references_are_refused_in_one_line():
    few = table().evaluation.take(np.arange(50))
    with pytest.raises(CalibrationError, match="200 public records or more, not 50"):
        Monitor.fit(model(), table(), few)
    with pytest.raises(CalibrationError, match="are needed"):
        Monitor.fit(model(), table(), draw(300, 0), level=1e-4)
    with pytest.raises(ConfigError, match="shape"):
        Monitor.fit(model(), images(), draw(300, 0))
    tokens = Examples(x=np.zeros((300, 4), np.int64), y=np.zeros((300, 4), np.int64))
    with pytest.raises(ConfigError, match="tokens"):
        Monitor.fit(model(), TokenSchema(tokens=("a", "b"), length=4), tokens)


def test_the_published_figures_have_intervals_and_an_adaptive_attack_is_no_weaker():
    effort = Effort(radius=0.2, attacked=120, steps=12, restarts=2, strangers=300)
    findings = monitor_findings(
        monitor(), SCHEMA, unseen(), rng=np.random.default_rng(0), data="made by hand", effort=effort
    )
    by = {(f.metric, str(dict(f.where).get("attack", dict(f.where).get("domain", "")))): f for f in findings}
    alarms = by["monitor.false_alarm_rate", ""]
    assert alarms.interval[0] <= alarms.value <= alarms.interval[1]
    assert alarms.anchors["stated"] == 0.05
    assert by["monitor.auroc", "uniform noise"].value > 0.95
    static, adaptive = (by["monitor.undetected_error_rate", name] for name in ("static", "adaptive"))
    assert static.bound == "lower"
    assert adaptive.value >= static.value
    used = [each for group in monitor().detectors.values() for each in group]
    assert adaptive.detail["without_gradient"] == [each.name for each in used if isinstance(each, ColumnTree)]
    chosen_by = {f.where["domain"]: f.where["in_selection"] for f in findings if "domain" in f.where}
    assert chosen_by == {
        "uniform noise": True,
        "permuted features": True,
        "columns of different records": True,
        "inverted": False,
        "records at random": False,
    }
    assert all(f.interval is not None for f in findings if f.status == "measured")
    with pytest.raises(DataError, match="100 records"):
        monitor_findings(
            monitor(), SCHEMA, unseen().take(np.arange(20)), rng=np.random.default_rng(0), data="few"
        )


def test_temperature_brings_confidence_nearer_to_being_right():
    wild = trained(table(), hidden=32, steps=400)
    found = Monitor.fit(wild, table(), table().evaluation.take(np.arange(2500)))
    errors = {
        f.where["scaling"]: f.value
        for f in monitor_findings(
            found,
            SCHEMA,
            unseen(),
            rng=np.random.default_rng(0),
            data="x",
            effort=Effort(attacked=10, steps=1, restarts=1, strangers=100),
        )
        if f.metric == "monitor.calibration_error"
    }
    assert found.temperature > 1.0
    assert errors["after"] <= errors["before"]
