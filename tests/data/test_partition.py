"""A partition gives every record to one client, with the sizes and label mixes that were asked for."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedsafe.data import partition
from fedsafe.errors import ConfigError, DataError

BALANCED = np.repeat([0, 1], 100_000)

size_specs = st.one_of(
    st.just({"name": "equal"}),
    st.builds(lambda sigma: {"name": "lognormal", "sigma": sigma}, st.floats(1e-3, 50)),
    st.builds(lambda alpha: {"name": "dirichlet", "alpha": alpha}, st.floats(1e-3, 50)),
)
specs = st.one_of(
    st.builds(lambda sizes: {"name": "iid", "sizes": sizes}, size_specs),
    st.builds(
        lambda alpha, sizes: {"name": "dirichlet", "by": "label", "alpha": alpha, "sizes": sizes},
        st.sampled_from([1e-300, 1e-6, 1e-3, 0.1, 1.0, 10.0, 1e6, 1e12]),
        size_specs,
    ),
    st.builds(lambda alpha: {"name": "quantity", "alpha": alpha}, st.floats(1e-3, 50)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data(), specs, st.integers(0, 2**31))
def test_parts_are_disjoint_covering_sorted_and_not_empty(labels, data, spec, seed):
    clients = data.draw(st.integers(1, len(labels)))
    parts = partition(np.array(labels), clients, spec, seed)
    assert len(parts) == clients
    assert all(len(part) and part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))


@pytest.mark.parametrize("name", ["iid", "dirichlet"])
def test_equal_sizes_differ_by_at_most_one(name):
    sizes = [len(part) for part in partition(BALANCED[::7], 300, {"name": name}, 0)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("name", ["iid", "dirichlet"])
def test_the_spread_of_lognormal_sizes_is_sigma(name, sigma):
    spec = {"name": name, "sizes": {"name": "lognormal", "sigma": sigma}}
    logs = np.log([len(part) for part in partition(BALANCED, 1000, spec, 1)])
    # The standard deviation of 1000 normals has a relative error of 1 / sqrt(2000) = 2.2 %.
    assert logs.std() == pytest.approx(sigma, rel=0.08)
    assert stats.kstest((logs - logs.mean()) / logs.std(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0])
def test_label_mixes_follow_the_dirichlet_distribution_of_this_alpha_and_of_no_other(alpha):
    parts = partition(BALANCED, 400, {"name": "dirichlet", "alpha": alpha}, 2)
    shares = np.array([BALANCED[part].mean() for part in parts])
    # With two balanced classes, Dirichlet(alpha * classes * prior) is Beta(alpha, alpha).
    assert shares.std() == pytest.approx(stats.beta(alpha, alpha).std(), rel=0.05)
    for wrong in (alpha * 2 / 3, alpha * 3 / 2):
        assert shares.std() != pytest.approx(stats.beta(wrong, wrong).std(), rel=0.05)
    if alpha >= 1:  # below, the density is unbounded at 0 and 1 and the shares' steps of 1/500 show
        assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_the_mean_label_mix_is_the_prior_of_imbalanced_labels():
    labels = np.repeat([0, 1, 2], [7000, 2000, 1000])
    parts = partition(labels, 100, {"name": "dirichlet", "alpha": 1.0}, 3)
    mixes = np.array([np.bincount(labels[part], minlength=3) / len(part) for part in parts])
    np.testing.assert_allclose(mixes.mean(axis=0), [0.7, 0.2, 0.1], atol=1e-6)


def test_sizes_are_honoured_whatever_the_label_skew():
    def sizes(**spec):
        return [
            len(p)
            for p in partition(BALANCED[::20], 100, {"sizes": {"name": "lognormal", "sigma": 0.7}, **spec}, 5)
        ]

    assert sizes(name="iid") == sizes(name="dirichlet", alpha=0.01) == sizes(name="dirichlet", alpha=100.0)


def test_skew_grows_as_alpha_falls():
    labels = np.random.default_rng(0).integers(0, 5, 20_000)

    def skew(alpha):
        parts = partition(labels, 100, {"name": "dirichlet", "alpha": alpha}, 0)
        mixes = np.array([np.bincount(labels[part], minlength=5) / len(part) for part in parts])
        return float(np.abs(mixes - 0.2).sum(axis=1).mean() / 2)

    skews = [skew(alpha) for alpha in (0.01, 0.1, 0.5, 1.0, 5.0, 100.0)]
    assert all(a > b + 0.02 for a, b in pairwise(skews))
    assert skews[0] > 0.7
    assert skews[-1] < 0.1


def test_a_rare_label_under_a_small_alpha_stays_with_few_clients():
    labels = (np.arange(60_000) % 100 < 3).astype(np.int64)
    for alpha in (1e-6, 0.01):
        parts = partition(labels, 1000, {"name": "dirichlet", "alpha": alpha}, 0)
        holders = sum(labels[part].any() for part in parts)
        assert 30 <= holders <= 40  # thirty clients' worth of records


def test_the_same_seed_gives_the_same_parts_and_another_seed_others():
    spec = {"name": "dirichlet", "alpha": 0.5, "sizes": {"name": "lognormal", "sigma": 0.5}}
    labels = BALANCED[::50]
    first = partition(labels, 40, spec, 9)
    np.random.default_rng(1).random(10)
    again = partition(labels, 40, dict(reversed(spec.items())), 9)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = partition(labels, 40, spec, 10)
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_evaluation_shards_of_the_same_seed_look_like_the_training_shards():
    rng = np.random.default_rng(0)
    train, evaluation = (rng.random(20_000) < 0.24).astype(int), (rng.random(10_000) < 0.236).astype(int)
    spec = {"name": "dirichlet", "alpha": 0.7, "sizes": {"name": "lognormal", "sigma": 0.4}}
    parts, shards = partition(train, 80, spec, 4), partition(evaluation, 80, spec, 4)
    shares = [[labels[p].mean() for p in ps] for labels, ps in ((train, parts), (evaluation, shards))]
    assert np.corrcoef(*shares)[0, 1] > 0.98
    np.testing.assert_allclose([len(s) / len(p) for s, p in zip(shards, parts, strict=True)], 0.5, rtol=0.1)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_quantity_skew_follows_the_dirichlet_distribution_of_this_alpha_and_of_no_other(alpha):
    parts = partition(BALANCED, 1000, {"name": "quantity", "alpha": alpha}, 7)
    shares = np.array([len(part) for part in parts]) / len(BALANCED)
    # A share of a symmetric Dirichlet is Beta(alpha, (clients - 1) alpha). The floor of one record hardly moves it.
    assert stats.kstest(shares, stats.beta(alpha, 999 * alpha).cdf).pvalue > 1e-3
    for wrong in (alpha * 2 / 3, alpha * 3 / 2):
        assert stats.kstest(shares, stats.beta(wrong, 999 * wrong).cdf).pvalue < 1e-3
    labels = [BALANCED[part].mean() for part in parts if len(part) > 400]
    assert np.std(labels) < 0.03  # no label skew


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=80), st.integers(1, 3), st.data(), st.integers(0, 2**31)
)
def test_no_client_has_more_labels_than_it_may(labels, per_client, data, seed):
    labels = np.array(labels)
    least, most = -(-len(set(labels.tolist())) // per_client), len(labels) // per_client
    if least > most:
        return
    clients = data.draw(st.integers(least, most))
    parts = partition(labels, clients, {"name": "classes", "per_client": per_client}, seed)
    assert len(parts) == clients
    assert all(1 <= len(set(labels[part].tolist())) <= per_client for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))


def test_clients_of_few_labels_are_of_nearly_equal_size_and_alike_in_training_and_evaluation():
    rng = np.random.default_rng(0)
    train, evaluation = rng.integers(0, 10, 20_000), rng.integers(0, 10, 4_000)
    spec = {"name": "classes", "per_client": 2}
    parts, shards = partition(train, 100, spec, 0), partition(evaluation, 100, spec, 0)
    sizes = np.array([len(part) for part in parts])
    assert sizes.std() < 0.1 * sizes.mean()
    alike = [set(train[p]) == set(evaluation[s]) for p, s in zip(parts, shards, strict=True)]
    assert np.mean(alike) > 0.8  # where a label has one shard more here than there, its neighbours move
    held = np.array([len(set(train[part])) for part in parts])
    assert (held == 2).mean() > 0.8


def test_too_few_shards_or_records_for_clients_of_few_labels_are_refused():
    labels = np.arange(40) % 10
    with pytest.raises(ConfigError, match=r"4 clients with 2 label\(s\) each cannot hold 10 labels"):
        partition(labels, 4, {"name": "classes", "per_client": 2}, 0)
    with pytest.raises(DataError, match="40 records cannot be cut into 30 x 2 shards"):
        partition(labels, 30, {"name": "classes", "per_client": 2}, 0)


def test_holders_are_numbered_by_size_of_number_and_by_alphabet():
    names = np.array(["10", "9", "b", "a", "9", "10"])
    parts = partition(np.zeros(6, int), None, {"name": "natural"}, 0, holders={"who": names})
    assert [set(names[part]) for part in parts] == [{"a"}, {"b"}, {"9"}, {"10"}]
    assert parts[2].tolist() == [1, 4]
    with pytest.raises(ConfigError, match=r"by = None; use one of: team, who"):
        partition(np.zeros(6, int), None, {"name": "natural"}, 0, holders={"who": names, "team": names})


def test_one_client_per_record_and_one_client_for_all():
    labels = np.array([0, 1, 1, 0, 1])
    for name in ("iid", "dirichlet"):
        assert sorted(int(p[0]) for p in partition(labels, 5, {"name": name}, 0)) == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(partition(labels, 1, {"name": name}, 0)[0], np.arange(5))


def test_more_clients_than_records_are_refused():
    with pytest.raises(DataError, match="6 clients cannot share 5 records"):
        partition(np.zeros(5, np.int64), 6, {"name": "iid"}, 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, r"^federation\.partition = \{\} needs a `name`"),
        (
            {"name": "dirichelt"},
            r"^federation\.partition\.name = 'dirichelt' is unknown\. Did you mean 'dirichlet'",
        ),
        ({"name": "iid", "alpha": 1.0}, r"^federation\.partition \(iid\) has the unknown key 'alpha'"),
        ({"name": "dirichlet", "alhpa": 1.0}, "'alhpa'. Did you mean 'alpha'"),
        ({"name": "dirichlet", "alpha": 0}, r"^federation\.partition\.alpha = 0 is not a positive number"),
        ({"name": "dirichlet", "alpha": float("inf")}, "not a positive number"),
        ({"name": "dirichlet", "alpha": "1"}, "not a positive number"),
        ({"name": "dirichlet", "by": "group"}, r"^federation\.partition\.by = 'group'; use 'label'"),
        ({"name": "iid", "sizes": "equal"}, r"^federation\.partition\.sizes = 'equal' needs a `name`"),
        ({"name": "iid", "sizes": {"name": "lognormla"}}, "Did you mean 'lognormal'"),
        (
            {"name": "iid", "sizes": {"name": "equal", "sigma": 1}},
            r"^federation\.partition\.sizes \(equal\) has the unknown key 'sigma'",
        ),
        (
            {"name": "iid", "sizes": {"name": "lognormal", "sigma": -1}},
            r"^federation\.partition\.sizes\.sigma = -1 is not a positive number",
        ),
    ],
)
def test_an_unknown_name_key_or_value_is_refused_with_a_remedy(spec, message):
    with pytest.raises(ConfigError, match=message):
        partition(BALANCED[::1000], 3, spec, 0)


@pytest.mark.parametrize("clients", [0, -1, 2.5, True])
def test_a_number_of_clients_that_is_none_is_refused(clients):
    with pytest.raises(ConfigError, match="not a whole number"):
        partition(BALANCED[::1000], clients, {"name": "iid"}, 0)


def test_a_custom_partition_is_checked(tmp_path, monkeypatch):
    (tmp_path / "custom_partition.py").write_text(
        "import numpy as np\n"
        "def slices(labels, clients, seed, drop=0):\n"
        "    return np.array_split(np.arange(len(labels) - drop)[::-1], clients)\n"
        "def broken(labels, clients, seed):\n"
        "    raise RuntimeError('no shards')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    labels = np.zeros(9, np.int64)
    parts = partition(labels, 3, {"name": "custom_partition:slices"}, 0)
    assert [part.tolist() for part in parts] == [[6, 7, 8], [3, 4, 5], [0, 1, 2]]
    with pytest.raises(DataError, match=r"3 non-empty .* that hold each of 0\.\.8 exactly once"):
        partition(labels, 3, {"name": "custom_partition:slices", "drop": 1}, 0)
    with pytest.raises(ConfigError, match="cannot be imported"):
        partition(labels, 3, {"name": "custom_partition:absent"}, 0)
    with pytest.raises(DataError, match="'custom_partition:broken' failed: RuntimeError: no shards"):
        partition(labels, 3, {"name": "custom_partition:broken"}, 0)


def rewrites(labels, clients, seed):
    labels[:] = 0
    return np.array_split(np.arange(len(labels)), clients)


def gives(parts, labels, clients, seed):
    return parts


@pytest.mark.parametrize(
    ("parts", "got"),
    [
        (None, "got NoneType"),
        ("abc", "got str"),
        ({0: [0], 1: [1]}, "got dict"),
        (["ab", "c"], "client 0 got <U2 of shape ()"),
        ([[0, 1], np.array([2.0, 3.0])], "client 1 got float64"),
        ([np.array([0.4, 1.4]), [2, 3]], "client 0 got float64"),
        ([np.array([True, True]), [2, 3]], "client 0 got bool"),
        ([[[0, 1]], [[2, 3]]], "client 0 got int64 of shape (1, 2)"),
        ([[0, 1], [[2], [3, 4]]], "client 1 cannot be read: ValueError"),
        ([[0, 1, 2, 3], []], "got 2 arrays with 4 indices in all, 1 empty"),
    ],
)
def test_what_a_custom_partition_gives_is_never_converted(parts, got):
    spec = {"name": "test_partition:gives", "parts": parts}
    with pytest.raises(DataError, match=f"'test_partition:gives' must give 2 non-empty .*{re.escape(got)}"):
        partition(np.arange(4) % 2, 2, spec, 0)


def test_a_custom_partition_cannot_rewrite_the_labels():
    labels = np.arange(6) % 2
    with pytest.raises(DataError, match="read-only"):
        partition(labels, 2, {"name": "test_partition:rewrites"}, 0)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    labels += 1  # and the caller's array can still be written
