"""SCAFFOLD over messages: the server holds the variates, clients stay stateless, and nothing depends on packing."""

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from flwr.app import Message
from test_rounds import Witness, ledger_rounds
from tiny_federation import CLIENTS, apps, parts, plan, play
from torch.nn.functional import binary_cross_entropy_with_logits

from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import EngineError, LedgerError
from fedsafe.federation import make_client_app
from fedsafe.federation.messages import (
    instruction_content,
    pack_parameters,
    read_correction,
    with_correction,
)
from fedsafe.privacy.plan import PrivacyPlan


def record_level_only(by: PrivacyPlan) -> PrivacyPlan:
    return replace(by, client=replace(by.client, epsilon=math.inf, noise=0.0))


def scaffold(**changes):
    return parts(server__aggregator="scaffold", privacy__client__epsilon=math.inf, **changes)


@pytest.fixture(scope="module")
def federation():
    """Private at the record level, half of the clients in each round."""
    of = scaffold()
    return of, record_level_only(plan(of))


@dataclass
class Recorder:
    """A trainer that remembers its jobs and trains nobody."""

    layout: object
    jobs: list

    def train(self, parameters, jobs):
        self.jobs += jobs
        return np.tile(parameters, (len(jobs), 1))


def sent_in(federation, folder, rounds=2):
    of, by = federation
    seen = []
    play(of, by, Witness(clients=CLIENTS, apps=apps(of, by)(), see=seen.append), folder / "seen", last=rounds)
    return seen


def test_all_messages_of_a_round_share_the_model_and_each_has_its_own_correction(federation, tmp_path):
    of, _ = federation
    first, second = sent_in(federation, tmp_path)
    for messages in (first, second):
        assert len({id(message.content["arrays"]) for message in messages}) == 1
        assert len({id(message.content["correction"]) for message in messages}) == len(messages) > 1
    for message in first:
        np.testing.assert_array_equal(read_correction(message, of.layout), np.zeros(of.layout.total))
    later = [read_correction(message, of.layout).tobytes() for message in second]
    assert len(set(later)) > 1


def test_a_rule_without_corrections_sends_none(tmp_path):
    of = parts()
    seen = []
    play(of, plan(of), Witness(clients=CLIENTS, apps=apps(of, plan(of))(), see=seen.append), tmp_path / "l")
    assert all("correction" not in message.content for messages in seen for message in messages)


def test_a_client_is_given_its_own_correction_whatever_the_order_of_the_chunk(federation):
    of, by = federation
    runtime = replace(apps(of, by)().one.__self__, trainer=Recorder(of.layout, []))
    sent = [message_with(federation, node, np.full(of.layout.total, node, np.float32)) for node in (9, 2, 5)]
    grid = InlineGrid(clients=CLIENTS, apps=ClientApps(one=runtime.answer))
    runtime.train_chunk(sent, [grid.context(message) for message in sent])
    assert [job.client for job in runtime.trainer.jobs] == [0, 3, 7]
    assert [job.correction[0] for job in runtime.trainer.jobs] == [2.0, 5.0, 9.0]


def test_another_correction_never_meets_the_same_noise_or_batches(federation):
    """Two releases under one noise would give away their difference."""
    of, by = federation
    runtime = replace(apps(of, by)().one.__self__, trainer=Recorder(of.layout, []))
    grid = InlineGrid(clients=CLIENTS, apps=ClientApps(one=runtime.answer))
    for value in (0.0, 1.0, 0.0, None):
        correction = None if value is None else np.full(of.layout.total, value, np.float32)
        message = message_with(federation, 4, correction)
        runtime.train(message, grid.context(message))
    for stream in ("batches", "noise"):
        zero, one, again, none = (getattr(job, stream).words(4).tolist() for job in runtime.trainer.jobs)
        assert zero == again
        assert zero != one
        assert none not in (zero, one)


def message_with(federation, node, correction):
    of, by = federation
    content = instruction_content(pack_parameters(of.initial, of.layout), round=1, plan=by.hash)
    if correction is not None:
        content = with_correction(content, correction)
    return Message(content, dst_node_id=node, message_type="train")


def test_a_correction_of_another_length_is_refused(federation):
    of, _ = federation
    with pytest.raises(EngineError, match=rf"shape \({of.layout.total},\), the message carries \(3,\)"):
        read_correction(message_with(federation, 2, np.zeros(3, np.float32)), of.layout)


