"""The named strategies of the literature: each row of the table in ``fedsafe.aggregation`` is a run."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_federation import CLIENTS, apps, parts, plan, play
from torch.nn.functional import binary_cross_entropy_with_logits

import fedsafe.aggregation
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import ConfigError
from fedsafe.privacy.levels import FILTERED
from fedsafe.runs.config import make_config

PLAIN = {"name": "sgd", "lr": 1.0, "momentum": 0.0}
STRATEGIES = {
    "FedAvg": {"server__aggregator": "fedavg", "server__optimizer": PLAIN, "client__rate": 1.0},
    "DP-FedAvg": {"server__aggregator": "noisy_mean", "server__optimizer": PLAIN},
    "weighted DP-FedAvg": {
        "server__aggregator": {"name": "capped_mean", "cap": 20},
        "server__optimizer": PLAIN,
    },
    "adaptive clipping": {"server__aggregator": "adaptive_clip"},
    "chosen noise": {"server__aggregator": "chosen_noise"},
    "local DP": {"server__aggregator": "local_gaussian"},
    "groups in the open": {
        "server__aggregator": {"name": "grouped_mean", "column": "site", "weights": "adaptive"},
        "server__optimizer": PLAIN,
    },
    "grouped FedAvg": {
        "server__aggregator": {"name": "grouped_fedavg", "column": "site", "weights": "adaptive"},
        "server__optimizer": PLAIN,
    },
    "DP-FTRL": {"server__aggregator": {"name": "banded_mean", "bands": 2}},
    "distributed DP": {"server__aggregator": {"name": "distributed_mean", "minimum": 1}},
    "FedAvgM": {"server__aggregator": "fedavg", "server__optimizer": {**PLAIN, "momentum": 0.9}},
    "FedProx": {"server__aggregator": "fedavg", "client__proximal": 0.5},
    "FedAdam": {"server__aggregator": "fedavg", "server__optimizer": {"name": "adam"}},
    "FedYogi": {"server__aggregator": "fedavg", "server__optimizer": {"name": "yogi"}},
    "SCAFFOLD": {"server__aggregator": "scaffold", "server__optimizer": PLAIN},
    "Median": {"server__aggregator": "median", "server__optimizer": PLAIN},
    "Trimmed mean": {
        "server__aggregator": {"name": "trimmed_mean", "share": 0.2},
        "server__optimizer": PLAIN,
    },
    "Mean of rows": {"server__aggregator": "mean", "server__optimizer": PLAIN},
    "Geometric median": {"server__aggregator": "geometric_median", "server__optimizer": PLAIN},
    "Krum": {"server__aggregator": {"name": "krum", "share": 0.3}, "server__optimizer": PLAIN},
    "Multi-Krum": {"server__aggregator": {"name": "multi_krum", "share": 0.3}, "server__optimizer": PLAIN},
    "Centred clipping": {"server__aggregator": "centred_clipping", "server__optimizer": PLAIN},
    "Norm bound": {"server__aggregator": "norm_bound", "server__optimizer": PLAIN},
    "q-FedAvg": {"server__aggregator": {"name": "q_fedavg", "q": 1.0}, "server__optimizer": PLAIN},
    "Agnostic FL (AFL)": {
        "server__aggregator": {"name": "agnostic", "ascent": 0.01},
        "server__optimizer": PLAIN,
        "client__steps": 1,
    },
}


def federation(changes):
    spec = changes["server__aggregator"]
    rule = fedsafe.aggregation.RULES[spec if isinstance(spec, str) else spec["name"]]
    private = rule.proven_sensitivity
    off = {"privacy__client__epsilon": math.inf, "privacy__record__epsilon": math.inf}
    if rule.needs_groups:
        # The tiny task has no column that is the same for all records of a client.
        of = parts(**off, **{**changes, "server__aggregator": "fedavg"})
        server = of.config.server.model_copy(update={"aggregator": spec})
        groups = fedsafe.aggregation.Membership.from_values(["a"] * 3 + ["b"] * (CLIENTS - 3))
        of = replace(of, config=of.config.model_copy(update={"server": server}), groups=groups)
    else:
        of = parts(**({} if private else off), **changes)
    by = plan(of, noise=1.0 if private else 0.0)
    if rule.needs_groups:  # weights that follow losses go without a record-level target
        by = replace(by, record=replace(by.record, epsilon=math.inf, noise=0.0))
    if rule.mechanism == FILTERED:
        by = replace(by, client=replace(by.client, mechanism=FILTERED, order=8.0))
    return of, by


def test_every_row_of_the_table_is_run_here():
    table = fedsafe.aggregation.__doc__.split("====\n")
    rows = [line[:20].strip() for line in table[2].splitlines()]
    assert {row for row in rows if row and not row.startswith("=")} == set(STRATEGIES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_named_strategy_trains_and_no_packing_changes_a_bit(name, tmp_path):
    of, by = federation(STRATEGIES[name])
    made = apps(of, by)()
    ends = [
        play(of, by, InlineGrid(clients=CLIENTS, apps=clients, chunk=chunk), tmp_path / f"{number}")[-1]
        for number, (clients, chunk) in enumerate([(made, None), (made, 5), (ClientApps(one=made.one), None)])
    ]
    assert len({end.parameters.tobytes() for end in ends}) == 1
    assert np.abs(ends[0].parameters - of.initial).max() > 1e-3
    assert all(end.failures == 0 for end in ends)


def test_losses_in_a_fold_are_those_of_the_broadcast_model(tmp_path):
    """The server's weights show them: the oracle computes each client's mean loss by hand."""
    of, by = federation(
        {"server__aggregator": {"name": "agnostic", "ascent": 0.01}, "federation__cohort__rate": 1.0}
    )
    outcomes = play(of, by, InlineGrid(clients=CLIENTS, apps=apps(of, by)()), tmp_path / "ledger", last=2)
    weights = np.full(CLIENTS, 1 / CLIENTS)
    for parameters, outcome in zip([of.initial, outcomes[0].parameters], outcomes, strict=True):
        climbed = weights + 0.01 * np.array([mean_loss(of, client, parameters) for client in range(CLIENTS)])
        weights = fedsafe.aggregation.agnostic.project_to_simplex(climbed)
        np.testing.assert_allclose(outcome.aggregator_state["weights"], weights, atol=1e-7)
    assert np.ptp(weights) > 1e-3


def model_at(of, parameters):
    model = copy.deepcopy(of.module)
    torch.nn.utils.vector_to_parameters(torch.tensor(parameters), model.parameters())
    return model


def mean_loss(of, client, parameters):
    rows = of.records[client]
    x, y = torch.tensor(of.task.train.x[rows]), torch.tensor(of.task.train.y[rows])
    return float(binary_cross_entropy_with_logits(model_at(of, parameters)(x)[:, 0], y.float()).detach())


def test_fedprox_pulls_each_step_towards_the_broadcast_model(tmp_path):
    """The oracle adds ``mu (w - w_broadcast)`` to the gradient; full batches and cohorts leave nothing to chance."""
    changes = {
        "federation__cohort__rate": 1.0,
        "client__rate": 1.0,
        "client__steps": 4,
        "server__optimizer": PLAIN,
    }
    ends = {}
    for mu in (0.0, 0.7):
        of, by = federation({"server__aggregator": "trimmed_mean", "client__proximal": mu, **changes})
        grid = InlineGrid(clients=CLIENTS, apps=apps(of, by)())
        ends[mu] = play(of, by, grid, tmp_path / str(mu), last=1)[0].parameters
    # Of twelve replies the default share leaves out the largest and the smallest value of each coordinate.
    rows = np.sort([prox_update(of, client, 0.7, steps=4) for client in range(CLIENTS)], axis=0)[1:-1]
    np.testing.assert_allclose(ends[0.7], of.initial + rows.mean(axis=0), atol=2e-6)
    assert np.abs(ends[0.7] - of.initial).max() < np.abs(ends[0.0] - of.initial).max()


def prox_update(of, client, mu, steps):
    model, start = model_at(of, of.initial), torch.tensor(of.initial)
    rows = of.records[client]
    x, y = torch.tensor(of.task.train.x[rows]), torch.tensor(of.task.train.y[rows]).float()
    for _ in range(steps):
        w = torch.nn.utils.parameters_to_vector(model.parameters())
        loss = binary_cross_entropy_with_logits(model(x)[:, 0], y) + mu / 2 * ((w - start) ** 2).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= of.config.client.optimizer.lr * gradient
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy() - of.initial


class TestServerOptimizerSettings:
    def test_each_optimiser_has_defaults_of_its_own(self):
        def given(**values):
            return make_config({"server": {"optimizer": values}}).server.optimizer.model_dump(
                exclude_none=True
            )

        assert given() == {"name": "sgd", "lr": 1.0, "momentum": 0.8}
        adaptive = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}
        assert given(name="adam") == {"name": "adam", **adaptive}
        assert given(name="yogi", tau=0.1) == {"name": "yogi", **adaptive, "tau": 0.1}

    @pytest.mark.parametrize(
        ("values", "why"),
        [
            (
                {"beta1": 0.5},
                "beta1 belongs to adam and yogi, not to 'sgd', which has lr, momentum: name adam or yogi",
            ),
            (
                {"name": "adam", "momentum": 0.5},
                "momentum belongs to sgd, not to 'adam', which has lr, beta1",
            ),
            ({"name": "adma"}, "server.optimizer.name = 'adma'"),
            ({"name": "adam", "beta": 0.5}, "unknown configuration key 'server.optimizer.beta'"),
            ({"name": "adam", "beta2": 1.0}, "server.optimizer.beta2 = 1.0"),
            ({"name": "yogi", "tau": 0.0}, "server.optimizer.tau = 0.0"),
            ({"name": ["adam"]}, "server.optimizer.name"),
        ],
    )
    def test_a_key_of_another_optimiser_is_refused_with_what_to_do(self, values, why):
        with pytest.raises(ConfigError, match=why):
            make_config({"server": {"optimizer": values}})

    @pytest.mark.parametrize("name", ["sgd", "adam", "yogi"])
    def test_it_survives_the_runs_own_config_file(self, name):
        import tomllib

        config = make_config({"server": {"optimizer": {"name": name}}})
        assert make_config(tomllib.loads(config.to_toml())) == config

    def test_a_negative_pull_is_refused(self):
        with pytest.raises(ConfigError, match=r"client\.proximal = -1"):
            make_config({"client": {"proximal": -1.0}})
