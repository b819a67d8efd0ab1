"""What ``--tune`` names: short forms, default ranges, values, and requests that make no sense."""

import math

import pytest
from tiny_federation import config

from fedsafe.errors import ConfigError
from fedsafe.runs import make_config
from fedsafe.runs.comparison import Comparison
from fedsafe.runs.tuning_space import read_axes

BASE = make_config(config())


def axes(*requests, epsilons=(0.1, math.inf), **changes):
    return read_axes(requests, Comparison(**{"base": BASE, "epsilons": epsilons, "seeds": 1, **changes}))


def test_short_names_and_ranges_around_what_is_configured():
    clip, lr, server, momentum = axes("clip,lr,server-lr,momentum")
    assert [one.key for one in (clip, lr, server, momentum)] == [
        "privacy.record.clip",
        "client.optimizer.lr",
        "server.optimizer.lr",
        "server.optimizer.momentum",
    ]
    assert (clip.low, clip.high, clip.log) == (0.25, 4.0, True)
    assert (momentum.low, momentum.high, momentum.log) == (0.0, 0.95, False)
    rate, steps = axes("rate,steps")
    assert rate.values == ("0.125", "0.25", "0.5")
    assert steps.values == ("1", "2", "4")


def test_clip_is_that_of_the_level_with_a_target():
    off = make_config(config(privacy__record__epsilon=math.inf))
    assert axes("clip", base=off)[0].key == "privacy.client.clip"


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ("lr=0.1..10,clip", [((), 0.1, 10.0), ((), 0.25, 4.0)]),
        ("lr=0.1,1,10,clip", [(("0.1", "1", "10"), 0, 0), ((), 0.25, 4.0)]),
        ("server lr = 0.5 .. 2", [((), 0.5, 2.0)]),
        ("client.optimizer.lr=1,2", [(("1", "2"), 0, 0)]),
        ("model=logistic,mlp", [(("logistic", "mlp"), 0, 0)]),
        ("rounds=2..9", [((), 2.0, 9.0)]),
        ("lr=1e-3..1e1", [((), 1e-3, 10.0)]),
    ],
)
def test_values_and_ranges(request_, found):
    assert [(one.values, one.low, one.high) for one in axes(request_)] == found


def test_shares_of_the_way_cover_a_range_and_never_leave_it():
    (log,) = axes("lr=0.01..1")
    assert float(log.at(0.5)) == pytest.approx(0.1)
    assert float(log.at(0.0)) == 0.01
    assert 0.99 < float(log.at(1.0 - 2**-53)) <= 1.0
    (whole,) = axes("rounds=2..4")
    assert [whole.at(share) for share in (0.0, 0.34, 0.67, 0.999999)] == ["2", "3", "4", "4"]
    (odd,) = axes("lr=0.123456..0.123457")
    assert 0.123456 <= float(odd.at(0.7)) <= 0.123457
    (chosen,) = axes("lr=3,1,2")
    assert [chosen.at(share) for share in (0.0, 0.4, 0.9)] == ["3", "1", "2"]


def test_without_privacy_there_is_no_clip_to_choose():
    clip, lr = axes("clip,lr")
    assert clip.acts(0.1, ("record",), BASE)
    assert not clip.acts(math.inf, ("record",), BASE)
    assert clip.acts(math.inf, ("client",), BASE)  # the record level stays as it is configured
    assert lr.acts(math.inf, ("record",), BASE)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ("", "names nothing"),
        ("clib", "unknown configuration key 'clib'"),
        ("client.optimiser.lr", "did you mean 'client.optimizer"),
        ("lr=2..1", "is empty"),
        ("lr=1..1", "is empty"),
        ("lr=1", "one value"),
        ("lr=1,1", "1 twice"),
        ("lr=1,2,1.0", "one number twice, as 1 and 1.0"),
        ("lr=", "not of the form"),
        ("lr=0..1", "client.optimizer.lr"),
        ("lr=fast,slow", "client.optimizer.lr"),
        ("lr,client.optimizer.lr", "names client.optimizer.lr twice"),
        ("lr,lr", "names lr twice"),
        ("momentum=0.5..2", "server.optimizer.momentum"),
        ("rounds=1.5..3", "whole"),
        ("privacy.record.delta=1e-5,1e-6", "part of the guarantee"),
        ("privacy.record.epsilon=1,2", "part of the guarantee"),
        ("task=adult,digits", "one task"),
        ("seed=1,2", "--seeds"),
        ("server.aggregator", "no range of its own"),
        ("client.proximal", "no range around that"),
    ],
)
def test_a_wrong_request_is_one_line(request_, said):
    with pytest.raises(ConfigError) as refused:
        axes(request_)
    assert said in str(refused.value)
    assert "--tune" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_setting_of_the_grid_is_not_tuned_too():
    with pytest.raises(ConfigError, match="in --grid, too"):
        axes("lr", grid={"client.optimizer.lr": ["1", "2"]})


def test_a_clip_that_no_run_has_is_not_tuned():
    with pytest.raises(ConfigError, match="no run here has privacy at that level"):
        axes("clip", epsilons=(math.inf,))


@pytest.mark.parametrize("key", ["federation.clients=4,6", "federation.partition.alpha=1,2"])
@pytest.mark.parametrize(
    ("unit", "epsilons", "refused"), [("both", (0.1,), True), ("both", (math.inf,), False)]
)
def test_who_a_client_is_is_not_tuned_where_clients_are_protected(key, unit, epsilons, refused):
    base = make_config(config(federation__partition={"name": "dirichlet", "alpha": 1.0}))
    comparison = Comparison(base=base, epsilons=epsilons, seeds=1, unit=unit)
    if refused:
        with pytest.raises(ConfigError, match="decides who a client is"):
            read_axes([key], comparison)
    else:
        assert read_axes([key], comparison)
