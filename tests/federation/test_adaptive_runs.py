"""Whole runs whose noise is chosen from what they released: crashes, the end of the budget, and what is refused."""

import math
import sys

import pytest
from tiny_federation import config

from fedsafe.aggregation import ChosenNoise
from fedsafe.cli.ledger import show_command, verify_command
from fedsafe.engine import InlineGrid
from fedsafe.errors import BudgetSpent, ConfigError, EngineError, LedgerError, PlanViolation
from fedsafe.federation import NoisyAverage
from fedsafe.privacy.chain import read_events
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.records import End, Round
from fedsafe.runs import resume, run
from fedsafe.store import RunFolder

ROUNDS, EPSILON = 6, 2.0
FACTOR = 1.0


def greedy(so_far):
    """Spends more than its share, so that the budget ends before the rounds do."""
    return 0.7 * so_far.even


def moody(so_far):
    """Chooses by something else than what was released."""
    return FACTOR * so_far.even


def dear(so_far):
    return 0.2 * so_far.planned


def sick(so_far):
    return 3.0 * so_far.planned if so_far.round == 1 else math.nan


def values(choose: str, **changes):
    named = choose if choose in ("signal", "even") else f"test_adaptive_runs:{choose}"
    settings = {
        "privacy__client__epsilon": EPSILON,
        "privacy__noise_key": "seed",
        "server__aggregator": {"name": "chosen_noise", "choose": named},
        "assess__every": 100,
    }
    return config(rounds=ROUNDS, **{**settings, **changes})


def lines(path, kind=Round):
    return [line for line in RunFolder.open(path).record() if isinstance(line, kind)]


def models(path) -> list[str]:
    return [line.parameters_sha256 for line in lines(path)]


def events(path):
    return [event for event in read_events(path / "private" / "ledger.sqlite") if event.kind == "round"]


def noises(path) -> list[float]:
    return [event.body["noise"] for event in events(path)]


