"""A round: what is reserved, who counts, and what happens to those who fail."""

import copy
import itertools
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from flwr.app import Array, Error, Message
from tiny_federation import CLIENTS, apps, parts, plan, play
from torch.nn.functional import binary_cross_entropy_with_logits

from fedsafe.aggregation import Fold
from fedsafe.client import ClientJob
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import EngineError, LedgerError, PlanViolation
from fedsafe.federation import ClientRuntime, make_client_app
from fedsafe.federation.messages import (
    Reply,
    instruction_content,
    pack_parameters,
    read_reply,
    reply_message,
    unpack_parameters,
)
from fedsafe.runs.compose import aggregator_of


@dataclass(kw_only=True)
class Witness(InlineGrid):
    """Calls ``see(messages)`` before anything is delivered, and ``after(replies)`` before the server sees them."""

    see: Callable[[Sequence[Message]], None] = lambda messages: None
    after: Callable[[list[Message]], list[Message]] = lambda replies: replies

    def send_and_receive(self, messages, *, timeout=None):
        sent = list(messages)
        self.see(sent)
        return self.after(list(super().send_and_receive(sent, timeout=timeout)))


@dataclass
class Meddler:
    """A trainer that does something else for one client."""

    trainer: object
    client: int | None
    deed: Callable[[np.ndarray, np.ndarray], np.ndarray]

    @property
    def layout(self):
        return self.trainer.layout

    def train(self, parameters, jobs: Sequence[ClientJob]):
        rows = self.trainer.train(parameters, jobs)
        for row, job in enumerate(jobs):
            if self.client is None or job.client == self.client:
                rows[row] = self.deed(rows[row], parameters)
        return rows


def fail(row, parameters):
    raise RuntimeError("out of memory")


@pytest.fixture(scope="module")
def federation():
    of = parts(federation__cohort__rate=1.0)
    return of, plan(of)


def meddled(federation, client, deed, *, batch=True) -> ClientApps:
    of, by = federation
    honest = apps(of, by)().one.__self__
    runtime = ClientRuntime(
        trainer=Meddler(honest.trainer, client, deed),
        aggregator=aggregator_of(of, by),
        records=of.records,
        key=bytes(32),
        plan=by.hash,
    )
    return ClientApps(one=runtime.train, batch=runtime.train_chunk if batch else None)


def ledger_rounds(path):
    """Round and cohort of every reservation, read as another process would."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT round, body FROM event WHERE kind = 'round' ORDER BY sequence")
        found = [(number, json.loads(body)["cohort"]) for number, body in rows]
    database.close()
    return found


def test_a_round_is_in_the_ledger_on_disk_before_any_of_its_messages_leaves(federation, tmp_path):
    of, by = federation
    path, seen = tmp_path / "ledger.sqlite", []

    def see(messages):
        number, cohort = ledger_rounds(path)[-1]
        assert number == len(seen) + 1
        assert [message.metadata.dst_node_id - 2 for message in messages] == cohort
        assert {message.content.config_records["config"]["server-round"] for message in messages} == {number}
        seen.append(cohort)

    play(of, by, Witness(clients=CLIENTS, apps=apps(of, by)(), see=see), path)
    assert len(seen) == by.rounds


def test_nothing_is_sent_if_the_ledger_cannot_be_written(federation, tmp_path):
    of, by = federation
    path, sent = tmp_path / "ledger.sqlite", []
    grid = Witness(clients=CLIENTS, apps=apps(of, by)(), see=sent.append)
    play(of, by, grid, path, last=1)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TRIGGER full BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'full'); END")
    database.close()
    with pytest.raises((LedgerError, sqlite3.Error)):
        play(of, by, grid, path, after=play(of, by, grid, tmp_path / "other.sqlite", last=1)[0])
    assert len(sent) == 2, "one round of each ledger, and nothing after the refusal"


def test_an_empty_cohort_still_moves_the_model_and_is_counted(tmp_path):
    of = parts(federation__cohort__rate=1e-12)
    by = plan(of)
    path = tmp_path / "ledger.sqlite"
    outcomes = play(of, by, Witness(clients=CLIENTS, apps=apps(of, by)()), path)
    assert ledger_rounds(path) == [(1, []), (2, []), (3, [])]
    models = [of.initial, *(outcome.parameters for outcome in outcomes)]
    for before, after in itertools.pairwise(models):
        assert np.all(before != after), "the noise of an empty round is what hides that it was empty"


@pytest.mark.parametrize("chunk", [None, 1, 5])
@pytest.mark.parametrize(
    "deed", [fail, lambda row, parameters: row * np.nan, lambda row, parameters: row + np.inf]
)
def test_a_client_that_fails_counts_as_zero_and_the_others_are_unchanged(federation, tmp_path, deed, chunk):
    of, by = federation
    results = {}
    for name, act in (("bad", deed), ("zero", lambda row, parameters: parameters), ("honest", None)):
        made = apps(of, by)() if act is None else meddled(federation, 3, act)
        grid = Witness(clients=CLIENTS, apps=made, chunk=chunk)
        results[name] = play(of, by, grid, tmp_path / name, last=1)[0]
    np.testing.assert_array_equal(results["bad"].parameters, results["zero"].parameters)
    assert not np.array_equal(results["bad"].parameters, results["honest"].parameters)
    assert results["bad"].failures == (1 if deed is fail else 0)


@pytest.mark.parametrize("how", ["lost", "error"])
def test_a_reply_that_is_lost_or_an_error_counts_as_zero(federation, tmp_path, how):
    of, by = federation

    def after(replies):
        if how == "lost":
            return [reply for reply in replies if reply.metadata.src_node_id != 5]
        error = Error(code=0, reason="gone")
        return [Message(error, reply_to=sent[3]) if r.metadata.src_node_id == 5 else r for r in replies]

    sent = []
    one = ClientApps(one=apps(of, by)().one)
    lossy = Witness(clients=CLIENTS, apps=one, after=after, see=sent.extend)
    lost = play(of, by, lossy, tmp_path / "lost", last=1)[0]
    zero = meddled(federation, 3, lambda row, parameters: parameters)
    expected = play(of, by, Witness(clients=CLIENTS, apps=zero), tmp_path / "zero", last=1)[0]
    np.testing.assert_array_equal(lost.parameters, expected.parameters)


@pytest.mark.parametrize(
    ("batch", "why"), [(True, "RuntimeError: out of memory"), (False, "training failed")]
)
def test_a_round_in_which_every_client_fails_is_an_error_that_says_why(federation, tmp_path, batch, why):
    """A chunk of simulated clients says what went wrong; a single client's exception stays with it."""
    of, by = federation
    grid = Witness(clients=CLIENTS, apps=meddled(federation, None, fail, batch=batch))
    with pytest.raises(EngineError, match=rf"every client of round 1 failed.*{why}$"):
        play(of, by, grid, tmp_path / "ledger")


