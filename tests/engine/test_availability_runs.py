"""Whole runs whose clients are not always there: what is counted, charged, claimed, told, and resumed."""

import json
import math

import numpy as np
import pytest
from tiny_federation import CLIENTS, apps, config, parts, plan, play

from fedsafe.aggregation import Fold
from fedsafe.client import ClientJob
from fedsafe.engine import Availability, AvailabilityGrid, ClientApps, InlineGrid
from fedsafe.errors import ConfigError, DataError, EngineError
from fedsafe.federation import ClientRuntime, score_deviation
from fedsafe.federation.scores import mean_score
from fedsafe.privacy.chain import read_events
from fedsafe.privacy.levels import EvaluationPlan
from fedsafe.report import write_report
from fedsafe.rng import Stream, StreamId
from fedsafe.runs.availability import INDEPENDENT, PUBLIC_TIMES
from fedsafe.runs.commit import Commit
from fedsafe.runs.compose import aggregator_of, compose
from fedsafe.runs.config import make_config, read_config
from fedsafe.runs.resume import resume
from fedsafe.runs.run import run

DIURNAL = {"name": "diurnal", "low": 0.2, "high": 0.9, "period": 40.0, "speed": {"name": "lognormal"}}
WITHOUT_CLIENT_TARGET = {"privacy__client__epsilon": math.inf}


def there(**section):
    return {"federation__availability": section}


def write_trace(path, rows):
    lines = [f"{client},{start},{end}" for client, start, end in rows]
    path.write_text("\n".join(["client,start,end", *lines, ""]))
    return str(path)