def findings(path):
    return list(RunFolder.open(path).read("findings.jsonl"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run of each choice."""
    made = {}

    def of(choose):
        if choose not in made:
            made[choose] = run(values(choose), out=tmp_path_factory.mktemp(choose) / "run")
        return made[choose]

    return of


def dying(monkeypatch, owner, method, *, at: int):
    """The process dies in a method, at its ``at``-th call, before it does anything."""
    calls, real = [], getattr(owner, method)

    def broken(self, *arguments, **options):
        calls.append(method)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(owner, method, broken)


class TestAWholeRun:
    def test_the_claim_is_that_of_the_filter_and_every_round_shows_it(self, whole):
        done = whole("signal")
        claim = done.claims[1]
        assert (claim["regime"], claim["known_cohorts_epsilon"]) == ("adaptive", None)
        assert claim["epsilon"] == pytest.approx(EPSILON)
        assert all(line.spend["client"] == pytest.approx(EPSILON) for line in lines(done.path))
        assert (done.end.rounds, done.end.status) == (ROUNDS, "completed")

    def test_the_noise_differs_from_round_to_round_and_the_budget_pays_for_it(self, whole):
        done = whole("signal")
        level = PrivacyPlan.from_numbers(done.start.plan).client
        chosen, passed = noises(done.path), level.filter()
        assert len(set(chosen)) > 2
        passed.spend([level.chosen(noise) for noise in chosen])
        assert 0.5 * passed.budget < passed.spent <= passed.budget

    def test_a_constant_choice_has_the_planned_noise(self, whole):
        done = whole("even")
        level = PrivacyPlan.from_numbers(done.start.plan).client
        assert noises(done.path) == pytest.approx([level.noise] * ROUNDS, rel=1e-6)

    def test_the_ledger_is_verified_and_shows_each_choice(self, whole, capsys):
        path = whole("signal").path
        verify_command(path)
        said = capsys.readouterr().out
        assert "the ledger holds" in said
        assert "of Rényi divergence at order" in said
        show_command(path)
        said = capsys.readouterr().out
        assert all(f"noise multiplier {noise:g} chosen" in said for noise in noises(path))

    def test_a_cap_on_participations_leaves_the_claim_as_it_is(self, tmp_path):
        """Given all other cohorts, a client is in a round with at most the rate: the filter charges no less."""
        done = run(values("even", privacy__record__max_participations=2), out=tmp_path / "run")
        counts = [client for event in events(done.path) for client in event.body["cohort"]]
        assert max(counts.count(client) for client in counts) == 2
        assert done.claims[1]["epsilon"] == pytest.approx(EPSILON)
        assert "a client that was in 2 is left out" in done.claims[1]["sampler"]

    def test_the_round_is_finished_with_the_noise_that_the_ledger_has(self, tmp_path, monkeypatch):
        used, real = [], ChosenNoise._mean

        def seen(self, noise):
            used.append(noise)
            return real(self, noise)

        with monkeypatch.context() as patched:
            patched.setattr(ChosenNoise, "_mean", seen)
            done = run(values("signal"), out=tmp_path / "run")
        assert list(dict.fromkeys(noise for noise in used if noise)) == list(dict.fromkeys(noises(done.path)))

    def test_a_choice_is_on_the_disk_before_a_message_leaves(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patched:
            dying(patched, InlineGrid, "send_and_receive", at=3)
            with pytest.raises(KeyboardInterrupt):
                run(values("signal"), out=tmp_path / "run")
        assert len(noises(tmp_path / "run")) == 3
        assert models(tmp_path / "run") == models(tmp_path / "run")[:2]


class TestResuming:
    @pytest.mark.parametrize(
        ("owner", "method", "at"),
        [
            (InlineGrid, "send_and_receive", 3),  # reserved, and perhaps sent
            (RunFolder, "write_aggregator_state", 2),
            (RunFolder, "write_checkpoint", 3),
            (RunFolder, "append_record", 4),  # the model of round 3 is written, its line is not
        ],
    )
    @pytest.mark.parametrize("choose", ["signal", "greedy"])
    def test_a_crash_changes_neither_a_choice_nor_a_bit(
        self, tmp_path, monkeypatch, whole, choose, owner, method, at
    ):
        with monkeypatch.context() as patched:
            dying(patched, owner, method, at=at)
            with pytest.raises(KeyboardInterrupt):
                run(values(choose), out=tmp_path / "run")
        resume(tmp_path / "run")
        done = whole(choose).path
        assert noises(tmp_path / "run") == noises(done)
        assert models(tmp_path / "run") == models(done)
        assert findings(tmp_path / "run") == findings(done)
        assert [e.body["digest"] for e in events(tmp_path / "run")] == [
            e.body["digest"] for e in events(done)
        ]

    def test_an_interrupted_round_that_is_chosen_otherwise_is_refused(self, tmp_path, monkeypatch):
        """The same stream must not meet a second noise, and a choice may not be read after the fact."""
        with monkeypatch.context() as patched:
            dying(patched, InlineGrid, "send_and_receive", at=3)
            with pytest.raises(KeyboardInterrupt):
                run(values("moody"), out=tmp_path / "run")
        with monkeypatch.context() as patched:
            patched.setattr(sys.modules["test_adaptive_runs"], "FACTOR", 1.001)
            with pytest.raises(LedgerError, match="round 3 was already released with other inputs"):
                resume(tmp_path / "run")
        resume(tmp_path / "run")
        assert len(models(tmp_path / "run")) == ROUNDS


class TestTheEndOfTheBudget:
    def test_it_ends_the_run_with_the_reason_and_the_model_of_the_last_round(self, whole):
        done = whole("greedy")
        assert 1 <= done.end.rounds < ROUNDS
        assert done.end.status == "stopped"
        assert f"the budget of privacy.client is spent before round {done.end.rounds + 1}" in done.end.reason
        assert len(models(done.path)) == len(events(done.path)) == done.end.rounds
        assert RunFolder.open(done.path).checkpoints()[-1] == done.end.rounds
        assert done.end.accuracy is not None
        verified(done.path)

    def test_its_last_model_is_assessed(self, whole):
        """``assess.every`` is beyond the plan: nothing but the end is assessed."""
        done = whole("greedy")
        assert {line["round"] for line in findings(done.path)} == {done.end.rounds}

    @pytest.mark.parametrize("crash", ["the last line of the record", "the last round's line"])
    def test_a_crash_at_the_end_leads_to_the_same_end(self, tmp_path, monkeypatch, whole, crash):
        done = whole("greedy")
        at = 2 + done.end.rounds if crash == "the last line of the record" else 1 + done.end.rounds
        with monkeypatch.context() as patched:
            dying(patched, RunFolder, "append_record", at=at)
            with pytest.raises(KeyboardInterrupt):
                run(values("greedy"), out=tmp_path / "run")
        assert not lines(tmp_path / "run", End)
        again = resume(tmp_path / "run")
        assert (again.end.rounds, again.end.status, again.end.reason) == (
            done.end.rounds,
            "stopped",
            done.end.reason,
        )
        assert findings(tmp_path / "run") == findings(done.path)
        assert models(tmp_path / "run") == models(done.path)

    def test_a_run_that_cannot_pay_for_its_first_round_fails(self, tmp_path):
        with pytest.raises(BudgetSpent, match="spent before round 1"):
            run(values("dear"), out=tmp_path / "run")
        assert events(tmp_path / "run") == []


class TestWhatIsRefused:
    def test_a_choice_that_is_no_number_fails_in_one_line_after_the_rounds_before(self, tmp_path):
        with pytest.raises(
            EngineError, match=r":sick', before round 2: .*multiplier of nan was chosen"
        ) as caught:
            run(values("sick"), out=tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert len(models(tmp_path / "run")) == len(events(tmp_path / "run")) == 1

    def test_a_strategy_that_does_not_record_the_choice_gets_nowhere(self, tmp_path, monkeypatch):
        real = NoisyAverage.configure_train

        def silent(self, *arguments):
            reserve = self.ledger.reserve
            with monkeypatch.context() as patched:
                patched.setattr(self.ledger, "reserve", lambda *, noise, **rest: reserve(**rest))
                return real(self, *arguments)

        monkeypatch.setattr(NoisyAverage, "configure_train", silent)
        with pytest.raises(PlanViolation, match="no noise multiplier was chosen for round 1"):
            run(values("signal"), out=tmp_path / "run")
        assert events(tmp_path / "run") == []

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"privacy__client__noise": 2.0}, "privacy.client.noise"),
            ({"privacy__client__max_clients_per_person": 2}, "privacy.client.max_clients_per_person above 1"),
            ({"federation__cohort": {"name": "fixed", "size": 4}}, 'federation.cohort.name = "fixed"'),
            ({"privacy__record__budgets": {"3": 0.05}}, "privacy.record.budgets"),
            (
                {"federation__evaluation": {"every": 2}, "federation__client_validation": 0.2},
                "federation.evaluation with noised = true",
            ),
            ({"audit": {"every": 2, "canaries": 60}}, r"\[audit\]"),
        ],
    )
    def test_what_the_filter_does_not_count_is_one_clear_error(self, tmp_path, changes, why):
        with pytest.raises(ConfigError, match=f"'chosen_noise' cannot be used with {why}") as caught:
            run(values("signal", **changes), out=tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()

    def test_without_a_client_level_there_is_nothing_to_choose(self, tmp_path):
        with pytest.raises(ConfigError, match="'chosen_noise' adds noise for a client-level target"):
            run(values("signal", privacy__client__epsilon=math.inf), out=tmp_path / "run")


def verified(path):
    """As ``fedsafe ledger verify`` does; it raises where something is wrong."""
    verify_command(path)
