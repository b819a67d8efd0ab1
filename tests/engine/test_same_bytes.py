"""The same key gives the same bytes, however clients are packed and wherever they run."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_federation
from tiny_federation import apps, parts, plan, play

from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.engine.ray_grid import RayGrid
from fedsafe.params import fingerprint
from fedsafe.privacy.levels import EvaluationPlan
from fedsafe.runs.compose import aggregator_of, calibrate
from fedsafe.runs.secure import simulated_rounds


@pytest.fixture(scope="module", params=[1.0, 0.0], ids=["private", "plain FedAvg"])
def federation(request):
    of = parts(federation__cohort__rate=0.7)
    return of, plan(of, noise=request.param)


def final(federation, grid, folder, key=bytes(32)) -> str:
    outcomes = play(*federation, grid, folder / "ledger.sqlite", key=key)
    assert len(outcomes) == 3
    assert all(outcome.failures == 0 for outcome in outcomes)
    return fingerprint(outcomes[-1].parameters)


def inline(federation, chunk=None, key=bytes(32), *, one_by_one=False):
    made = apps(*federation, key)()
    if one_by_one:
        made = ClientApps(one=made.one)
    return InlineGrid(clients=tiny_federation.CLIENTS, apps=made, chunk=chunk)


@pytest.mark.parametrize("chunk", [1, 7])
def test_chunk_sizes_do_not_change_a_bit(federation, tmp_path, chunk):
    whole = final(federation, inline(federation), tmp_path)
    (tmp_path / "again").mkdir()
    assert final(federation, inline(federation, chunk), tmp_path / "again") == whole


def test_one_reply_for_each_client_and_one_for_a_chunk_give_the_same_bytes(federation, tmp_path):
    whole = final(federation, inline(federation), tmp_path)
    (tmp_path / "again").mkdir()
    assert final(federation, inline(federation, one_by_one=True), tmp_path / "again") == whole


@pytest.mark.parametrize("seed", range(6))
def test_random_federations_and_random_packings_give_the_same_bytes(seed, tmp_path):
    rng = np.random.default_rng(seed)
    key = rng.bytes(32)
    of = parts(
        seed=seed,
        federation__cohort__rate=float(rng.uniform(0.3, 1.0)),
        client__rate=float(rng.uniform(0.05, 1.0)),
        client__steps=int(rng.integers(1, 4)),
        model=[{"name": "mlp", "hidden": [3]}, "logistic"][seed % 2],
    )
    federation = of, plan(of, noise=float(rng.uniform(0.5, 2.0)))
    results = set()
    for number, chunk in enumerate([None, *rng.integers(1, 12, 2).tolist()]):
        folder = tmp_path / str(number)
        folder.mkdir()
        results.add(final(federation, inline(federation, chunk, key), folder, key))
    assert len(results) == 1


@pytest.mark.parametrize("workers", [2, 1])
def test_ray_gives_the_bytes_of_inline_for_any_workers_and_chunks(ray_of_two, federation, tmp_path, workers):
    from fedsafe.engine.ray_grid import RayGrid

    of, _ = federation
    expected = final(federation, inline(federation), tmp_path)
    sizes = [float(len(rows)) for rows in of.records]
    grid = RayGrid(
        clients=len(sizes), make_apps=apps(*federation), workers=workers, cost=lambda node: sizes[node - 2]
    )
    try:
        grid.wait_until_ready()
        for chunk in [None, 1, 5] if workers == 2 else [None]:
            grid.chunk = chunk
            folder = tmp_path / str(chunk)
            folder.mkdir()
            assert final(federation, grid, folder) == expected
        if workers == 2:
            # As if one worker had been three times slower, in rounds long enough to be cut into many chunks.
            for worker, seconds in enumerate((9e3, 3e3)):
                grid._pace.add("train", worker, 1.0, seconds)
            grid.chunk = None
            assert grid._pace.shares("train") == pytest.approx([0.25, 0.75], abs=0.01)
            folder = tmp_path / "uneven"
            folder.mkdir()
            assert final(federation, grid, folder) == expected
    finally:
        grid.close()


def test_another_key_gives_other_bytes_and_no_other_thing_does(federation, tmp_path):
    """The tests above could not fail if results ignored what they are made from."""
    results = []
    for number, key in enumerate([bytes(32), bytes(32), b"k" * 32]):
        folder = tmp_path / str(number)
        folder.mkdir()
        results.append(final(federation, inline(federation, key=key), folder, key))
    assert results[0] == results[1] != results[2]


def test_ray_and_inline_give_the_same_scores_of_the_clients(ray_of_two, tmp_path):
    of = parts(federation__client_validation=0.3, federation__cohort__rate=0.7)
    by = replace(
        plan(of),
        evaluation=EvaluationPlan(
            every=1, noised=True, epsilon=1.0, rate=0.7, noise_record=0.1, noise_client=0.1
        ),
    )
    ray = RayGrid(clients=tiny_federation.CLIENTS, make_apps=apps(of, by), workers=2)
    grids = {"inline": InlineGrid(clients=tiny_federation.CLIENTS, apps=apps(of, by)()), "ray": ray}
    try:
        scores = {
            name: [outcome.evaluation for outcome in play(of, by, grid, tmp_path / name)]
            for name, grid in grids.items()
        }
    finally:
        ray.close()
    assert scores["inline"] == scores["ray"]
    assert None not in scores["ray"]
    assert len(set(scores["ray"])) == 3


def test_ray_sums_behind_masks_what_inline_does(ray_of_two, tmp_path):
    of = parts(
        federation__cohort__rate=1.0,
        aggregation__secure=True,
        server__aggregator={"name": "distributed_mean", "minimum": 4},
        privacy__client__epsilon=5.0,
        rounds=2,
    )
    by, key, found = calibrate(of), bytes(32), set()
    rounds = simulated_rounds(of.config.aggregation, aggregator_of(of, by), by, key, of.layout.total)
    ray = RayGrid(clients=tiny_federation.CLIENTS, make_apps=apps(of, by, key), workers=2)
    grids = {"inline": inline((of, by), 5), "ray": ray}
    try:
        ray.wait_until_ready()
        for name, grid in grids.items():
            outcomes = play(of, by, grid, tmp_path / f"{name}.sqlite", secure=rounds)
            assert all(outcome.aborted is None and outcome.failures == 0 for outcome in outcomes)
            found.add(fingerprint(outcomes[-1].parameters))
    finally:
        ray.close()
    assert len(found) == 1
