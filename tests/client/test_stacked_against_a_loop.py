"""Per-example norms and clipped sums of the stacked engine equal a plain loop over examples, and stock Opacus."""

import copy
import math

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.layers import DPLSTM
from opacus.optimizers import DPOptimizer
from stacked_models import CASES, NOT_FOR_OPACUS, Positions
from torch import nn

from fedsafe.client.objectives import build_objective, cross_entropy
from fedsafe.client.stacked import clipped_sum, layout_of, measure
from fedsafe.privacy.clipping import MARGIN


def _problem(name, dtype, *, clients=3, batch=8, scale=1.0, seed=0):
    torch.manual_seed(seed)
    case = CASES[name]
    module = case.make().to(dtype)
    x, y = case.data(clients * batch, dtype, scale)
    mask = torch.rand(clients, batch) < 0.7
    parameters = 0.5 * torch.randn(clients, layout_of(module).total, dtype=dtype)
    return module, parameters, x, y, mask, build_objective(None, case.signature.kind)


def _stack(module, parameters, objective, x, y):
    return measure(module, objective, (x, y)).stack(module, parameters.clone())


def _loop(module, parameters, x, y, mask, objective, clip):
    """One backward pass for each example, in double precision."""
    gradients = _gradients(module, parameters, x, y, mask, objective)
    return _clipped(gradients, mask, clip), gradients.norm(dim=2)


def _gradients(module, parameters, x, y, mask, objective):
    """``(clients, batch, parameters)``."""
    model = copy.deepcopy(module).double()
    x, y = (part.double() if part.is_floating_point() else part for part in (x, y))
    clients, batch = mask.shape
    gradients = torch.zeros(clients, batch, parameters.shape[1], dtype=torch.float64)
    trained = [p for p in model.parameters() if p.requires_grad]
    for client in range(clients):
        nn.utils.vector_to_parameters(parameters[client].double(), trained)
        for example in range(batch):
            row = client * batch + example
            model.zero_grad()
            objective(model, (x[row : row + 1], y[row : row + 1])).sum().backward()
            gradients[client, example] = nn.utils.parameters_to_vector(
                [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
            )
    return gradients


def _clipped(gradients, mask, clip):
    """``(clients, parameters)``, added one example at a time."""
    sums = torch.zeros(len(gradients), gradients.shape[2], dtype=torch.float64)
    for client, example in mask.nonzero().tolist():
        gradient = gradients[client, example]
        sums[client] += gradient * min(1.0, clip * MARGIN / float(gradient.norm()))
    return sums


def _relative(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", CASES)
def test_norms_and_clipped_sums_equal_a_loop(name):
    """For a client that is alone, whose convolutions are the library's, and for a stack; in either precision."""
    module, parameters, x, y, mask, objective = _problem(name, torch.float32, batch=6)
    # In double precision, of values that single precision holds: one truth for both.
    gradients = _gradients(module, parameters, x, y, mask, objective)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        cast, own = copy.deepcopy(module).to(dtype), parameters.to(dtype)
        values, targets = (part.to(dtype) if part.is_floating_point() else part for part in (x, y))
        for clients in (1, 3):
            batch, some = (values[: clients * 6], targets[: clients * 6]), mask[:clients]
            stack = _stack(cast, own[:clients], objective, *batch)
            for clip in (0.3, 1e6):
                sums, norms = clipped_sum(stack, objective, batch, some, clip)
                expected = _clipped(gradients[:clients], some, clip)
                assert _relative(norms, gradients[:clients].norm(dim=2)) < tolerance, (dtype, clients, clip)
                assert _relative(sums, expected) < tolerance, (dtype, clients, clip)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("clients", [1, 3])
def test_padding_that_is_wider_on_one_side_equals_a_loop(clients):
    torch.manual_seed(1)
    layer = nn.Conv2d(1, 3, (2, 4), padding="same", dilation=(1, 3))
    module = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(3 * 20, 2)).double()
    x, y = torch.randn(clients * 4, 1, 4, 5, dtype=torch.float64), torch.arange(clients * 4) % 2
    parameters = 0.5 * torch.randn(clients, layout_of(module).total, dtype=torch.float64)
    mask = torch.ones(clients, 4, dtype=torch.bool)
    sums, norms = clipped_sum(
        _stack(module, parameters, cross_entropy, x, y), cross_entropy, (x, y), mask, 0.3
    )
    expected_sums, expected_norms = _loop(module, parameters, x, y, mask, cross_entropy, 0.3)
    assert _relative(norms, expected_norms) < 1e-9
    assert _relative(sums, expected_sums) < 1e-9


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in (*NOT_FOR_OPACUS, "called twice", "images twice")]
)
def test_the_clipped_sum_agrees_with_stock_opacus(name):
    """Opacus clips to C / (norm + 1e-6), the engine to C (1 - 2^-10): they differ by design, by 1e-3."""
    module, parameters, x, y, mask, objective = _problem(name, torch.float32, clients=1)
    mask[:] = True
    sums, _ = clipped_sum(_stack(module, parameters, objective, x, y), objective, (x, y), mask, 0.5)
    names = layout_of(module).names
    nn.utils.vector_to_parameters(parameters[0], module.parameters())
    if hasattr(module, "lstm"):
        own = module.lstm
        module.lstm = DPLSTM(
            own.input_size, own.hidden_size, own.num_layers, bias=own.bias, batch_first=own.batch_first
        )
        module.lstm.load_state_dict(own.state_dict())
    model = GradSampleModule(module, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=0.5,
        expected_batch_size=len(y),
        loss_reduction="sum",
    )
    objective(model, (x, y)).sum().backward()
    optimizer.clip_and_accumulate()
    named = dict(module.named_parameters())
    opacus = torch.cat([named[name].summed_grad.flatten() for name in names])
    assert _relative(sums[0], opacus.double()) < 2e-3


