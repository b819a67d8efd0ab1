"""Server optimisers: one contract for all, and each against its formula, coordinate by coordinate."""

import math

import numpy as np
import pytest

from fedsafe.aggregation import SERVER_OPTIMIZERS, Adam, Sgd, Yogi
from fedsafe.store.checkpoints import read_checkpoint, write_checkpoint

PARAMETERS = 7
BUILT = {
    "sgd": Sgd(learning_rate=0.7, momentum=0.8),
    "adam": Adam(learning_rate=0.1, beta1=0.9, beta2=0.99, tau=1e-3),
    "yogi": Yogi(learning_rate=0.1, beta1=0.9, beta2=0.99, tau=1e-3),
}
every_optimizer = pytest.mark.parametrize("optimizer", [pytest.param(o, id=n) for n, o in BUILT.items()])

RNG = np.random.default_rng(2)
START = RNG.normal(size=PARAMETERS).astype(np.float32)
# Steps of unlike size, with zeros and changes of sign among them.
UPDATES = RNG.normal(size=(12, PARAMETERS)) * np.array([1e-6, 1e-3, 0.1, 1.0, 10.0, 1e4, 0.0])


def steps(optimizer, updates, parameters=START, state=None):
    state = optimizer.initial(PARAMETERS) if state is None else state
    for update in updates:
        parameters, state = optimizer.step(parameters, state, update)
    return parameters, state


def test_every_optimiser_is_tested_here():
    assert set(BUILT) == set(SERVER_OPTIMIZERS)
    assert all(optimizer.name == name for name, optimizer in BUILT.items())


@every_optimizer
def test_the_state_is_plain_arrays_of_one_value_for_each_parameter(optimizer):
    for parameters, state in ((START, optimizer.initial(PARAMETERS)), steps(optimizer, UPDATES)):
        assert parameters.dtype == np.float32
        assert parameters.shape == (PARAMETERS,)
        for array in state.values():
            assert array.dtype == np.float64
            assert array.shape == (PARAMETERS,)
            assert np.isfinite(array).all()


@every_optimizer
def test_a_step_changes_none_of_its_arguments_and_repeats_to_the_bit(optimizer):
    parameters, state = steps(optimizer, UPDATES[:3])
    update = UPDATES[3].copy()
    before = [parameters.tobytes(), update.tobytes(), *(array.tobytes() for array in state.values())]
    first, second = (optimizer.step(parameters, state, update) for _ in range(2))
    assert first[0].tobytes() == second[0].tobytes()
    assert {k: v.tobytes() for k, v in first[1].items()} == {k: v.tobytes() for k, v in second[1].items()}
    assert [parameters.tobytes(), update.tobytes(), *(array.tobytes() for array in state.values())] == before


@every_optimizer
def test_no_update_from_rest_moves_nothing(optimizer):
    parameters, _ = steps(optimizer, np.zeros((3, PARAMETERS)))
    np.testing.assert_array_equal(parameters, START)


@every_optimizer
def test_it_moves_with_the_update(optimizer):
    """An update is where to go, not a gradient to go against."""
    parameters, _ = steps(optimizer, np.abs(UPDATES[:1]) + 1.0)
    assert (parameters > START).all()


@every_optimizer
def test_going_on_from_a_checkpoint_is_going_on(optimizer, tmp_path):
    whole, final = steps(optimizer, UPDATES)
    parameters, state = steps(optimizer, UPDATES[:5])
    write_checkpoint(tmp_path / "half", {"parameters": parameters, **state}, {})
    tensors, _ = read_checkpoint(tmp_path / "half")
    restored = tensors.pop("parameters")
    again, last = steps(optimizer, UPDATES[5:], restored, tensors)
    assert again.tobytes() == whole.tobytes()
    assert {k: v.tobytes() for k, v in last.items()} == {k: v.tobytes() for k, v in final.items()}


def reference(name: str, updates, *, lr, beta1, beta2, tau):
    """Algorithm 2 of Reddi et al. (2021), one coordinate at a time, in plain floats."""
    moved = []
    for coordinate in range(PARAMETERS):
        x, m, v = float(START[coordinate]), 0.0, tau * tau
        for update in updates:
            d = float(update[coordinate])
            m = beta1 * m + (1 - beta1) * d
            if name == "adam":
                v = beta2 * v + (1 - beta2) * d * d
            else:
                sign = (v > d * d) - (v < d * d)
                v = v - (1 - beta2) * d * d * sign
            x = float(np.float32(x + lr * m / (math.sqrt(v) + tau)))
        moved.append(x)
    return np.array(moved, np.float32)


@pytest.mark.parametrize("name", ["adam", "yogi"])
@pytest.mark.parametrize(
    "values",
    [
        {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
        {"lr": 1.0, "beta1": 0.0, "beta2": 0.5, "tau": 0.1},
        {"lr": 0.01, "beta1": 0.5, "beta2": 0.0, "tau": 1.0},
    ],
)
def test_adam_and_yogi_are_the_published_ones(name, values):
    optimizer = SERVER_OPTIMIZERS[name](
        learning_rate=values["lr"], beta1=values["beta1"], beta2=values["beta2"], tau=values["tau"]
    )
    parameters, _ = steps(optimizer, UPDATES)
    np.testing.assert_allclose(parameters, reference(name, UPDATES, **values), rtol=1e-6, atol=1e-9)
    assert not np.allclose(parameters, START)


def test_nothing_is_corrected_for_bias():
    """With the usual correction the first step of Adam is the learning rate; here it is 0.1 / sqrt(0.01) of it."""
    parameters, _ = steps(BUILT["adam"], np.full((1, PARAMETERS), 1e3))
    np.testing.assert_allclose(parameters - START, 0.1 * 0.1 / 0.1, rtol=1e-4)


def test_yogi_forgets_a_large_step_more_slowly_than_adam():
    """Its second moment moves by at most the square of the update, whatever it is at."""
    spike = np.zeros((40, PARAMETERS))
    spike[0], spike[1:] = 100.0, 1e-2
    second = {name: steps(BUILT[name], spike)[1]["second_moment"][0] for name in ("adam", "yogi")}
    assert second["yogi"] > 99.0
    assert second["adam"] < 75.0


def test_sgd_without_momentum_is_plain_averaging_and_with_it_fedavgm():
    plain, _ = steps(Sgd(learning_rate=1.0, momentum=0.0), UPDATES[:1])
    np.testing.assert_array_equal(plain, (START.astype(float) + UPDATES[0]).astype(np.float32))
    two, state = steps(Sgd(learning_rate=1.0, momentum=0.5), UPDATES[:2])
    np.testing.assert_allclose(state["velocity"], 0.5 * UPDATES[0] + UPDATES[1])
    np.testing.assert_allclose(two, START + 1.5 * UPDATES[0] + UPDATES[1], rtol=1e-5, atol=1e-6)


def test_sgd_rounds_once_to_single_precision_and_nowhere_else():
    """To the bit what checkpoints of earlier runs hold."""
    x, velocity = START, np.zeros(PARAMETERS)
    for update in UPDATES:
        velocity = 0.8 * velocity + update
        x = (x.astype(np.float64) + 0.7 * velocity).astype(np.float32)
    parameters, state = steps(BUILT["sgd"], UPDATES)
    assert set(state) == {"velocity"}
    assert parameters.tobytes() == x.tobytes()
    assert state["velocity"].tobytes() == velocity.tobytes()
