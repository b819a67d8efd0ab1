"""Rounds of clients with parameters of their own: none of them leaves, every step is counted, no packing matters."""

import numpy as np
import pytest
from tiny_federation import CLIENTS, apps, parts, plan, play

from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.federation.messages import read_reply, read_upload
from fedsafe.runs.client_config import local_training
from fedsafe.runs.compose import calibrate, client_runtime, server_optimizer_of
from fedsafe.runs.planning import plan_and_claims

LOCAL = {"client__local": ["2"], "client__local_steps": 3}


@pytest.fixture(scope="module")
def federation():
    return parts(**LOCAL)


def played(of, folder, *, noise=1.0, chunk=None):
    by = plan(of, noise=noise)
    grid = InlineGrid(clients=CLIENTS, apps=apps(of, by)(), chunk=chunk)
    return play(of, by, grid, folder / "ledger.sqlite")


@pytest.mark.parametrize("chunk", [1, 8])
def test_chunks_do_not_change_a_bit(federation, tmp_path, chunk):
    (tmp_path / "whole").mkdir()
    whole = played(federation, tmp_path / "whole")
    cut = played(federation, tmp_path, chunk=chunk)
    assert all(outcome.failures == 0 for outcome in whole)
    assert [a.parameters.tobytes() for a in whole] == [b.parameters.tobytes() for b in cut]


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "yogi"])
def test_every_model_that_is_broadcast_has_the_initial_local_parameters(tmp_path, noise, optimizer):
    """With the noise of the client level too, which the server adds everywhere."""
    of = parts(**LOCAL, server__optimizer={"name": optimizer, "lr": 0.1})
    mask = of.local.mask
    assert 0 < mask.sum() < len(mask)
    for outcome in played(of, tmp_path, noise=noise):
        np.testing.assert_array_equal(outcome.parameters[mask], of.initial[mask])
        assert (outcome.parameters[~mask] != of.initial[~mask]).mean() > 0.8


def test_the_shared_part_is_moved_as_it_would_be_alone(federation):
    """The noise that falls on what stays is dropped, and changes nothing else."""
    own, plain = server_optimizer_of(federation), server_optimizer_of(parts())
    update = np.random.default_rng(0).normal(size=federation.layout.total)
    state = other = own.initial(len(update))
    at = beside = federation.initial
    for _ in range(3):
        at, state = own.step(at, state, update)
        beside, other = plain.step(beside, other, update)
    mask = federation.local.mask
    np.testing.assert_array_equal(at[~mask], beside[~mask])
    assert (at[mask] != beside[mask]).all()


def test_every_step_that_reads_records_is_planned_and_claimed():
    """Three steps for the local part and two for all cost what five steps cost, and five steps read records."""
    level = {"privacy__client__epsilon": float("inf")}
    local = parts(**LOCAL, **level)
    own, five = calibrate(local), calibrate(parts(client__steps=5, **level))
    assert (own.record.steps, own.record.local_steps) == (5, 3)
    assert own.record.noise == five.record.noise > 0.0
    assert own.spend(3) == five.spend(3)
    assert own.hash != five.hash
    record = next(c for c in plan_and_claims(local, key_from_seed=True).claims if c["unit"] == "record")
    assert (
        "participations of 5 steps (3 of them for the parameters that stay at the client)"
        in record["horizon"]
    )


def test_a_client_takes_the_steps_of_its_plan_and_no_more(federation, tmp_path):
    """However it is asked: the trainer of a worker and of a node are one."""
    by = plan(federation)
    runtime = client_runtime(federation, by, bytes(32))
    inside, taken = runtime.trainer._trainer, []
    default = local_training(federation.config.client, by.record, by.rounds)

    class Counting:
        def train(self, parameters, jobs):
            taken.extend((job.client, (job.training or default).steps) for job in jobs)
            return inside.train(parameters, jobs)

    runtime.trainer._trainer = Counting()
    play(
        federation,
        by,
        InlineGrid(clients=CLIENTS, apps=ClientApps(one=runtime.answer, batch=runtime.answer_chunk)),
        tmp_path / "ledger.sqlite",
        last=1,
    )
    assert taken
    for client in {client for client, _ in taken}:
        assert sorted(steps for own, steps in taken if own == client) == [2, 3]
    assert sum((2, 3)) == by.record.steps


@pytest.mark.parametrize("sent", ["train", "upload"])
def test_what_one_client_sends_tells_nothing_of_its_own_parameters(federation, tmp_path, sent):
    """As a node sends it: a fold of one, or the trained model."""
    by = plan(federation, noise=0.0)
    runtime = client_runtime(federation, by, bytes(32))
    mask, replies = federation.local.mask, []

    def one(message, context):
        replies.append(getattr(runtime, sent)(message, context))
        return replies[-1]

    grid = InlineGrid(clients=CLIENTS, apps=ClientApps(one=one, batch=None))
    play(federation, by, grid, tmp_path / "ledger.sqlite", last=1)
    assert replies
    for reply in replies:
        if sent == "upload":
            trained = read_upload(reply, federation.layout).parameters
            np.testing.assert_array_equal(trained[mask], federation.initial[mask])
            assert (trained[~mask] != federation.initial[~mask]).any()
            continue
        fold = read_reply(reply).fold.arrays
        assert not fold["whole"][mask].any()
        assert not fold["fraction"][mask].any()
        assert fold["fraction"][~mask].any()
