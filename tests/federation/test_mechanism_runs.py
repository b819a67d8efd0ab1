"""Whole runs with each way to release: chunks, crashes and resuming change nothing, and claims say how."""

import itertools
import json

import numpy as np
import pytest
from tiny_federation import config

from fedsafe.cli.ledger import verify_command
from fedsafe.errors import CalibrationError, ConfigError, EngineError
from fedsafe.privacy.chain import read_events
from fedsafe.records import Round
from fedsafe.runs import resume, run
from fedsafe.store import RunFolder

ROUNDS = 4
# Each setting, and what its claim must say.
WAYS = {
    "fixed": (
        {"federation__cohort": {"name": "fixed", "size": 6}, "privacy__client__epsilon": 5.0},
        "without replacement",
    ),
    "capped": ({"server__aggregator": {"name": "capped_mean", "cap": 30}}, "zero-out"),
    "adaptive": ({"server__aggregator": "adaptive_clip"}, "follows the updates"),
    "chosen": ({"server__aggregator": "chosen_noise"}, "chosen round by round"),
    "local": ({"server__aggregator": "local_gaussian", "privacy__client__epsilon": 5.0}, "against the server"),
    "banded": ({"server__aggregator": {"name": "banded_mean", "bands": 2}}, "as one release"),
    "distributed": (
        {"server__aggregator": {"name": "distributed_mean", "minimum": 1}, "privacy__client__epsilon": 5.0},
        "secure aggregation",
    ),
    "skellam": (
        {
            "server__aggregator": {"name": "distributed_mean", "minimum": 1, "law": "skellam"},
            "privacy__client__epsilon": 5.0,
        },
        "skellam",
    ),
    "grid": ({"privacy__record__arithmetic": "grid"}, "Gaussian rounded to a grid"),
    "batches": ({"client__batch_size": 2, "privacy__record__epsilon": 5.0}, "without replacement"),
}  # fmt: skip


def values(way: str, **changes):
    return config(rounds=ROUNDS, privacy__noise_key="seed", **{**WAYS[way][0], **changes})


def models(path) -> list[str]:
    return [
        line.parameters_sha256 for line in RunFolder.open(path).record() if hasattr(line, "parameters_sha256")
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The run of a way, which is made once."""
    runs = {}

    def of(name):
        if name not in runs:
            runs[name] = run(values(name), out=tmp_path_factory.mktemp(name) / "run")
        return runs[name]

    return of


@pytest.fixture(params=WAYS)
def way(request, done):
    return request.param, done(request.param)


def test_the_claim_says_how_and_the_ledger_holds(way, capsys):
    name, whole = way
    assert len(models(whole.path)) == ROUNDS
    claim = whole.claims[0 if name in ("grid", "batches") else 1]
    said = " ".join([claim["statement"], *claim["assumptions"]])
    assert WAYS[name][1] in said
    assert claim["epsilon"] is not None
    verify_command(whole.path)
    assert "the ledger holds" in capsys.readouterr().out


def test_neither_chunks_nor_a_crash_change_a_bit(way, tmp_path, monkeypatch):
    name, whole = way
    calls, real = [], RunFolder.write_checkpoint

    def dying(self, *arguments, **options):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_checkpoint", dying)
        with pytest.raises(KeyboardInterrupt):
            run(values(name, engine__chunk=2), out=tmp_path / "run")
    assert len(models(tmp_path / "run")) == 2
    resume(tmp_path / "run")
    assert models(tmp_path / "run") == models(whole.path)


def test_the_record_holds_the_matrix_and_nothing_of_cohorts(way):
    name, whole = way
    cells = {(cell["adversary"], cell["unit"]): cell for cell in whole.matrix}
    # Where clients add the noise together, there is also a server that sees through the masks.
    assert len(cells) == (8 if name in ("distributed", "skellam") else 6)
    assert all(cell["epsilon"] is not None or cell["reason"] for cell in cells.values())
    text = (whole.path / "record.jsonl").read_text()
    assert '"cohort":' not in text
    assert json.loads(text.splitlines()[0])["plan"]["client"]["epsilon"] > 0


def test_distributed_noise_aborts_where_too_few_are_left(tmp_path):
    wanted = {"name": "distributed_mean", "minimum": 12}
    with pytest.raises(EngineError, match="the sum stays masked and the round is aborted"):
        run(values("distributed", server__aggregator=wanted), out=tmp_path / "run")


def cohorts(path) -> list[set[int]]:
    """Who was reserved in each round."""
    events = read_events(path / "private" / "ledger.sqlite")
    return [set(event.body["cohort"]) for event in events if event.kind == "round"]


def test_a_client_of_a_banded_run_stays_away_as_planned(done):
    found = cohorts(done("banded").path)
    assert any(found)
    assert not any(before & after for before, after in itertools.pairwise(found))


class TestBudgets:
    def test_a_run_with_given_noise_ends_before_its_budget_is_overspent(self, tmp_path):
        ended = run(
            config(rounds=30, privacy__client__noise=4.0, privacy__client__epsilon=1.0), out=tmp_path / "run"
        )
        assert ended.end.status == "stopped"
        assert 0 < ended.end.rounds < 30
        assert f"spent after {ended.end.rounds} of 30 rounds" in ended.end.reason
        lines = [line for line in RunFolder.open(ended.path).record() if isinstance(line, Round)]
        assert max(line.spend["client"] for line in lines) <= 1.0

    def test_a_client_with_no_budget_is_never_asked(self, tmp_path):
        settings = config(rounds=6, federation__cohort__rate=1.0, privacy__record__budgets={"3": 1e-4})
        found = cohorts(run(settings, out=tmp_path / "run").path)
        assert found == [set(range(12)) - {3}] * 6

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"privacy__client__noise": 0.5}, "one round with noise = 0.5 costs epsilon"),
            ({"privacy__record__budgets": {"99": 1.0}}, "names client 99; there are 12"),
            ({"privacy__record__budgets": {"x": 1.0}}, "'x' is no number of a client"),
            ({"federation__cohort": {"name": "fixed", "size": 13}}, "size = 13 of 12 clients"),
            ({"federation__cohort": {"name": "fixed"}}, "needs size"),
            ({"federation__cohort": {"name": "fixed", "size": 3, "rate": 0.5}}, "rate = 0.5 is no key of"),
            ({"client__batch_size": 1000}, "batch_size = 1000, and a client has"),
        ],
    )
    def test_a_wrong_request_says_what_to_change(self, tmp_path, changes, message):
        with pytest.raises((ConfigError, CalibrationError), match=message):
            run(config(**changes), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_the_adaptive_clip_moves_and_is_kept_for_a_resumed_run(done):
    whole = done("adaptive")
    states = [RunFolder.open(whole.path).read_aggregator_state(n)[0]["clip"] for n in (ROUNDS - 1, ROUNDS)]
    assert np.isfinite(states).all()
    assert states[0] != states[1]
