"""Sinks get the shareable record, whole and nothing else, and no sink can change or stop a run."""

import csv
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from tiny_federation import config

from fedsafe.errors import ConfigError
from fedsafe.runs import run
from fedsafe.runs.callbacks import require_callbacks
from fedsafe.runs.config import make_config
from fedsafe.runs.file_sinks import CsvSink
from fedsafe.runs.resume import resume
from fedsafe.runs.sinks import SINKS, Sink, SinkCallback, make_sinks, recorded_events
from fedsafe.runs.trackers import MlflowSink, TensorBoardSink
from fedsafe.store import RunFolder

REQUIRE = [{"metric": "performance.accuracy", "op": ">=", "threshold": 0.1, "severity": "should"}]


def seeded(**changes):
    return config(privacy__noise_key="seed", assess__require=REQUIRE, **changes)


class Kept:
    """Keeps what it is sent."""

    def __init__(self):
        self.events, self.closed = [], 0

    def write(self, event):
        self.events.append(event)

    def close(self):
        self.closed += 1


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    kept = Kept()
    values = seeded(sinks=["csv", {"name": "jsonl", "path": "more/all.jsonl"}])
    return run(values, out=tmp_path_factory.mktemp("sinks") / "out", callbacks=[SinkCallback(kept)]), kept


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_sink_gets_every_line_of_the_record_and_nothing_else(finished):
    result, kept = finished
    folder = RunFolder.open(result.path)
    by_kind = {}
    for event in kept.events:
        by_kind.setdefault(event["kind"], []).append(event)
    recorded = folder.read("record.jsonl")
    assert [event for event in kept.events if event["kind"] in ("start", "round", "end")] == recorded
    for kind, name in (("finding", "findings.jsonl"), ("verdict", "requirements.jsonl")):
        assert by_kind[kind] == [{"kind": kind, **line} for line in folder.read(name)]
        assert by_kind[kind], kind
    assert kept.closed == 1


def test_what_sinks_were_sent_can_be_read_from_a_shared_copy(finished):
    result, kept = finished
    assert list(recorded_events(result.path)) == kept.events
    assert lines(result.path / "more" / "all.jsonl") == kept.events


