"""DP-SGD's clipped sum of one batch of sequences: the stacked engine against Opacus's hooks, in one process.

``python benchmarks/engine_sequences.py`` prints, for each case, the median ratio of CPU seconds over interleaved
pairs, with its quartiles. Opacus is given its own layers, as it documents, and does what its optimiser does before the
noise: per-sample gradients by hooks, their norms, the clipped sum. Of a transformer there is a second figure, for
attention by four linear layers and the library's fused product, which Opacus takes too.
"""

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from fedsafe.client.objectives import Objective, cross_entropy
from fedsafe.client.stacked import StackedModel, clipped_sum
from fedsafe.models.text import TokenLSTM

VOCABULARY, STEPS = 80, 50


class TokenTransformer(nn.Module):
    """Tokens and places, two ordinary encoder layers, and the classes of the mean over positions.

    Args:
        width: Of a position.
        heads: Of the attention.
        feedforward: Width between the two linear layers.
        classes: Number of logits.
        batch_first: Whether tokens are ``(batch, positions)``, or ``(positions, batch)``.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        heads: int = 4,
        feedforward: int = 128,
        classes: int = 10,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(STEPS, width)
        self.blocks = nn.ModuleList(
            [
                nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.0, batch_first=batch_first)
                for _ in range(2)
            ]
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(STEPS).unsqueeze(0 if self.batch_first else 1)
        x = self.tokens(x) + self.places(positions.expand(x.shape))
        for block in self.blocks:
            x = block(x)
        # Opacus wants the batch where it was, so the dimension of positions stays for the head.
        over = 1 if self.batch_first else 0
        logits: Tensor = self.head(x.mean(over, keepdim=True)).squeeze(over)
        return logits


def positions_first(module: TokenTransformer) -> TokenTransformer:
    """The same model for tokens ``(positions, batch)``.

    Opacus 1.6's ``DPMultiheadAttention`` mixes up heads and positions where examples come first.
    """
    block: Any = module.blocks[0]
    turned = TokenTransformer(
        width=module.head.in_features,
        heads=block.self_attn.num_heads,
        feedforward=block.linear1.out_features,
        classes=module.head.out_features,
        batch_first=False,
    )
    turned.load_state_dict(module.state_dict())
    return turned


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is timed: ``module`` on ``x`` and ``y``, whose first dimension is the batch."""

    module: nn.Module
    x: Tensor
    y: Tensor
    objective: Objective


def lstm_case(batch: int = 48, *, every: bool = True) -> Case:
    """Embedding 32, hidden 64, 50 steps: the next token at every position, or one of ten classes after the last."""
    torch.manual_seed(0)
    outputs = VOCABULARY if every else 10
    module = TokenLSTM(VOCABULARY, outputs, embedding=32, hidden=64, layers=1, every=every)
    shape = (batch, STEPS) if every else (batch,)
    return Case(
        module=module,
        x=torch.randint(VOCABULARY, (batch, STEPS)),
        y=torch.randint(outputs, shape),
        objective=cross_entropy,
    )


def transformer_case(batch: int = 48, *, feedforward: int = 128) -> Case:
    """Two layers of width 64 with four heads, 50 positions, ten classes."""
    torch.manual_seed(0)
    return Case(
        module=TokenTransformer(feedforward=feedforward),
        x=torch.randint(VOCABULARY, (batch, STEPS)),
        y=torch.randint(10, (batch,)),
        objective=cross_entropy,
    )


def for_engine(case: Case, *, clip: float = 1.0) -> Callable[[], Tensor]:
    """One clipped sum by the stacked engine, for a client that is alone, as clients of this size are."""
    initial = torch.cat([p.detach().flatten() for p in case.module.parameters()])
    model = StackedModel(case.module, initial.unsqueeze(0).clone())
    mask = torch.ones(1, len(case.x), dtype=torch.bool)

    def step() -> Tensor:
        with torch.no_grad():
            return clipped_sum(model, case.objective, (case.x, case.y), mask, clip)[0][0]

    return step


