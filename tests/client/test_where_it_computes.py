"""The engine computes where its parameters are: on a GPU where there is one, and nowhere else meanwhile."""

import pytest
import torch
from stacked_models import CASES

from fedsafe.client import build_objective
from fedsafe.client.stacked import clipped_sum, layout_of, measure, plain_sum

# Their own code makes tensors on the processor.
NOT_FOR_DEVICES = (
    "attention",
    "self attention",
    "attention weights",
    "cross attention",
    "attention twice",
    "encoder and decoder",
    "vision transformer",
)
NAMES = [name for name in CASES if name not in NOT_FOR_DEVICES]
CLIENTS, BATCH = 3, 4


def problem(name):
    torch.manual_seed(7)
    case = CASES[name]
    module, batch = case.make(), case.data(CLIENTS * BATCH)
    parameters = 0.4 * torch.randn(CLIENTS, layout_of(module).total)
    return module, build_objective(None, case.signature.kind), batch, parameters


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_made_on_another_device(monkeypatch, name, clean):
    """Tensors of the device "meta" have no values, and no operation takes them together with others."""
    module, objective, batch, parameters = problem(name)
    shape = measure(module, objective, batch)
    # A client that is alone leaves bad records out by their values, which there are none of.
    for clients in (1, CLIENTS) if clean else (CLIENTS,):
        x, y = (part[: clients * BATCH].to("meta") for part in batch)
        mask = torch.ones(clients, BATCH, dtype=torch.bool, device="meta")
        stack = shape.stack(module, parameters[:clients].to("meta"))
        with monkeypatch.context() as patched:
            # Whatever is decided by values: one way, then the other.
            patched.setattr(torch.Tensor, "__bool__", lambda tensor: clean)
            patched.setattr(torch.Tensor, "__float__", lambda tensor: float(clean))
            sums, norms = clipped_sum(stack, objective, (x, y), mask, 1.0)
            plain = plain_sum(stack, objective, (x, y), mask)
        assert {part.device.type for part in (sums, norms, plain)} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_the_norms_and_sums_of_the_processor(name):
    module, objective, batch, parameters = problem(name)
    mask = torch.rand(CLIENTS, BATCH) < 0.8
    shape = measure(module, objective, batch)
    expected = clipped_sum(shape.stack(module, parameters), objective, batch, mask, 0.3)
    own = tuple(part.cuda() for part in batch)
    found = clipped_sum(shape.stack(module, parameters.cuda()), objective, own, mask.cuda(), 0.3)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-4)