def test_the_table_is_tidy_and_has_every_number(finished):
    result, _ = finished
    with (result.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = [
        float(row["value"]) for row in rows if (row["source"], row["metric"]) == ("round", "accuracy")
    ]
    assert accuracies == result.rounds()["accuracy"].tolist()
    spent = [float(row["value"]) for row in rows if row["metric"] == "epsilon_record"]
    assert spent == result.rounds()["epsilon_record"].tolist()
    findings = [row for row in rows if row["source"] in ("performance", "comparison")]
    assert len(findings) == len(result.findings())
    for row, finding in zip(findings, RunFolder.open(result.path).read("findings.jsonl"), strict=True):
        low, high = finding["interval"] or (None, None)
        for column, number in (
            ("value", finding["value"]),
            ("low", low),
            ("high", high),
            ("n", finding["n"]),
        ):
            assert row[column] == ("" if number is None else str(number))
        assert row["status"] == finding["status"]
    verdicts = [row for row in rows if row["source"] == "requirement"]
    assert [row["metric"] for row in verdicts] == ["performance.accuracy >= 0.1"] * 2
    assert {row["status"] for row in verdicts} <= {"pass", "fail", "undecided"}


class Interrupted:
    """Stops a run after a round."""

    def __init__(self, last):
        self._last = last

    def on_start(self, path, start, first_round): ...

    def on_assessment(self, assessment): ...

    def on_end(self, end): ...

    def on_round(self, line):
        if line.round == self._last:
            raise KeyboardInterrupt


def test_a_resumed_run_leaves_what_an_uninterrupted_one_would_have(finished, tmp_path):
    values = seeded(sinks=["csv", {"name": "jsonl", "path": "more/all.jsonl"}])
    with pytest.raises(KeyboardInterrupt):
        run(values, out=tmp_path / "out", callbacks=[Interrupted(2)])
    before = lines(tmp_path / "out" / "more" / "all.jsonl")
    assert max(event.get("round", 0) for event in before) <= 2
    kept = Kept()
    resume(tmp_path / "out", callbacks=[SinkCallback(kept)])
    assert lines(tmp_path / "out" / "more" / "all.jsonl") == kept.events
    whole = finished[0].path
    assert (tmp_path / "out" / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


class Failing(Kept):
    """Spoils what it is sent, and then breaks."""

    def write(self, event):
        super().write(dict(event))
        event.clear()
        if len(self.events) == 3:
            raise SystemExit("out of\npatience")


class FailingAtTheEnd(Kept):
    def close(self):
        super().close()
        raise OSError("the disk is full")


def test_a_failing_sink_is_reported_once_and_changes_nothing(finished, tmp_path, caplog):
    bad, kept, late = Failing(), Kept(), FailingAtTheEnd()
    result = run(seeded(), out=tmp_path / "out", callbacks=[SinkCallback(bad, kept, late)])
    said = [record.getMessage() for record in caplog.records if record.name == "fedsafe.runs.sinks"]
    assert said == [
        "the sink Failing failed, and the run goes on without it: SystemExit: out of patience",
        "the sink FailingAtTheEnd failed, and the run goes on without it: OSError: the disk is full",
    ]
    assert (len(bad.events), bad.closed) == (3, 1)
    assert kept.events == list(recorded_events(result.path))
    assert result.rounds().equals(finished[0].rounds())
    assert result.start.settings_sha256 == finished[0].start.settings_sha256
    checkpoints = [RunFolder.open(path).read_checkpoint(3)[0] for path in (result.path, finished[0].path)]
    assert checkpoints[0]["parameters"].tobytes() == checkpoints[1]["parameters"].tobytes()


def test_an_interruption_is_not_swallowed(tmp_path):
    class Pressed(Kept):
        def write(self, event):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(seeded(), out=tmp_path / "out", callbacks=[SinkCallback(Pressed())])


def nothing(folder):
    return SimpleNamespace(write=print)


def broken(folder):
    raise RuntimeError("no\nluck")


@pytest.mark.parametrize(
    ("sinks", "said"),
    [
        (["cvs"], "sink 'cvs' is not known: did you mean 'csv'"),
        ([{"path": "a.csv"}], "needs a `name`"),
        (
            [{"name": "csv", "pth": "a.csv"}],
            "sink 'csv' cannot be made: the option 'pth' is not known: did you mean 'path'",
        ),
        ([f"{__name__}:nothing"], r"sink .*:nothing' is a SimpleNamespace without close\."),
        ([f"{__name__}:broken"], r"sink .*:broken' cannot be made: RuntimeError: no luck\."),
        ([{"name": "jsonl", "path": "record.jsonl"}], "'record.jsonl', which belongs to the run"),
        ([{"name": "csv", "path": "x/../private/a"}], "belongs to the run"),
        (["csv", {"name": "csv"}], "twice"),
        ([{"name": "mlflow", "run": "a"}], "its options are experiment, tracking_uri"),
    ],
)
def test_a_sink_that_cannot_be_used_is_refused_before_a_folder_is_made(tmp_path, sinks, said):
    with pytest.raises(ConfigError, match=said) as caught:
        run(config(sinks=sinks), out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")]
)
def test_a_tracker_that_is_not_installed_is_named_with_its_package(monkeypatch, tmp_path, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ConfigError, match=f"sink '{name}' needs a package .*: pip install {name}, or take it out"
    ):
        make_sinks([name], tmp_path)


def test_sinks_are_no_setting_that_a_result_depends_on():
    assert make_config({"sinks": ["csv"]}).digest == make_config({}).digest
    assert make_config({"sinks": ["csv"]}).sinks == ["csv"]


class Writer:
    """Stands in for TensorBoard's writer."""

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step = folder, purge_step
        self.scalars, self.texts, self.times, self.closed = [], {}, set(), False
        self.flush = lambda: None

    def add_scalar(self, name, value, step, walltime):
        self.scalars.append((name, value, step))
        self.times.add(walltime)

    def add_text(self, name, text, step, walltime):
        self.texts[name] = text
        self.times.add(walltime)

    def close(self):
        self.closed = True


def send(events, sink):
    assert isinstance(sink, Sink)
    for event in events:
        sink.write(event)


def test_tensorboard_gets_every_number_with_the_time_of_the_start_only(finished, monkeypatch, tmp_path):
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    result, kept = finished
    sink = TensorBoardSink(tmp_path / "log")
    send(kept.events, sink)
    writer = sink._writer
    sink.close()
    assert writer.closed
    assert len(writer.times) == 1, "the time of a round tells about its cohort"
    assert writer.texts["claim/record"] == result.claims[0]["statement"]
    values = [(value, step) for name, value, step in writer.scalars if name == "round/accuracy"]
    assert values == list(zip(result.rounds()["accuracy"], result.rounds()["round"], strict=True))
    measured = result.findings()["value"].notna().sum()
    names = [name for name, _, _ in writer.scalars if name.startswith(("performance/", "comparison/"))]
    assert {name.count("/") for name, _, _ in writer.scalars} == {1}, "a name under another is no file"
    assert sum(not name.endswith((".low", ".high")) for name in names) == measured


def mlflow_double():
    """The part of MLflow that is used, and what it was told."""
    calls = SimpleNamespace(metrics=[], params=[], tags={}, runs=[], ended=[], batches=[])

    class Client:
        def __init__(self, tracking_uri):
            calls.uri = tracking_uri

        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return f"id of {name}"

        def create_run(self, experiment, start_time, run_name):
            calls.runs.append((experiment, start_time, run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id="run"))

        def log_batch(self, run, metrics=(), params=()):
            calls.batches.append((len(metrics), len(params)))
            calls.metrics += metrics
            calls.params += params

        def set_tag(self, run, key, value):
            calls.tags[key] = value

        def set_terminated(self, run, end_time):
            calls.ended.append(end_time)

    module = ModuleType("mlflow")
    module.MlflowClient = Client
    module.entities = SimpleNamespace(
        Metric=lambda key, value, timestamp, step: SimpleNamespace(**locals()),
        Param=lambda key, value: (key, value),
    )
    return module, calls


def test_mlflow_gets_the_run_at_its_end_with_the_time_of_the_start_only(finished, monkeypatch):
    module, calls = mlflow_double()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    result, kept = finished
    sink = MlflowSink(experiment="mine")
    many = [event for event in kept.events if event["kind"] == "round"] * 500
    send([kept.events[0], *many], sink)
    assert not calls.runs, "a server would learn how long rounds take"
    sink.close()
    assert calls.runs[0][0] == "id of mine"
    assert calls.runs[0][2] == result.start.run
    assert {metric.timestamp for metric in calls.metrics} == {calls.runs[0][1], *calls.ended}
    assert len(calls.metrics) == 500 * sum(
        value is not None for event in many[:3] for value in {**event["metrics"], **event["spend"]}.values()
    )
    assert max(count for count, _ in calls.batches) <= 1000
    assert dict(calls.params)["settings_sha256"] == result.start.settings_sha256
    assert calls.tags["claim.client"] == result.claims[1]["statement"]


def test_every_built_in_sink_is_found_and_says_what_it_needs(tmp_path):
    for name in SINKS:
        try:
            (sink,) = make_sinks([name], tmp_path / "not there yet")
        except ConfigError as error:
            assert "pip install" in str(error)  # noqa: PT017 - either answer is right
        else:
            assert isinstance(sink, Sink)
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_ones_own_can_be_written_to_a_sink_afterwards(finished, tmp_path):
    sink = CsvSink(tmp_path / "later.csv")
    send(recorded_events(finished[0].path), sink)
    sink.close()
    assert (tmp_path / "later.csv").read_bytes() == (finished[0].path / "metrics.csv").read_bytes()


def test_the_command_says_in_one_line_that_a_sink_was_dropped(fedsafe, tiny_toml, tmp_path):
    (tmp_path / "own_sink.py").write_text(
        "class Own:\n"
        "    def __init__(self, folder, level=1): self.level = level\n"
        "    def write(self, event): raise OSError('no\\nspace')\n"
        "    def close(self): ...\n"
    )
    sinks = ["csv", {"name": "own_sink:Own", "level": 2}]
    command = fedsafe("run", tiny_toml(sinks=sinks), "--out", "out")
    assert command.code == 0, command.err
    assert command.err == "the sink Own failed, and the run goes on without it: OSError: no space\n"
    assert (tmp_path / "out" / "metrics.csv").is_file()


class Deaf:
    def on_start(self, path, start, first_round): ...

    def on_end(self, end): ...


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([SinkCallback(), Deaf()], r"callbacks\[1\], a Deaf, has no method on_round and no on_assessment"),
        ([SinkCallback], r"callbacks\[0\] is the class SinkCallback: give an instance"),
        (SinkCallback(), "callbacks is SinkCallback"),
        ("csv", "callbacks is str: 'csv'"),
        (None, "callbacks is NoneType"),
    ],
)
def test_callbacks_that_cannot_be_told_are_refused_by_name(given, said):
    with pytest.raises(ConfigError, match=said):
        require_callbacks(given)


def test_callbacks_are_kept_in_order():
    one, two = SinkCallback(), SinkCallback()
    assert require_callbacks([one, two]) == (one, two)
    assert require_callbacks(()) == ()