def timings(run):
    lines = (run.path / "private" / "timings.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def models(run):
    """Digest of the parameters after each round."""
    lines = (run.path / "record.jsonl").read_text().splitlines()
    return [line["parameters_sha256"] for line in map(json.loads, lines) if line["kind"] == "round"]


def virtual(run):
    return [(line["missing"], line["virtual_seconds"], line["virtual_elapsed"]) for line in timings(run)]


class Absent:
    """A trainer under which some clients do not move the model."""

    def __init__(self, trainer, clients):
        self.trainer, self.clients = trainer, clients
        self.layout = trainer.layout

    def train(self, parameters, jobs: list[ClientJob]):
        rows = self.trainer.train(parameters, jobs)
        for row, job in enumerate(jobs):
            if job.client in self.clients:
                rows[row] = parameters
        return rows


@pytest.mark.parametrize("chunk", [None, 5])
def test_a_missing_client_is_one_that_contributes_zero_to_the_bit(tmp_path, chunk):
    of = parts(federation__cohort__rate=1.0)
    by = plan(of)
    model = Availability(clients=CLIENTS, seed=3, dropout=0.3)
    missing = np.flatnonzero(
        ~model.ask(range(CLIENTS), kind="train", group="1", seconds=0.0).counted
    ).tolist()
    assert 0 < len(missing) < CLIENTS
    honest = apps(of, by)().one.__self__
    runtime = ClientRuntime(
        trainer=Absent(honest.trainer, missing),
        aggregator=aggregator_of(of, by),
        records=of.records,
        key=bytes(32),
        plan=by.hash,
    )
    grids = {
        "absent": AvailabilityGrid(InlineGrid(clients=CLIENTS, apps=apps(of, by)(), chunk=chunk), model),
        "zero": InlineGrid(clients=CLIENTS, apps=ClientApps(one=runtime.train, batch=runtime.train_chunk)),
        "all": InlineGrid(clients=CLIENTS, apps=apps(of, by)()),
    }
    found = {name: play(of, by, grid, tmp_path / name, last=1)[0] for name, grid in grids.items()}
    np.testing.assert_array_equal(found["absent"].parameters, found["zero"].parameters)
    assert not np.array_equal(found["absent"].parameters, found["all"].parameters)
    assert found["absent"].failures == len(missing)
    assert grids["absent"].take_realised().missing == len(missing)


def test_ray_and_inline_leave_out_the_same_clients(ray_of_two, tmp_path):
    from fedsafe.engine.ray_grid import RayGrid

    of = parts(federation__cohort__rate=1.0, **there(dropout=0.4))
    by = plan(of)
    ray = RayGrid(clients=CLIENTS, make_apps=apps(of, by), workers=2)
    try:
        found = [
            play(of, by, AvailabilityGrid(grid, of.availability), tmp_path / str(number))
            for number, grid in enumerate((InlineGrid(clients=CLIENTS, apps=apps(of, by)()), ray))
        ]
    finally:
        ray.close()
    inline, over_ray = found
    np.testing.assert_array_equal(inline[-1].parameters, over_ray[-1].parameters)
    assert [outcome.failures for outcome in inline] == [outcome.failures for outcome in over_ray]
    assert sum(outcome.failures for outcome in inline) > 0


def test_a_run_trains_while_three_in_ten_drop_out(tmp_path):
    values = config(
        rounds=12,
        federation__cohort__rate=1.0,
        privacy__record__epsilon=math.inf,
        assess__every=12,
        **WITHOUT_CLIENT_TARGET,
        **there(dropout=0.3),
    )
    result = run(values, out=tmp_path / "run")
    accuracy = result.rounds()["accuracy"]
    assert accuracy.iloc[-1] > 0.75
    assert 0 < sum(line["missing"] for line in timings(result)) < 12 * CLIENTS


def test_an_absent_client_is_charged_and_its_cap_counts_the_rounds_it_missed(tmp_path):
    rows = [(client, 0, 10 if client else 0) for client in range(CLIENTS)]
    path = write_trace(tmp_path / "there.csv", rows)
    values = config(
        federation__cohort__rate=1.0,
        privacy__record__max_participations=2,
        **there(name="trace", path=path, period=10.0),
    )
    result = run(values, out=tmp_path / "run")
    cohorts = [event.body["cohort"] for event in read_events(result.path / "private" / "ledger.sqlite")[1:]]
    assert cohorts == [list(range(CLIENTS))] * 2 + [[]], "client 0 never answers, and is charged"
    assert [line["missing"] for line in timings(result)] == [1, 1, 0]


def test_a_round_that_nobody_answers_releases_noise_and_is_no_failure(tmp_path):
    rows = [(client, 0, 5) for client in range(CLIENTS)]
    path = write_trace(tmp_path / "there.csv", rows)
    section = there(name="trace", path=path, period=10.0, network_seconds=5.0)
    values = config(federation__cohort__rate=1.0, **section)
    values["federation"]["availability"]["seconds_per_record"] = 0.0
    result = run(values, out=tmp_path / "run")
    assert [line["missing"] for line in timings(result)] == [0, CLIENTS, 0]
    assert len(set(models(result))) == 3
    of = parts(federation__cohort__rate=1.0)
    nobody = AvailabilityGrid(
        InlineGrid(clients=CLIENTS, apps=apps(of, plan(of))()),
        Availability(clients=CLIENTS, seed=0, network=2.0, deadline=1.0),
    )
    with pytest.raises(EngineError, match="no client replied"):
        play(of, plan(of), nobody, tmp_path / "unexpected")


@pytest.mark.parametrize("clock", ["public", "realised"])
def test_a_run_that_is_killed_and_resumed_meets_the_same_clients_at_the_same_times(
    tmp_path, monkeypatch, clock
):
    changes = WITHOUT_CLIENT_TARGET if clock == "realised" else {}
    values = config(
        rounds=6,
        privacy__noise_key="seed",
        assess__every=6,
        federation__client_validation=0.2,
        federation__evaluation={"every": 2, "noised": False},
        **changes,
        **there(**DIURNAL, dropout=0.1, clock=clock),
    )
    whole = run(values, out=tmp_path / "whole")
    save = Commit.save

    def killed(self, outcome, *rest):
        if outcome.round == 4:
            raise KeyboardInterrupt
        save(self, outcome, *rest)

    monkeypatch.setattr(Commit, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(values, out=tmp_path / "killed")
    monkeypatch.undo()
    again = resume(tmp_path / "killed")
    assert virtual(again) == virtual(whole)
    assert sum(missing for missing, *_ in virtual(whole)) > 0
    assert models(again) == models(whole)


def test_who_is_there_follows_the_seed_and_not_the_noise_key(tmp_path):
    values = config(federation__cohort__rate=1.0, **there(**DIURNAL, dropout=0.2))
    first, second = (run(values, out=tmp_path / name) for name in ("first", "second"))
    assert virtual(first) == virtual(second)
    assert (first.path / "private" / "noise.key").read_bytes() != (
        second.path / "private" / "noise.key"
    ).read_bytes()
    other = run({**values, "seed": 5}, out=tmp_path / "other")
    assert virtual(first) != virtual(other)


def test_an_edited_trace_is_another_plan(tmp_path, monkeypatch):
    path = tmp_path / "there.csv"
    write_trace(path, [(client, 0, 1e6) for client in range(CLIENTS)])
    values = config(**there(name="trace", path=str(path)))
    save = Commit.save

    def killed(self, outcome, *rest):
        save(self, outcome, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(Commit, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(values, out=tmp_path / "run")
    monkeypatch.undo()
    write_trace(path, [(client, 0, 1e6 - client) for client in range(CLIENTS)])
    with pytest.raises(ConfigError, match="not the one that"):
        resume(tmp_path / "run")


def test_claims_name_what_they_rest_on_where_somebody_may_be_missing(tmp_path):
    def assumed(**section):
        result = run(
            config(rounds=2, **(there(**section) if section else {})), out=tmp_path / str(len(section))
        )
        first, second = (set(claim["assumptions"]) & {INDEPENDENT, PUBLIC_TIMES} for claim in result.claims)
        assert first == second
        return first

    assert assumed() == set()
    assert assumed(dropout=0.0) == set(), "everybody counts"
    assert assumed(dropout=0.1, clock="realised") == {INDEPENDENT}
    assert assumed(**DIURNAL) == {INDEPENDENT, PUBLIC_TIMES}


def test_the_record_tells_what_was_to_be_expected_and_nobody_who_was_missing(tmp_path):
    rows = [(client, 0, 1e6 if client < 9 else 0) for client in range(CLIENTS)]
    path = write_trace(tmp_path / "there.csv", rows)
    section = there(name="trace", path=path, dropout=0.2, deadline=60.0)
    result = run(config(federation__cohort__rate=0.9, **section), out=tmp_path / "run")
    told = result.start.federation["availability"]
    assert told["expected_missing"] == pytest.approx(1.0 - 0.75 * 0.8)
    assert told["planned_seconds"] == 180.0
    write_report(result.path)
    page = (result.path / "report.html").read_text()
    assert "Asked clients that are missing, expected" in page
    assert "40.0 %" in page
    shared = [file for file in result.path.rglob("*") if file.is_file() and "private" not in file.parts]
    for word in ("virtual_seconds", "virtual_elapsed", '"missing"'):
        assert word in (result.path / "private" / "timings.jsonl").read_text()
        assert not [file for file in shared if word.encode() in file.read_bytes()]
    # Public numbers alone: other cohorts give the same description.
    other = run(config(federation__cohort__rate=0.2, **section), out=tmp_path / "other")
    assert other.start.federation["availability"] == told


EVALUATION = EvaluationPlan(every=1, noised=True, epsilon=1.0, rate=0.5, noise_record=0.0, noise_client=1e-6)


def test_a_mean_score_is_over_those_who_are_expected_to_answer():
    """Else clients who are absent, and count as the middle, would pull every score to it."""
    rng = np.random.default_rng(0)
    clients, present, estimates = 400, 0.6, []
    for number in range(300):
        answers = int(rng.binomial(clients, EVALUATION.rate * present))
        fold = Fold(arrays={"score": np.array([round(answers * 0.4 * 2**30)], np.int64)})
        stream = Stream(bytes(32), StreamId(purpose="test", client=-1, round=number, digest=b""))
        estimates.append(mean_score(fold, answers, clients, EVALUATION, stream, present))
    deviation = score_deviation(EVALUATION, [1] * clients, present)
    assert abs(np.mean(estimates) - 0.9) < 5.0 * deviation / math.sqrt(300)
    assert not abs(np.mean(estimates) - 0.9 + 0.4 * (1 - present)) < 5.0 * deviation / math.sqrt(300)
    # The largest deviation is that of scores at the ends, 1/2 from the middle.
    assert np.std(estimates) == pytest.approx(0.8 * deviation, rel=0.25)
    assert deviation > score_deviation(EVALUATION, [1] * clients)
    assert mean_score(fold, 0, clients, EVALUATION, stream, 0.0) is None
    assert score_deviation(EVALUATION, [1] * clients, 0.0) is None


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"name": "nightly"}, "federation.availability.name = 'nightly': input should be 'always'"),
        ({"drop": 0.1}, "did you mean 'federation.availability.dropout'"),
        ({"dropout": 1.0}, "dropout = 1.0: input should be less than 1"),
        ({"low": 0.1}, "low belongs to diurnal, not to 'always'"),
        ({"name": "diurnal", "path": "x.csv"}, "path belongs to trace, not to 'diurnal'"),
        ({"name": "diurnal", "low": 0.9, "high": 0.2}, "low = 0.9 is above high = 0.2"),
        ({"name": "trace"}, "needs a file: set federation.availability.path"),
        ({"speed": {"name": "pareto", "sigma": 1.0}}, "speed.sigma belongs to lognormal, not to 'pareto'"),
        ({"speed": "fast"}, "it is a section with the keys name, sigma, alpha"),
        ({"deadline": 0}, "deadline = 0: input should be greater than 0"),
        ({"deadline": 4.0}, "nobody would ever answer in time; the fastest client takes 5"),
        ({"name": "diurnal", "clock": "realised"}, "tells who was in its cohort"),
        (
            {"name": "diurnal", "network_seconds": 0.0, "seconds_per_record": 0.0},
            "with rounds that take no time: set deadline",
        ),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused_in_one_line(section, said):
    with pytest.raises(ConfigError) as caught:
        compose(make_config(config(**there(**section))))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_traces_that_do_not_reach_as_far_as_the_run_are_refused(tmp_path):
    path = write_trace(tmp_path / "there.csv", [(client, 0, 9) for client in range(CLIENTS)])
    section = {"name": "trace", "path": path, "deadline": 6.0, "seconds_per_record": 0.0}
    with pytest.raises(
        ConfigError, match="the trace ends after 9 s, and the last of 3 rounds begins after 12 s"
    ):
        compose(make_config(config(**there(**section))))
    assert compose(make_config(config(**there(**section, period=9.0)))).availability is not None
    with pytest.raises(DataError, match="no line for 1 of 13 clients"):
        compose(make_config(config(**there(**section), federation__clients=13)))


def test_a_realised_clock_is_refused_only_where_it_would_tell_of_a_cohort():
    timed = {**there(**DIURNAL, clock="realised"), **WITHOUT_CLIENT_TARGET}
    for changes in (there(dropout=0.1, clock="realised"), timed):
        assert compose(make_config(config(**changes))).availability is not None


def test_an_override_is_enough_and_a_configuration_without_the_section_has_none():
    assert read_config(None).federation.availability is None
    section = read_config(None, ["federation.availability.name=diurnal"]).federation.availability
    assert (section.low, section.high, section.period, section.clock) == (0.1, 0.9, 86400.0, "public")


def test_the_command_says_it_in_one_line(fedsafe, tiny_toml):
    command = fedsafe("run", tiny_toml(), "--set", "federation.availability.deadline=1")
    assert command.code != 0
    assert command.err.strip().count("\n") == 0
    assert "nobody would ever answer in time" in command.err


def test_a_noised_evaluation_where_clients_are_missing_runs_to_its_end(tmp_path):
    values = config(
        rounds=2,
        federation__client_validation=0.3,
        federation__evaluation={"every": 1, "epsilon": 0.05},
        **there(**DIURNAL),
    )
    assert run(values, out=tmp_path / "run").rounds()["federated_score"].notna().all()
