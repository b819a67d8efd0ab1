"""Every per-example norm and the clipped sum of 240 random architectures equal those of a loop over examples."""

import copy
from collections import Counter

import pytest
import torch
from drawn_models import FORMS, Drawn
from torch import nn

from fedsafe.client.stacked import clipped_sum, layout_of, measure
from fedsafe.client.stacked.layers import RULES
from fedsafe.privacy.clipping import MARGIN

EACH = 40
CLIENTS, BATCH = 3, 4
SCALES = (1.0, 1.0, 5.0)


def drawn(form, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Drawn(form, seed)
        scale = SCALES[seed % len(SCALES)]
        shape = (CLIENTS * BATCH, *model.inputs)
        x = torch.randint(0, 6, shape) if model.tokens else scale * torch.randn(shape)
        if seed % 4 == 1 and not model.tokens and len(model.inputs) > 1:
            # Positions of opposite sign: what is left of their terms is small, and its rounding is not.
            x[..., 1::2] = -x[..., 0::2][..., : x[..., 1::2].shape[-1]] * (1.0 + 1e-3)
        y = torch.randint(0, 3, (CLIENTS * BATCH,))
        parameters = 0.4 * torch.randn(CLIENTS, layout_of(model).total)
        mask = torch.rand(CLIENTS, BATCH) < 0.8
    return model, parameters, x, y, mask


def objective(model, batch):
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def looped(module, parameters, x, y, mask, clip):
    model = copy.deepcopy(module).double()
    x = x.double() if x.is_floating_point() else x
    trained = [p for p in model.parameters() if p.requires_grad]
    sums = torch.zeros(CLIENTS, parameters.shape[1], dtype=torch.float64)
    norms = torch.zeros(CLIENTS, BATCH, dtype=torch.float64)
    for client in range(CLIENTS):
        nn.utils.vector_to_parameters(parameters[client].double(), trained)
        for example in range(BATCH):
            row = slice(client * BATCH + example, client * BATCH + example + 1)
            loss = objective(model, {"x": x[row], "y": y[row]}).sum()
            parts = torch.autograd.grad(loss, trained, allow_unused=True)
            gradient = torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for p, g in zip(trained, parts, strict=True)
                ]
            )
            norms[client, example] = gradient.norm()
            if mask[client, example]:
                sums[client] += gradient * min(1.0, clip * MARGIN / max(float(gradient.norm()), 1e-300))
    return sums, norms


def relative(found, expected):
    return float((found.double() - expected).norm() / expected.norm().clamp(min=1e-30))


@pytest.mark.parametrize("seed", range(EACH))
@pytest.mark.parametrize("form", FORMS)
def test_a_random_architecture_equals_the_loop(form, seed):
    model, parameters, x, y, mask = drawn(form, 1000 * FORMS.index(form) + seed)
    # In double precision, of values that single precision holds: one truth for both.
    exact = looped(model, parameters, x, y, mask, 0.5)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        cast = copy.deepcopy(model).to(dtype)
        batch = {"x": x.to(dtype) if x.is_floating_point() else x, "y": y}
        own = parameters.to(dtype)
        stack = measure(cast, objective, batch).stack(cast, own.clone())
        sums, norms = clipped_sum(stack, objective, batch, mask, 0.5)
        assert relative(norms, exact[1]) < tolerance
        assert relative(sums, exact[0]) < tolerance


def test_the_architectures_use_every_rule_and_every_way_of_sharing():
    used, ways = Counter(), Counter()
    for form in FORMS:
        for seed in range(EACH):
            model = drawn(form, 1000 * FORMS.index(form) + seed)[0]
            used.update({type(layer) for layer in model.modules()} & set(RULES))
            plain = sum(p.numel() for p in model.parameters())
            every = sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False))
            ways["tied"] += every > plain
            ways["frozen"] += any(not p.requires_grad for p in model.parameters())
            ways["exposed"] += any(isinstance(b.gain, nn.Parameter) for b in model.blocks)
            ways["residual"] += any(block.joins for block in model.blocks)
            ways["twice"] += any(block.twice for block in model.blocks)
    assert len(FORMS) * EACH >= 200
    assert set(RULES) == set(used)
    assert min(used.values()) >= 4
    assert min(ways[way] for way in ("tied", "frozen", "exposed", "residual", "twice")) >= 10