def test_a_resumed_start_counts_from_its_first_round_and_gives_the_same_models(federation, tmp_path):
    of, by = federation
    grid = InlineGrid(clients=CLIENTS, apps=apps(of, by)())
    whole = play(of, by, grid, tmp_path / "whole")
    first = play(of, by, grid, tmp_path / "parts", last=1)
    rest = play(of, by, grid, tmp_path / "parts", after=first[-1])
    assert [outcome.round for outcome in rest] == [2, 3]
    for one, other in zip(whole, [*first, *rest], strict=True):
        np.testing.assert_array_equal(one.parameters, other.parameters)
        np.testing.assert_array_equal(one.optimizer_state["velocity"], other.optimizer_state["velocity"])
    assert ledger_rounds(tmp_path / "whole") == ledger_rounds(tmp_path / "parts")


def test_repeating_a_round_from_another_model_is_refused_before_anything_is_sent(federation, tmp_path):
    of, by = federation
    sent = []
    grid = Witness(clients=CLIENTS, apps=apps(of, by)(), see=sent.append)
    first, second = play(of, by, grid, tmp_path / "ledger", last=2)
    forged = type(first)(**{**vars(first), "parameters": second.parameters})
    with pytest.raises(LedgerError, match="round 2 was already released with other inputs"):
        play(of, by, grid, tmp_path / "ledger", after=forged)
    assert len(sent) == 2


def test_a_client_sits_out_once_its_planned_participations_are_used(tmp_path):
    of = parts(federation__cohort__rate=1.0)
    by = plan(of, cap=1)
    grid = InlineGrid(clients=CLIENTS, apps=apps(of, by)())
    outcomes = play(of, by, grid, tmp_path / "ledger")
    assert [len(cohort) for _, cohort in ledger_rounds(tmp_path / "ledger")] == [CLIENTS, 0, 0]
    assert len(outcomes) == 3


def test_a_population_other_than_the_planned_one_is_refused(federation, tmp_path):
    of, by = federation
    grid = InlineGrid(clients=CLIENTS - 1, apps=apps(of, by)())
    with pytest.raises(EngineError, match=f"plan is for {CLIENTS} clients, {CLIENTS - 1} are registered"):
        play(of, by, grid, tmp_path / "ledger")


def test_clients_refuse_a_server_that_follows_another_plan(federation, tmp_path):
    of, by = federation
    other = plan(of, noise=0.1)
    with pytest.raises(PlanViolation, match=f"plan {by.hash[:12]}.*agreed to {other.hash[:12]}"):
        play(of, by, InlineGrid(clients=CLIENTS, apps=apps(of, other)()), tmp_path / "ledger")


