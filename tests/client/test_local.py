"""Parameters that stay with their clients are found anew in each round, used there, and never leave."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from training_problems import make_jobs

from fedsafe.client import LocalParameters, LocalTraining, ReconstructingTrainer, build_trainer
from fedsafe.client.objectives import cross_entropy
from fedsafe.client.stacked import layout_of
from fedsafe.errors import ModelError

TRAINERS = ("stacked", "vmap", "opacus")
PARTS = [np.arange(0, 10), np.arange(10, 18), np.arange(18, 30)]
PLAIN = LocalTraining(learning_rate=0.3, steps=2, rate=1.0, clip=np.inf, noise=0.0)
PRIVATE = replace(PLAIN, rate=0.5, clip=0.5, noise=1.0)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def records():
    torch.manual_seed(1)
    return torch.randn(30, 6), torch.randint(0, 3, (30,))


def made(name, training, *, steps=3, local=("2",)):
    module, (x, y) = model(), records()
    inside = build_trainer(name, module, cross_entropy, x, y, training)
    kept = LocalParameters(layout_of(module), local)
    return ReconstructingTrainer(inside, kept, steps=steps, training=training), inside, kept


def start():
    return nn.utils.parameters_to_vector(model().parameters()).detach().numpy()


@pytest.mark.parametrize("name", TRAINERS)
def test_three_rounds_equal_clients_that_are_trained_by_ordinary_autograd(name):
    trainer, _, kept = made(name, PLAIN)
    x, y = records()
    shared = start()
    for round in (1, 2, 3):
        trained = trainer.train(shared, make_jobs(PARTS, range(3), round=round))
        expected = []
        for rows in PARTS:
            client = model()
            nn.utils.vector_to_parameters(torch.from_numpy(shared.copy()), client.parameters())
            first = copy.deepcopy(client)
            for own, steps in ((first, 3), (client, 2)):
                if own is client:
                    client[2].load_state_dict(first[2].state_dict())
                for _ in range(steps):
                    own.zero_grad()
                    cross_entropy(own, (x[rows], y[rows])).mean().backward()
                    for p in own.parameters():
                        p.data -= 0.3 * p.grad
            expected.append(nn.utils.parameters_to_vector(client.parameters()).detach().numpy())
        np.testing.assert_allclose(
            trained[:, ~kept.mask], np.stack(expected)[:, ~kept.mask], rtol=1e-4, atol=1e-6
        )
        np.testing.assert_array_equal(trained[:, kept.mask], np.stack([shared[kept.mask]] * 3))
        shared = trained.mean(0)
        shared[kept.mask] = trained[0, kept.mask]
    assert (shared[~kept.mask] != start()[~kept.mask]).any()


@pytest.mark.parametrize("name", TRAINERS)
def test_a_client_does_not_depend_on_who_else_is_there(name):
    trainer, _, _ = made(name, PRIVATE)
    together = trainer.train(start(), make_jobs(PARTS, range(3)))
    alone = [trainer.train(start(), make_jobs(PARTS, [client])) for client in range(3)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_the_two_parts_draw_from_streams_of_their_own():
    """Were they the same, the noise of the first part would be that of the second, met by another input."""
    seen = []

    class Spy:
        name, layout = "spy", layout_of(model())

        def train(self, parameters, jobs):
            seen.append([(job.batches.branch("x").words(4), job.noise.words(4)) for job in jobs])
            return np.stack([job.start if job.start is not None else parameters for job in jobs])

    kept = LocalParameters(layout_of(model()), ("2",))
    ReconstructingTrainer(Spy(), kept, steps=1, training=PLAIN).train(start(), make_jobs(PARTS, range(3)))
    words = [tuple(stream) for part in seen for job in part for stream in job]
    assert len(seen) == 2
    assert len(set(words)) == len(words) == 12


def test_every_step_of_both_parts_is_noised():
    """With noise alone, so many steps leave so much: the first part in what is kept, the second in what is shared."""
    module, (x, y) = nn.Linear(6, 3, bias=False), records()
    nothing = [np.arange(1)] * 400
    training = replace(PRIVATE, learning_rate=1.0, steps=2, rate=1e-12)
    inside = build_trainer("stacked", module, cross_entropy, x, y, training)
    kept = LocalParameters(layout_of(module), ())
    at = np.zeros(18, np.float32)
    begun = []

    class Spy:
        name, layout = inside.name, inside.layout

        def train(self, parameters, jobs):
            begun.append(np.stack([at if job.start is None else job.start for job in jobs]))
            return inside.train(parameters, jobs)

    trainer = ReconstructingTrainer(Spy(), kept, steps=5, training=training)
    trainer._mask = np.arange(18) < 9  # half of one layer
    trained = trainer.train(at, make_jobs(nothing, range(400)))
    deviation = 1.0 * 0.5  # noise times clip; the divisor is 1
    assert abs(begun[1][:, :9].std() / (deviation * np.sqrt(5)) - 1) < 0.05
    assert abs(trained[:, 9:].std() / (deviation * np.sqrt(2)) - 1) < 0.05
    assert not trained[:, :9].any()


def test_without_steps_of_its_own_a_local_part_is_trained_with_the_rest_and_dropped():
    trainer, inside, kept = made("stacked", PLAIN, steps=0)
    trained = trainer.train(start(), make_jobs(PARTS, range(3)))
    plain = inside.train(start(), make_jobs(PARTS, range(3)))
    np.testing.assert_array_equal(trained[:, ~kept.mask], plain[:, ~kept.mask])
    assert (plain[:, kept.mask] != trained[:, kept.mask]).any()


def test_names_that_are_none_and_names_of_everything_are_refused():
    layout = layout_of(model())
    with pytest.raises(ModelError, match=r"'head': there are 0.weight, 0.bias, 2.weight"):
        LocalParameters(layout, ("head",))
    with pytest.raises(ModelError, match="share nothing"):
        LocalParameters(layout, ("0", "2"))
    assert LocalParameters(layout, ("2.bias",)).mask.sum() == 3
