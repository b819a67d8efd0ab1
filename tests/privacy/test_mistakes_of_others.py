"""What goes wrong elsewhere, with the numbers, and holds here: weights, cohorts, seeds and resumed runs."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedsafe.aggregation import CappedMean, NoisyMean, Updates
from fedsafe.client import ClientJob, LocalTraining
from fedsafe.client.objectives import cross_entropy
from fedsafe.client.stacked import StackedTrainer
from fedsafe.privacy.accounting import FixedSizeGaussian, SampledGaussian, epsilon
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.levels import ClientPlan, RecordPlan
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, StreamId, key_from_seed

DELTA = 1e-5
PLAN = PrivacyPlan(
    clients=10,
    rounds=50,
    record=RecordPlan(
        epsilon=4.0, delta=DELTA, clip=1.0, rate=0.008, steps=125, max_participations=50, noise=1.0
    ),
    client=ClientPlan(epsilon=100.0, delta=DELTA, clip=1.0, rate=1.0, noise=1.0, grid_bits=30),
    program="",
)


def moved(rule: NoisyMean | CappedMean, client: int, examples: np.ndarray) -> float:
    """How far the noised sum moves when one client's clipped update is zeroed, in clips."""
    rows = np.zeros((len(examples), 4))
    rows[client, 0] = 1e3
    updates = Updates(clients=np.arange(len(examples)), rows=rows, examples=examples)
    total = rule.add(rule.zero(4), updates).arrays["total"]
    return float(np.linalg.norm(np.ldexp(total.astype(float), -30)))


class TestTenClientsOneWithHalfTheData:
    EXAMPLES = np.array([900.0] + [100.0] * 9)

    def test_weights_by_examples_turn_a_claimed_4_4_into_33(self):
        """The mean moves by half a clip where a tenth is noised for: a fifth of the noise multiplier is left."""
        share = self.EXAMPLES[0] / self.EXAMPLES.sum()
        effective = 1.0 * (1.0 / len(self.EXAMPLES)) / share
        claimed, true = (
            epsilon(SampledGaussian(rate=1.0, noise=noise, count=1), DELTA) for noise in (1.0, effective)
        )
        assert claimed == pytest.approx(4.38, abs=0.01)
        assert true == pytest.approx(33.1, abs=0.05)

    @pytest.mark.parametrize(
        "rule",
        [
            NoisyMean(clip=1.0, noise=1.0, bits=30, divisor=10.0),
            CappedMean(clip=1.0, noise=1.0, bits=30, divisor=10.0, cap=100.0),
        ],
        ids=["uniform", "capped"],
    )
    def test_here_the_large_client_moves_the_sum_by_one_clip(self, rule):
        assert 0.99 < moved(rule, 0, self.EXAMPLES) <= 1.0
        assert moved(rule, 5, self.EXAMPLES) <= 1.0


def test_cohorts_of_fixed_size_are_not_accounted_for_as_poisson():
    poisson = epsilon(SampledGaussian(rate=0.1, noise=2.0, count=100), DELTA)
    fixed = epsilon(FixedSizeGaussian(population=1000, size=100, noise=2.0, count=100), DELTA)
    assert poisson == pytest.approx(2.34, abs=0.01)
    assert fixed == pytest.approx(14.05, abs=0.01)
    level = replace(PLAN.client, rate=0.1, noise=2.0, cohort_size=100)
    plan = replace(PLAN, clients=1000, rounds=100, client=level)
    assert plan.client_epsilon(100, 100) == fixed


class TestTwoClientsWithOneSeed:
    """The difference of their updates shows their data without noise."""

    def test_elsewhere_one_seed_is_one_noise(self):
        def update() -> torch.Tensor:
            torch.manual_seed(0)
            module = nn.Linear(50, 2)
            before = torch.cat([p.detach().flatten() for p in module.parameters()])
            x, y = torch.randn(20, 50), torch.zeros(20, dtype=torch.long)
            optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module, optimizer, loader = PrivacyEngine().make_private(
                    module=module, optimizer=optimizer, data_loader=DataLoader(TensorDataset(x, y), batch_size=20),
                    noise_multiplier=50.0, max_grad_norm=1.0, poisson_sampling=False,
                )  # fmt: skip
                for inputs, targets in loader:
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(module(inputs), targets).backward()
                    optimizer.step()
            return torch.cat([p.detach().flatten() for p in module.parameters()]) - before

        assert float((update() - update()).abs().max()) < 1e-4
        assert float(update().std()) > 1.0

    def test_here_two_clients_never_share_noise(self):
        data = torch.zeros(20, 50), torch.zeros(20, dtype=torch.long)
        training = LocalTraining(learning_rate=1.0, steps=1, rate=1.0, clip=1.0, noise=50.0)
        trainer = StackedTrainer(nn.Linear(50, 2), cross_entropy, data, training)

        def stream(purpose: str, client: int) -> Stream:
            return Stream(key_from_seed(0), StreamId(purpose=purpose, client=client, round=1, digest=b""))

        jobs = [
            ClientJob(
                client=c, records=np.arange(20), batches=stream("batches", c), noise=stream("record noise", c)
            )
            for c in range(2)
        ]
        first, second = trainer.train(np.zeros(102, np.float32), jobs).astype(float)
        # Independent: the difference is longer than either, by a factor of sqrt(2).
        assert np.std(first - second) == pytest.approx(math.sqrt(2.0) * np.std(first), rel=0.25)


class TestAResumedRun:
    """n = 4000, batches of 32, noise 1: an accountant that starts again says 0.614 for ever; it is 3.69 after 50."""

    def test_elsewhere_the_accountant_starts_again_every_round(self):
        level = PLAN.record
        once, all_rounds = (epsilon(level.mechanism(rounds), DELTA) for rounds in (1, 50))
        assert once == pytest.approx(0.614, abs=0.002)
        assert all_rounds == pytest.approx(3.685, abs=0.003)

    def test_here_the_ledger_goes_on(self, tmp_path):
        spent = []
        for start in (1, 26):
            path = tmp_path / "ledger.sqlite"
            make = Ledger.create if start == 1 else Ledger.open
            ledger = make(path, PLAN, key_fingerprint="k")
            for round in range(start, start + 25):
                ledger.reserve(round=round, digest=b"%d" % round, cohort=[3])
            spent.append(ledger.realised()["record"])
            ledger.close()
        assert spent[0] == pytest.approx(2.59, abs=0.05)
        assert spent[1] == pytest.approx(3.685, abs=0.003)