@pytest.mark.parametrize("name", CASES)
def test_no_example_adds_more_than_the_clip(name):
    """One example at a time, with inputs that make gradients huge: the sum is the example's contribution."""
    clip = 0.7
    module, parameters, x, y, _, objective = _problem(name, torch.float32, scale=100.0)
    stack = _stack(module, parameters, objective, x, y)
    mask = torch.zeros(3, 8, dtype=torch.bool)
    for example in range(8):
        mask[:] = False
        mask[:, example] = True
        sums, norms = clipped_sum(stack, objective, (x, y), mask, clip)
        lengths = torch.linalg.vector_norm(sums.double(), dim=1)
        assert (lengths <= clip).all()
        long = norms[:, example] > clip
        assert (lengths[long] > clip * (1.0 - 2.0**-9)).all()


@pytest.mark.parametrize("scale", [1e4, 1e6, 1e8])
def test_terms_that_cancel_do_not_hide_rounding_beyond_the_clip(scale):
    """Positions of opposite sign: the gradient is far smaller than its terms, and their rounding is not."""
    torch.manual_seed(3)
    module = Positions(2, 1)
    half = scale * torch.randn(8, 6)
    x = torch.cat([half, half * (1.0 + 1e-6)], 1)
    y = torch.randint(0, 2, (8,))
    parameters = 0.5 * torch.randn(1, layout_of(module).total)
    objective = build_objective(None, "binary")
    for example in range(8):
        mask = torch.zeros(1, 8, dtype=torch.bool)
        mask[0, example] = True
        sums, _ = clipped_sum(_stack(module, parameters, objective, x, y), objective, (x, y), mask, 1.0)
        assert float(sums.double().norm()) <= 1.0


def test_an_example_whose_scale_would_be_denormal_is_dropped():
    module, parameters, x, y, mask, objective = _problem("logistic", torch.float32)
    mask[:] = True
    x[3] = 1e35
    sums, norms = clipped_sum(_stack(module, parameters, objective, x, y), objective, (x, y), mask, 1e-5)
    mask[0, 3] = False
    without, _ = clipped_sum(_stack(module, parameters, objective, x, y), objective, (x, y), mask, 1e-5)
    assert float(norms[0, 3]) > 1e34
    assert torch.equal(sums, without)


