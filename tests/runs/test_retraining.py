"""A federation that is trained again is the run's own, and differs by its targets alone."""

import math

import numpy as np
import pytest
import torch
from tiny_federation import config

from fedsafe.rng import key_from_seed
from fedsafe.runs import make_config
from fedsafe.runs.retraining import train_again
from fedsafe.runs.stacked_runs import prepare_runs, stacked_runs

OPEN = {"privacy__client__epsilon": math.inf, "privacy__record__epsilon": math.inf}


@pytest.mark.parametrize(
    "options", [{}, {**OPEN, "server__aggregator": "scaffold"}], ids=["noisy", "scaffold"]
)
def test_with_its_own_targets_and_its_own_key_it_is_the_run_to_the_last_bit(options):
    options = {**options, **({"server__optimizer": {"momentum": 0.0}} if options else {})}
    (run,) = prepare_runs([make_config(config(privacy__noise_key="seed", seed=4, **options))])
    rounds = {outcome.round: outcome.parameters for _, outcome in stacked_runs([run])}
    y, threads = run.parts.task.train.y, torch.get_num_threads()
    for last in (1, max(rounds)):
        same, turned = train_again(run.parts, run.plan, [y, 1 - y], last, key_from_seed(4))
        np.testing.assert_array_equal(same, rounds[last])
        assert not np.array_equal(same, turned)
    assert torch.get_num_threads() == threads
    (other,) = train_again(run.parts, run.plan, [y], 1, bytes(32))
    assert not np.array_equal(other, rounds[1])