def test_packing_and_runtime_cannot_change_a_bit(federation, tmp_path):
    of, by = federation
    runtime = apps(of, by)().one.__self__
    app = make_client_app(lambda context: runtime)
    grids = {
        "whole": InlineGrid(clients=CLIENTS, apps=apps(of, by)()),
        "threes": InlineGrid(clients=CLIENTS, apps=apps(of, by)(), chunk=3),
        "one by one": InlineGrid(clients=CLIENTS, apps=ClientApps(one=runtime.answer)),
        "Flower's ClientApp": InlineGrid(clients=CLIENTS, apps=ClientApps(one=app)),
    }
    ends = {name: play(of, by, grid, tmp_path / name)[-1] for name, grid in grids.items()}
    for end in ends.values():
        assert end.parameters.tobytes() == ends["whole"].parameters.tobytes()
        for name, array in ends["whole"].aggregator_state.items():
            assert end.aggregator_state[name].tobytes() == array.tobytes()


def test_a_restored_memory_goes_on_to_the_bit(federation, tmp_path):
    of, by = federation
    grid = InlineGrid(clients=CLIENTS, apps=apps(of, by)())
    whole = play(of, by, grid, tmp_path / "whole")
    first = play(of, by, grid, tmp_path / "parts", last=1)
    rest = play(of, by, grid, tmp_path / "parts", after=first[-1])
    for one, other in zip(whole, [*first, *rest], strict=True):
        np.testing.assert_array_equal(one.parameters, other.parameters)
    assert ledger_rounds(tmp_path / "whole") == ledger_rounds(tmp_path / "parts")


def test_a_round_repeated_with_another_memory_is_refused_before_anything_is_sent(federation, tmp_path):
    of, by = federation
    sent = []
    grid = Witness(clients=CLIENTS, apps=apps(of, by)(), see=sent.append)
    first, _ = play(of, by, grid, tmp_path / "ledger", last=2)
    with pytest.raises(LedgerError, match="round 2 was already released with other inputs"):
        play(of, by, grid, tmp_path / "ledger", after=replace(first, aggregator_state=None))
    assert len(sent) == 2


def test_it_is_the_published_algorithm_with_variates_held_by_clients(tmp_path):
    """The oracle is Karimireddy et al. (2020), algorithm 1, option II, with stateful clients and autograd."""
    changes = {"client__rate": 1.0, "client__steps": 3, "client__optimizer__lr": 0.5}
    of = scaffold(server__optimizer={"name": "sgd", "lr": 1.0, "momentum": 0.0}, **changes)
    by = plan(of, noise=0.0)
    outcomes = play(of, by, InlineGrid(clients=CLIENTS, apps=apps(of, by)()), tmp_path / "ledger")
    cohorts = [cohort for _, cohort in ledger_rounds(tmp_path / "ledger")]
    assert len({tuple(cohort) for cohort in cohorts}) == 3, "partial participation, a new cohort each round"

    steps, lr = 3, 0.5
    x_server = of.initial.astype(np.float64)
    c, c_of = np.zeros(of.layout.total), np.zeros((CLIENTS, of.layout.total))
    for cohort, outcome in zip(cohorts, outcomes, strict=True):
        moved, changed = np.zeros_like(c), np.zeros_like(c)
        for client in cohort:
            y = x_server.copy()
            for _ in range(steps):
                y -= lr * (gradient(of, client, y) - c_of[client] + c)
            new = c_of[client] - c + (x_server - y) / (steps * lr)
            moved += (y - x_server) / len(cohort)
            changed += (new - c_of[client]) / CLIENTS
            c_of[client] = new
        x_server, c = x_server + moved, c + changed
        np.testing.assert_allclose(outcome.parameters, x_server, atol=5e-6)
    plain = parts(server__aggregator="fedavg", privacy__client__epsilon=math.inf, **changes)
    unplanned = plan(plain, noise=0.0)
    grid = InlineGrid(clients=CLIENTS, apps=apps(plain, unplanned)())
    other = play(plain, unplanned, grid, tmp_path / "fedavg")
    assert np.abs(other[-1].parameters - outcomes[-1].parameters).max() > 1e-3


def gradient(of, client, parameters):
    """Of a client's mean loss, in double precision."""
    model = copy.deepcopy(of.module).double()
    tensors = dict(zip(of.layout.names, np.split(parameters, np.cumsum(of.layout.sizes)[:-1]), strict=True))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(tensors[name]).reshape(parameter.shape))
    rows = of.records[client]
    x, y = torch.tensor(of.task.train.x[rows]).double(), torch.tensor(of.task.train.y[rows])
    binary_cross_entropy_with_logits(model(x)[:, 0], y.double()).backward()
    return np.concatenate([parameter.grad.numpy().ravel() for _, parameter in model.named_parameters()])
