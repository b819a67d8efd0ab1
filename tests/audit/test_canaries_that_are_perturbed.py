"""Canaries beside an objective that perturbs records: perturbed as all others, in every engine alike."""

import numpy as np
import pytest
import torch
from torch import nn

from fedsafe.audit.record_canaries import WithCells, canary_objective
from fedsafe.client import ClientJob, LocalTraining, build_objective
from fedsafe.client.functional_trainer import FunctionalTrainer
from fedsafe.client.stacked import StackedTrainer
from fedsafe.data.inputs import ArraySchema
from fedsafe.rng import Stream, StreamId


@pytest.mark.parametrize("name", ["adversarial", "trades", "gaussian", "ibp"])
def test_a_canary_pulls_at_its_cell_and_the_others_are_perturbed(name):
    torch.manual_seed(0)
    audited = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    robust = build_objective(name, "multiclass", ArraySchema(shape=(6,), lowest=0.0, highest=1.0))
    model = WithCells(audited, 1).double()
    x, y = torch.rand(20, 6).double(), torch.arange(20) % 3
    counts = torch.ones(20).double()
    counts[19] = 0.0  # the canary, whose own loss does not count
    cell = (counts == 0.0).long()
    data = (x, y, counts, cell, 100.0 * cell)
    training = LocalTraining(learning_rate=1.0, steps=1, rate=1.0, clip=0.5, noise=0.0)
    start = nn.utils.parameters_to_vector(model.parameters()).detach().float().numpy()

    def trained(trainer, objective):
        streams = [
            Stream(bytes(32), StreamId(purpose=purpose, client=0, round=1, digest=b"")) for purpose in "ab"
        ]
        job = ClientJob(client=0, records=np.arange(20), batches=streams[0], noise=streams[1])
        return trainer(model, objective, data, training).train(start, [job])[0]

    objective = canary_objective(robust, audited)
    found = trained(StackedTrainer, objective)
    np.testing.assert_allclose(found, trained(FunctionalTrainer, objective), rtol=1e-6, atol=1e-7)
    # One clip at the cell, divided by the batch.
    assert found[-1] == pytest.approx(0.5 / 20, rel=2e-3)
    if name != "ibp":  # whose schedule begins with the records as they are
        plain = canary_objective(build_objective(None, "multiclass"), audited)
        assert np.abs(found - trained(StackedTrainer, plain))[:-2].max() > 1e-5