def test_an_infinite_clip_leaves_gradients_as_they_are():
    module, parameters, x, y, mask, objective = _problem("mlp", torch.float64)
    sums, _ = clipped_sum(_stack(module, parameters, objective, x, y), objective, (x, y), mask, math.inf)
    expected, _ = _loop(module, parameters, x, y, mask, objective, 1e12)
    assert _relative(sums, expected) < 1e-9


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.signature.vocabulary is None])
def test_a_bad_example_leaves_every_other_client_bit_identical(name):
    module, parameters, x, y, mask, objective = _problem(name, torch.float32)
    mask[:] = True
    stack = _stack(module, parameters, objective, x, y)
    clean, _ = clipped_sum(stack, objective, (x, y), mask, 1.0)
    without = mask.clone()
    without[1, 3] = False
    dropped, _ = clipped_sum(stack, objective, (x, y), without, 1.0)
    for bad in (math.nan, math.inf, -math.inf, 1e30, 3e38, 0.0):
        poisoned = x.clone()
        poisoned[8 + 3] = bad  # client 1, example 3
        sums, _ = clipped_sum(stack, objective, (poisoned, y), mask, 1.0)
        assert torch.equal(sums[[0, 2]], clean[[0, 2]]), bad
        assert torch.isfinite(sums).all(), bad
        # And its own client loses at most that example: the rest moves by no more than one clip each way.
        assert float((sums[1] - clean[1]).double().norm()) <= 2.0, bad
        if math.isnan(bad) or math.isinf(bad):
            np.testing.assert_allclose(sums[1], dropped[1], rtol=1e-6, atol=1e-7, err_msg=str(bad))


def _spoiled(objective, x, y, rows, bad):
    """The objective, but for the losses and gradients of some rows; and its batch."""
    scale = torch.ones(len(y), dtype=torch.float32)
    scale[rows] = bad

    def spoiled(model, batch):
        own, factors = batch
        return objective(model, own) * factors

    return spoiled, ((x, y), scale)


@pytest.mark.parametrize("name", CASES)
def test_a_bad_loss_leaves_every_other_client_bit_identical(name):
    """Tokens are never bad; their gradients may be."""
    module, parameters, x, y, mask, objective = _problem(name, torch.float32)
    mask[:] = True
    stack = _stack(module, parameters, objective, x, y)
    clean, _ = clipped_sum(stack, objective, (x, y), mask, 1.0)
    without = mask.clone()
    without[1, 3] = False
    dropped, _ = clipped_sum(stack, objective, (x, y), without, 1.0)
    for bad in (math.nan, math.inf, 1e30, 0.0):
        spoiled, batch = _spoiled(objective, x, y, slice(8 + 3, 8 + 4), bad)
        sums, _ = clipped_sum(stack, spoiled, batch, mask, 1.0)
        assert torch.equal(sums[[0, 2]], clean[[0, 2]]), bad
        assert torch.isfinite(sums).all(), bad
        assert float((sums[1] - clean[1]).double().norm()) <= 2.0, bad
        if bad != 1e30:  # that one is clipped, and stays
            np.testing.assert_allclose(sums[1], dropped[1], rtol=1e-6, atol=1e-7, err_msg=str(bad))


@pytest.mark.parametrize("name", CASES)
def test_padding_that_points_to_a_bad_record_adds_nothing(name):
    module, parameters, x, y, mask, objective = _problem(name, torch.float32)
    mask[:] = True
    mask[1, 5:] = False
    stack = _stack(module, parameters, objective, x, y)
    clean, _ = clipped_sum(stack, objective, (x, y), mask, 1.0)
    if x.is_floating_point():
        x[8 + 5 : 16] = math.nan
    spoiled, batch = _spoiled(objective, x, y, slice(8 + 5, 16), math.nan)
    sums, _ = clipped_sum(stack, spoiled, batch, mask, 1.0)
    assert torch.equal(sums, clean)


def test_an_objective_without_one_loss_per_example_is_refused():
    module, parameters, x, y, mask, _ = _problem("mlp", torch.float32)

    def mean(model, batch):
        return cross_entropy(model, batch).mean()

    with pytest.raises(ValueError, match="losses of shape"):
        clipped_sum(_stack(module, parameters, cross_entropy, x, y), mean, (x, y), mask, 1.0)