def test_plain_fedavg_weighs_by_examples_and_clips_nothing(tmp_path):
    """The oracle trains each client alone and averages by hand; rate 1 makes cohort and batches certain."""
    of = parts(federation__cohort__rate=1.0, client__rate=1.0, server__optimizer__momentum=0.0)
    by = plan(of, noise=0.0)
    results = [
        play(
            of,
            by,
            InlineGrid(clients=CLIENTS, apps=apps(of, by, key)()),
            tmp_path / key.hex(),
            key=key,
            last=1,
        )
        for key in (bytes(32), b"k" * 32)
    ]
    np.testing.assert_array_equal(results[0][0].parameters, results[1][0].parameters)

    updates, weights = [], []
    for rows in of.records:
        model = copy.deepcopy(of.module)
        optimiser = torch.optim.SGD(model.parameters(), lr=of.config.client.optimizer.lr)
        x, y = torch.tensor(of.task.train.x[rows]), torch.tensor(of.task.train.y[rows])
        for _ in range(of.config.client.steps):
            optimiser.zero_grad()
            binary_cross_entropy_with_logits(model(x)[:, 0], y.float()).backward()
            optimiser.step()
        trained = of.layout.join({name: p.detach().numpy() for name, p in model.named_parameters()})
        updates.append(trained - of.initial)
        weights.append(len(rows))
    expected = of.initial + np.average(updates, axis=0, weights=weights)
    np.testing.assert_allclose(results[0][0].parameters, expected, atol=2e-6)
    assert np.abs(np.mean(updates, axis=0) - np.average(updates, axis=0, weights=weights)).max() > 1e-4


def test_the_ordinary_flower_app_of_a_client_trains_as_a_chunk_does(federation, tmp_path):
    """What a deployment runs: one message, one reply, through Flower's own ClientApp."""
    of, by = federation
    runtime = apps(of, by)().one.__self__
    app = make_client_app(lambda context: runtime)
    single = play(of, by, InlineGrid(clients=CLIENTS, apps=ClientApps(one=app)), tmp_path / "app")
    chunks = play(of, by, InlineGrid(clients=CLIENTS, apps=apps(of, by)()), tmp_path / "chunks")
    np.testing.assert_array_equal(single[-1].parameters, chunks[-1].parameters)


def test_a_chunk_of_messages_with_different_models_is_refused(federation):
    of, by = federation
    runtime = apps(of, by)().one.__self__
    grid = InlineGrid(clients=CLIENTS, apps=ClientApps(one=runtime.train))
    models = (of.initial, of.initial + np.float32(1.0))
    sent = [
        Message(
            instruction_content(pack_parameters(model, of.layout), round=1, plan=by.hash),
            dst_node_id=node,
            message_type="train",
        )
        for node, model in zip((2, 3), models, strict=True)
    ]
    with pytest.raises(PlanViolation, match="carry different models"):
        runtime.train_chunk(sent, [grid.context(message) for message in sent])


def test_a_model_of_another_shape_is_refused_by_name(federation):
    of, _ = federation
    arrays = pack_parameters(of.initial, of.layout)
    first = of.layout.names[0]
    arrays[first] = Array(np.zeros((1, 1), np.float32))
    with pytest.raises(EngineError, match=rf"parameter {first} should have shape .* carries \(1, 1\)"):
        unpack_parameters(arrays, of.layout)
    del arrays[first]
    with pytest.raises(EngineError, match=rf"parameter {first} .* carries nothing"):
        unpack_parameters(arrays, of.layout)


def test_parameters_and_folds_survive_the_codec_bit_for_bit(federation):
    of, by = federation
    rng = np.random.default_rng(0)
    model = rng.normal(size=of.layout.total).astype(np.float32)
    model[:3] = [-0.0, np.float32(1e-45), np.finfo(np.float32).max]
    back = unpack_parameters(pack_parameters(model, of.layout), of.layout)
    assert back.tobytes() == model.tobytes()
    total = rng.integers(-(2**62), 2**62, 5)
    reply = Reply(fold=Fold(arrays={"total": total}), clients=3, failures=2, error="why", cpu_seconds=0.5)
    content = instruction_content(pack_parameters(model, of.layout), round=1, plan=by.hash)
    message = InlineGrid(clients=1, apps=apps(of, by)()).create_message(content, "train", 2, "1")
    read = read_reply(reply_message(reply, message))
    assert read is not None
    np.testing.assert_array_equal(read.fold.arrays["total"], total)
    assert (read.failures, read.error, read.cpu_seconds) == (2, "why", 0.5)


def test_a_client_that_never_recovers_does_not_stop_a_round_of_others(federation, tmp_path):
    """Every round counts it as a failure, and the run goes on."""
    of, by = federation
    outcomes = play(of, by, Witness(clients=CLIENTS, apps=meddled(federation, 0, fail)), tmp_path / "ledger")
    assert [outcome.failures for outcome in outcomes] == [1, 1, 1]