def for_opacus(case: Case, *, clip: float = 1.0, documented: bool = True) -> Callable[[], Tensor]:
    """The same sum by Opacus, in the order of the module's parameters; its layers split some of them.

    Args:
        case: What is timed.
        clip: Of each example's gradient.
        documented: Whether attention is what ``ModuleValidator.fix`` puts in its place, and four linear layers if not.
    """
    module, x, batch_first = copy.deepcopy(case.module), case.x, True
    if documented and isinstance(module, TokenTransformer):
        module, x, batch_first = positions_first(module), x.t().contiguous(), False
    fixed = ModuleValidator.fix(module) if documented else with_open_attention(module)
    model = GradSampleModule(fixed, loss_reduction="sum", batch_first=batch_first)
    optimizer = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=len(case.y),
        loss_reduction="sum",
    )

    def step() -> Tensor:
        optimizer.zero_grad()
        case.objective(model, (x, case.y)).sum().backward()
        optimizer.clip_and_accumulate()
        return torch.cat([p.summed_grad.flatten() for p in model.parameters()])

    return step


def with_open_attention(module: nn.Module) -> nn.Module:
    """The module with attention by four linear layers, in place."""
    for name, child in list(module.named_children()):
        opened = (
            _OpenAttention(child) if isinstance(child, nn.MultiheadAttention) else with_open_attention(child)
        )
        setattr(module, name, opened)
    return module


class _OpenAttention(nn.Module):
    """Attention by four linear layers, whose gradients Opacus knows."""

    def __init__(self, template: nn.MultiheadAttention) -> None:
        super().__init__()
        width, self.heads = template.embed_dim, template.num_heads
        self.projections = nn.ModuleList([nn.Linear(width, width) for _ in range(3)])
        self.out = nn.Linear(width, width)
        weights, biases = template.in_proj_weight.chunk(3), template.in_proj_bias.chunk(3)
        for linear, weight, bias in zip(self.projections, weights, biases, strict=True):
            linear.load_state_dict({"weight": weight, "bias": bias})
        self.out.load_state_dict(template.out_proj.state_dict())

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **_: Any) -> tuple[Tensor, None]:
        q, k, v = (
            project(part).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project, part in zip(self.projections, (query, key, value), strict=True)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2)), None


def compare(case: Case, pairs: int, *, documented: bool = True) -> str:
    """Median CPU milliseconds of both, and the ratio with its quartiles."""
    engine, opacus = for_engine(case), for_opacus(case, documented=documented)
    # Opacus clips to C / (norm + 1e-6), the engine to C (1 - 2^-10), and the order of parameters differs.
    close = abs(float(engine().norm() / opacus().norm()) - 1.0)
    if close > 5e-3:
        raise SystemExit(f"the two sums differ in length by {close:.1%}: what is timed is not the same work")
    timings = [(_seconds(opacus), _seconds(engine)) for _ in range(pairs)]
    ratios = [slow / fast for slow, fast in timings]
    low, middle, high = statistics.quantiles(ratios, n=4)
    slow, fast = (1e3 * statistics.median(side) for side in zip(*timings, strict=True))
    return f"Opacus {slow:.1f} ms, engine {fast:.1f} ms: {middle:.2f}x (quartiles {low:.2f}, {high:.2f})"


def _seconds(step: Callable[[], Tensor]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


CASES: dict[str, Callable[[int], Case]] = {
    "lstm, next token": lstm_case,
    "lstm, last token": lambda batch: lstm_case(batch, every=False),
    "transformer, feed-forward 128": transformer_case,
    "transformer, feed-forward 256": lambda batch: transformer_case(batch, feedforward=256),
}


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", default="", help="cases whose name starts so")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name, make in CASES.items():
        if name.startswith(options.only):
            case = make(options.batch)
            print(f"{name}, batch {options.batch}: {compare(case, options.pairs)}", flush=True)
            if isinstance(case.module, TokenTransformer):
                other = compare(case, options.pairs, documented=False)
                print(f"    against attention by linear layers: {other}", flush=True)


if __name__ == "__main__":
    main()
