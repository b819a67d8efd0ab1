"""Federated evaluation: planned, reserved, noised at both ends, exact in between, and off by default."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from flwr.app import Error, Message
from test_rng import scale_is
from test_rounds import Witness, ledger_rounds
from tiny_federation import CLIENTS, apps, parts, plan, play

from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import ConfigError, PlanViolation
from fedsafe.federation import make_client_app
from fedsafe.federation.messages import instruction_content, pack_parameters
from fedsafe.federation.scores import (
    mean_score,
    merge_scores,
    score_deviation,
    score_of_client,
    sum_of_scores,
)
from fedsafe.privacy.chain import read_events
from fedsafe.privacy.levels import EvaluationPlan
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, StreamId, key_from_seed


def evaluated(by: PrivacyPlan, **changes) -> PrivacyPlan:
    values = {
        "every": 1,
        "noised": True,
        "epsilon": 1.0,
        "rate": 0.5,
        "noise_record": 2.0,
        "noise_client": 3.0,
    }
    return replace(by, evaluation=EvaluationPlan(**{**values, **changes}))


@dataclass(frozen=True)
class Table:
    """A measure that looks scores up by record; what it is asked for is remembered."""

    scores: np.ndarray
    asked: list

    def at(self, parameters):
        def measured(rows):
            self.asked.append((parameters.tobytes(), rows.tolist()))
            found = self.scores[rows]
            if (found == -7.0).any():
                raise RuntimeError("out of memory")
            return np.zeros(len(rows)), found

        return measured


# Client k has k records, so client 0 has none, and client 5 is wrong on some and right on others.
ROWS = [np.arange(20 * client, 20 * client + client) for client in range(CLIENTS)]
SCORES = np.random.default_rng(4).integers(0, 2, 20 * CLIENTS).astype(np.float64)


def runtime_of(of, by, scores=SCORES, rows=ROWS):
    runtime = apps(of, replace(by, evaluation=None))().one.__self__
    return replace(
        runtime,
        plan=by.hash,
        measure=Table(scores, []),
        validation=rows,
        evaluation=by.evaluation,
    )


def both(runtime) -> ClientApps:
    return ClientApps(one=runtime.answer, batch=runtime.answer_chunk)


@pytest.fixture(scope="module")
def federation():
    of = parts()
    return of, evaluated(plan(of))


@pytest.fixture(scope="module")
def runtime(federation):
    return runtime_of(*federation)


def evaluations(outcomes):
    return [outcome.evaluation for outcome in outcomes]


class TestRound:
    def test_it_is_off_by_default(self, tmp_path):
        of = parts()
        kinds = []
        grid = Witness(
            clients=CLIENTS,
            apps=apps(of, plan(of))(),
            see=lambda sent: kinds.extend(message.metadata.message_type for message in sent),
        )
        assert evaluations(play(of, plan(of), grid, tmp_path / "ledger")) == [None, None, None]
        assert set(kinds) == {"train"}

    def test_it_changes_nothing_of_the_training(self, federation, runtime, tmp_path):
        """Same plan hash, so the same streams: only the grid without evaluation messages differs."""
        of, by = federation
        with_it = play(of, by, InlineGrid(clients=CLIENTS, apps=both(runtime)), tmp_path / "with")

        @dataclass(kw_only=True)
        class Deaf(InlineGrid):
            def exchange(self, messages, timeout):
                if messages[0].metadata.message_type == "evaluate":
                    return []
                return super().exchange(messages, timeout)

        without = play(of, by, Deaf(clients=CLIENTS, apps=both(runtime)), tmp_path / "without")
        for one, other in zip(with_it, without, strict=True):
            assert one.parameters.tobytes() == other.parameters.tobytes()
        assert evaluations(with_it) != evaluations(without)

    def test_it_happens_when_it_is_due_and_judges_the_new_model(self, federation, tmp_path):
        of, _ = federation
        by = evaluated(plan(of), every=2)
        runtime = runtime_of(of, by)
        outcomes = play(of, by, InlineGrid(clients=CLIENTS, apps=both(runtime)), tmp_path / "ledger")
        assert [value is None for value in evaluations(outcomes)] == [True, False, True]
        assert {parameters for parameters, _ in runtime.measure.asked} == {outcomes[1].parameters.tobytes()}

    def test_it_is_in_the_ledger_before_any_of_its_messages_leaves(self, federation, runtime, tmp_path):
        of, by = federation
        seen = []

        def see(sent):
            event = read_events(tmp_path / "ledger")[-1]
            seen.append((event.kind, event.round))
            assert [message.metadata.dst_node_id - 2 for message in sent] == event.body["cohort"]
            assert {message.metadata.message_type for message in sent} == {
                {"round": "train", "evaluation": "evaluate"}[event.kind]
            }

        outcomes = play(of, by, Witness(clients=CLIENTS, apps=both(runtime), see=see), tmp_path / "ledger")
        assert seen == [(kind, number) for number in (1, 2, 3) for kind in ("round", "evaluation")]
        events = read_events(tmp_path / "ledger")
        assert outcomes[-1].head.sequence == events[-1].sequence
        cohorts = {
            kind: [e.body["cohort"] for e in events if e.kind == kind] for kind in ("round", "evaluation")
        }
        assert cohorts["round"] != cohorts["evaluation"], "its cohort is drawn for itself"

    def test_a_resumed_run_evaluates_as_the_whole_one(self, federation, runtime, tmp_path):
        of, by = federation
        grid = InlineGrid(clients=CLIENTS, apps=both(runtime))
        whole = play(of, by, grid, tmp_path / "whole")
        first = play(of, by, grid, tmp_path / "parts", last=2)
        again = play(of, by, grid, tmp_path / "parts", after=first[0], last=2)  # killed after its reservation
        rest = play(of, by, grid, tmp_path / "parts", after=again[-1])
        assert evaluations([first[0], *again, *rest]) == evaluations(whole)
        assert ledger_rounds(tmp_path / "parts") == ledger_rounds(tmp_path / "whole")


class TestExactness:
    def test_packing_and_runtime_cannot_change_a_bit(self, federation, runtime, tmp_path):
        of, by = federation
        app = make_client_app(lambda context: runtime)
        grids = {
            "whole": InlineGrid(clients=CLIENTS, apps=both(runtime)),
            "fives": InlineGrid(clients=CLIENTS, apps=both(runtime), chunk=5),
            "ones": InlineGrid(clients=CLIENTS, apps=both(runtime), chunk=1),
            "no chunks": InlineGrid(clients=CLIENTS, apps=ClientApps(one=runtime.answer)),
            "Flower's ClientApp": InlineGrid(clients=CLIENTS, apps=ClientApps(one=app)),
        }
        results = {name: evaluations(play(of, by, grid, tmp_path / name)) for name, grid in grids.items()}
        assert all(result == results["whole"] for result in results.values())
        assert None not in results["whole"]

    def test_without_noise_it_is_the_mean_over_the_clients_with_records(self, federation, tmp_path):
        of, _ = federation
        by = evaluated(plan(of), rate=1.0, noise_record=0.0, noise_client=0.0)
        grid = InlineGrid(clients=CLIENTS, apps=both(runtime_of(of, by)))
        means = [SCORES[rows].mean() for rows in ROWS if len(rows)]
        for value in evaluations(play(of, by, grid, tmp_path / "ledger")):
            assert value == pytest.approx(np.mean(means), abs=2.0**-30)

    def test_with_noise_the_divisor_is_the_expected_cohort_and_never_the_replies(self):
        by = scored(rate=0.4, noise_client=1e-9)
        for replies in (0, 1, 5):
            value = mean_score(sum_of_scores([0.5] * replies), replies, 10, by, stream_of(1))
            assert value == pytest.approx(0.5 + replies * 0.5 / 4.0, abs=1e-6)

    def test_without_noise_the_divisor_is_the_replies_and_nobody_has_no_mean(self):
        by = scored(rate=0.4)
        assert mean_score(sum_of_scores([0.5, 0.0]), 2, 10, by, stream_of(1)) == 0.75
        assert mean_score(sum_of_scores([]), 0, 10, by, stream_of(1)) is None


class TestWhoCounts:
    @pytest.mark.parametrize("chunk", [None, 1])
    def test_a_client_that_fails_counts_as_the_middle_and_the_others_as_they_are(
        self, federation, tmp_path, chunk
    ):
        of, _ = federation
        by = evaluated(plan(of), rate=1.0, noise_record=0.0)
        failing, middle = SCORES.copy(), SCORES.copy()
        failing[ROWS[5]], middle[ROWS[5]] = -7.0, 0.5
        results = [
            evaluations(
                play(of, by, InlineGrid(clients=CLIENTS, apps=both(r), chunk=chunk), tmp_path / str(i))
            )
            for i, r in enumerate([runtime_of(of, by, failing), runtime_of(of, by, middle)])
        ]
        assert results[0] == results[1]

    @pytest.mark.parametrize("how", ["lost", "error", "twice"])
    def test_a_reply_that_is_lost_counts_as_the_middle_and_a_second_one_for_nothing(
        self, federation, tmp_path, how
    ):
        of, _ = federation
        by = evaluated(plan(of), rate=1.0, noise_record=0.0)
        sent, meddled = {}, []

        def after(replies):
            meddled.append(len(replies))
            if how == "twice":
                return [*replies, *replies]
            others = [reply for reply in replies if reply.metadata.src_node_id != 7]
            lost = Message(Error(code=0, reason="gone"), reply_to=sent[7])
            return others if how == "lost" else [*others, lost]

        def see(messages):
            sent.update({message.metadata.dst_node_id: message for message in messages})

        scores = SCORES.copy()
        if how != "twice":
            scores[ROWS[5]] = 0.5
        kind = ClientApps(one=runtime_of(of, by).answer)
        lossy = play(
            of, by, Witness(clients=CLIENTS, apps=kind, after=evaluating(after), see=see), tmp_path / "lossy"
        )
        assert meddled == [CLIENTS] * 3
        whole = InlineGrid(clients=CLIENTS, apps=both(runtime_of(of, by, scores)))
        assert evaluations(lossy) == evaluations(play(of, by, whole, tmp_path / "whole"))

    def test_nobody_asked_still_releases_noise(self, federation, tmp_path):
        of, _ = federation
        by = evaluated(plan(of), rate=1e-12)
        grid = InlineGrid(clients=CLIENTS, apps=both(runtime_of(of, by)))
        values = evaluations(play(of, by, grid, tmp_path / "ledger"))
        assert all(value != 0.0 for value in values)
        assert len(set(values)) == 3

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -3.0, 1e30])
    def test_the_score_of_one_record_moves_its_client_by_at_most_its_share(self, value):
        """Zeroed out, it counts as the middle."""
        absent = np.array([0.5, 0.0, 1.0, 0.0])
        present = absent.copy()
        present[0] = value
        before, after = (score_of_client(each, scored(), stream_of(1)) for each in (absent, present))
        assert abs(before - after) <= 0.5 / 4

    def test_only_the_kind_of_failure_leaves_a_real_client(self, federation):
        of, by = federation
        scores = SCORES.copy()
        scores[ROWS[5]] = -7.0
        runtime = runtime_of(of, by, scores)
        grid = InlineGrid(clients=CLIENTS, apps=both(runtime))
        content = instruction_content(pack_parameters(of.initial, of.layout), round=1, plan=by.hash)
        message = Message(content, dst_node_id=7, message_type="evaluate")
        alone = runtime.evaluate(message, grid.context(message))
        assert alone.content["error"]["text"] == "evaluation failed"
        assert alone.content["info"]["cpu-seconds"] == 0.0
        chunk = runtime.evaluate_chunk([message], [grid.context(message)])
        assert chunk.content["error"]["text"] == "RuntimeError: out of memory"


def evaluating(after):
    """Apply to the replies of evaluations only."""
    return lambda replies: after(replies) if replies and "score" in (first_fold(replies) or {}) else replies


def first_fold(replies):
    return next((reply.content["fold"] for reply in replies if reply.has_content()), None)


def scored(*, rate=1.0, noise_record=0.0, noise_client=0.0):
    """How scores are released; without noise at all by default."""
    return EvaluationPlan(
        every=1, noised=True, epsilon=1.0, rate=rate, noise_record=noise_record, noise_client=noise_client
    )


def stream_of(round, client=3):
    return Stream(
        key_from_seed(1), StreamId(purpose="evaluation record noise", client=client, round=round, digest=b"d")
    )


class TestNoise:
    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 1.5])
    def test_a_clients_own_has_the_scale_of_one_record(self, factor):
        """Small enough that clipping is never met."""
        records, multiplier = 400, 20.0
        scores = np.tile([0.0, 1.0], records // 2)
        drawn = np.array(
            [
                score_of_client(scores, scored(noise_record=factor * multiplier), stream_of(round))
                for round in range(1, 3001)
            ]
        )
        assert scale_is(drawn, 0.5 * multiplier / records) is (factor == 1.0)

    @pytest.mark.parametrize("record", [0.0, 1.0])
    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 1.5])
    def test_the_servers_has_the_scale_of_one_client(self, factor, record):
        fold = merge_scores([sum_of_scores([-0.25, 0.5]), sum_of_scores([0.0])])
        by = scored(rate=0.5, noise_client=3.0 * factor, noise_record=record)
        drawn = np.array([mean_score(fold, 3, 12, by, stream_of(round)) for round in range(1, 3001)])
        assert scale_is(drawn - 0.5 - 0.25 / 6.0, 3.0 * by.score_bound / 6.0) is (factor == 1.0)

    def test_no_client_moves_the_sum_by_more_than_the_bound(self):
        for multiplier, bound in ((0.0, 0.5), (5.0, 1.0), (1e6, 1.0)):
            by = scored(noise_record=multiplier)
            assert by.score_bound == bound
            for scores in (np.ones(3), np.zeros(3), np.full(3, 1e30)):
                found = [score_of_client(scores, by, stream_of(round)) for round in range(1, 50)]
                assert max(map(abs, found)) <= bound
                assert multiplier < 1e6 or max(map(abs, found)) == bound

    def test_the_deviation_that_is_told_is_the_one_of_many_runs(self):
        """Half of the clients all right, half all wrong: the cohort's size then varies the sum as much as it can."""
        sizes = [20] * 40
        by = scored(rate=0.3, noise_record=4.0, noise_client=1.0)
        means = []
        for round in range(1, 1501):
            chosen = np.random.default_rng(round).random(40) < by.rate
            own = [
                score_of_client(np.full(20, float(client % 2)), by, stream_of(round, client))
                for client in np.flatnonzero(chosen)
            ]
            means.append(mean_score(sum_of_scores(own), len(own), 40, by, stream_of(round, client=99)))
        assert np.mean(means) == pytest.approx(0.5, abs=0.03)
        assert np.std(means) == pytest.approx(score_deviation(by, sizes), rel=0.08)
        assert score_deviation(scored(), sizes) is None

    def test_two_clients_two_rounds_and_two_models_never_share_one(self, federation, tmp_path):
        of, _ = federation
        by = evaluated(plan(of), rate=1.0, noise_record=0.05, noise_client=0.0)
        rows = [np.arange(10)] * CLIENTS
        grid = InlineGrid(
            clients=CLIENTS, apps=ClientApps(one=runtime_of(of, by, np.full(10, 0.5), rows).answer)
        )
        seen = []

        def after(replies):
            seen.extend(int(reply.content["fold"]["score"].numpy()[0]) for reply in replies)
            return replies

        witness = Witness(clients=CLIENTS, apps=grid.apps, after=evaluating(after))
        play(of, by, witness, tmp_path / "ledger")
        assert len(seen) == len(set(seen)) == 3 * CLIENTS


class TestRefusals:
    def test_a_client_without_an_evaluation_in_its_plan_refuses_one(self, federation):
        of = parts()
        by = plan(of)
        runtime = apps(of, by)().one.__self__
        grid = InlineGrid(clients=CLIENTS, apps=both(runtime))
        content = instruction_content(pack_parameters(of.initial, of.layout), round=1, plan=by.hash)
        message = Message(content, dst_node_id=4, message_type="evaluate")
        with pytest.raises(PlanViolation, match="an evaluation that is not in the plan"):
            runtime.answer(message, grid.context(message))

    def test_a_rule_that_needs_losses_is_not_run_without_a_measure(self):
        of = parts(server__aggregator="median", privacy__client__epsilon=math.inf)
        runtime = apps(of, plan(of, noise=0.0))().one.__self__
        from fedsafe.aggregation import QFedAvg

        with pytest.raises(ConfigError, match="q_fedavg needs the clients' losses"):
            replace(runtime, aggregator=QFedAvg(learning_rate=1.0))
