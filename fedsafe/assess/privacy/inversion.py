"""Gradient inversion: what a server rebuilds of records from single updates, without noise and at the run's own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.clients import SIMULATORS_VIEW, Federation
from fedsafe.assess.privacy.inversion_figures import (
    ANALYTIC,
    MATCHING,
    NONE,
    OWN,
    Setting,
    Yardstick,
    figure_of_labels,
    figures_of_rebuilt,
    likeness_metric,
    nothing,
)
from fedsafe.assess.privacy.inversion_pictures import pictured
from fedsafe.assess.privacy.inverting import FirstLayer, analytic, first_layer, match, read_label
from fedsafe.assess.privacy.uploads import updates, whole_batches
from fedsafe.data import Examples
from fedsafe.findings import Finding, Scope

Array = NDArray[np.float64]

_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """Attacks on updates that the run's trainer makes of some training records, from the judged model.

    The analytic attack is exact without noise where a linear layer reads the record; gradient matching (Geiping et al.
    2020) needs no such layer; the label is read from the last bias (Zhao, Mopuri and Bilen 2020). Each is set beside
    the mean record and the record of zeros, which need no update. The client of one record and one step is the worst
    case; the run's batch and steps stand beside it in the full tier.

    Attributes:
        cheap: Records that the cheap tier attacks, by the division and by their labels.
        full: Records that the full tier attacks so.
        matched: Records that gradient matching attacks, in the full tier.
        iterations: Of gradient matching.
        batch: Records in a larger batch, in the full tier, at most.
        decoys: Other records that a rebuilt one is held to, at most.
    """

    name: ClassVar[str] = "inversion"
    cheap: int = 32
    full: int = 32
    matched: int = 6
    iterations: int = 200
    batch: int = 8
    decoys: int = 200

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """A forward pass over the attacked records, their updates, and in the full tier gradients of gradients."""
        reason = _missing(subject)
        if reason:
            return Cost(description=f"nothing: {reason}")
        size = self._size(subject, tier)
        cost = Cost(
            description=f"rebuilds {size} records from their updates", forward=size, backward=2 * size
        )
        if tier == "cheap":
            return cost
        passes = 2 * min(size, self.matched) * self.iterations
        steps = 1 if subject.federation is None else subject.federation.training.steps
        return Cost(
            description=f"{cost.description}, some by {self.iterations} steps of gradient matching",
            examples=self.decoys,
            forward=size * (3 + 2 * steps) + passes,
            backward=size * (2 + 2 * steps) + 2 * passes,
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        context: Scope = {"data": "training records of clients", "released": SIMULATORS_VIEW}
        reason, federation, training = _missing(subject), subject.federation, subject.training
        metric, plainest = likeness_metric(subject), Setting(threat=ANALYTIC, noise=NONE)
        if reason or federation is None or training is None:
            return [nothing(metric, reason, "not_applicable", plainest, context)]
        size = self._size(subject, tier)
        if size < _FEWEST:
            reason = f"the clients hold {size} records, {_FEWEST} are needed"
            return [nothing(metric, reason, "insufficient", plainest, context)]
        victims = training.examples.take(rng.choice(training.held, size=size, replace=False))
        subject.per_record(victims)  # refuses a model whose outputs are not finite
        layer = first_layer(subject, victims.x[:2])
        yardstick = Yardstick(subject, victims, subject.sample(self.decoys, rng))
        bench = _Bench(subject, federation, victims, yardstick, layer, self.iterations)
        own = federation.training
        noises = [NONE, OWN] if own.noise > 0 or np.isfinite(own.clip) else [NONE]
        pictures = pictured(subject, lambda x: bench.rebuilt(x, noises, tier, rng), yardstick.mean)
        findings: list[Finding] = []
        for noise in noises:
            shown = pictures if noise == NONE else []
            sent = bench.updates(1, 1, noise, rng)
            findings += bench.labels(sent, noise, context)
            findings += bench.analysed(sent, Setting(threat=ANALYTIC, noise=noise), context, shown)
            if tier == "full":
                setting = Setting(threat=MATCHING, noise=noise)
                some, shown = sent[: max(_FEWEST, self.matched)], [] if layer is not None else shown
                findings += bench.matched(some, setting, context, rng, shown)
        if tier == "full" and layer is not None:
            records, steps = min(self.batch, size), own.steps
            for noise in noises:
                setting = Setting(threat=ANALYTIC, noise=noise, records=records, steps=steps)
                findings += bench.analysed(bench.updates(records, steps, noise, rng), setting, context)
        return findings

    def _size(self, subject: Subject, tier: Tier) -> int:
        held = 0 if subject.training is None else len(subject.training.held)
        return min(held, self.cheap if tier == "cheap" else self.full)


class _Bench:
    """Attacked records, and what is rebuilt of them.

    Args:
        subject: With the model.
        federation: How its clients train.
        victims: The attacked records.
        yardstick: What stands beside them.
        layer: From `first_layer`.
        iterations: Of gradient matching.
    """

    def __init__(
        self,
        subject: Subject,
        federation: Federation,
        victims: Examples,
        yardstick: Yardstick,
        layer: FirstLayer | None,
        iterations: int,
    ) -> None:
        self._subject, self._federation, self._yardstick = subject, federation, yardstick
        self._layer, self._iterations = layer, iterations
        self.victims = victims

    def updates(
        self, records: int, steps: int, noise: str, rng: np.random.Generator, of: Examples | None = None
    ) -> Array:
        """``(clients, parameters)``: of clients with so many of the attacked records each, or of others."""
        examples = self.victims if of is None else of
        count = len(examples) // records
        rows = np.arange(count * records).reshape(count, records)
        training = whole_batches(self._federation.training, steps=steps, noised=noise == OWN)
        return updates(self._subject, self._federation, examples, list(rows), training, rng)

    def labels(self, sent: Array, noise: str, context: Scope) -> Iterator[Finding]:
        """Whether labels are read correctly; nothing where targets are numbers."""
        if self._subject.task.kind != "regression":
            read = [read_label(self._subject, update) for update in sent]
            yield figure_of_labels(read, self.victims.y, noise, context)

    def analysed(
        self, sent: Array, setting: Setting, context: Scope, pictures: Sequence[Any] = ()
    ) -> Iterator[Finding]:
        """What a first linear layer gives away."""
        if self._layer is None:
            reason = "no trained linear layer with a bias reads the record itself"
            yield nothing(likeness_metric(self._subject), reason, "not_applicable", setting, context)
            return
        measure, rebuilt, guesses = self._yardstick, [], []
        for update, true in zip(
            sent, np.split(measure.true[: len(sent) * setting.records], len(sent)), strict=True
        ):
            candidates = analytic(update, self._layer, setting.records)
            rebuilt.append(self._best(candidates, true))
            guesses.append(measure.guesses(len(candidates), true))
        yield from figures_of_rebuilt(
            measure,
            np.concatenate(rebuilt),
            setting,
            self._federation.training,
            context,
            pictures,
            # The nearest of many candidates is near by choice alone: so are as many guesses.
            np.concatenate(guesses) if setting.records > 1 else None,
        )

    def _best(self, candidates: Array, true: Array) -> Array:
        """``(records, *inputs)``: the nearest candidate for each record of a batch; the mean where there is none."""
        if not len(candidates):
            return np.repeat(self._yardstick.middle, len(true), axis=0)
        scaled = self._yardstick.ranges(candidates.reshape(-1, *true.shape[1:]))
        return scaled if len(true) == 1 else self._yardstick.nearest(scaled, true)

    def matched(
        self,
        sent: Array,
        setting: Setting,
        context: Scope,
        rng: np.random.Generator,
        pictures: Sequence[Any] = (),
    ) -> Iterator[Finding]:
        """What gradient matching gives away."""
        rebuilt = [self._by_matching(update, self.victims, at, rng) for at, update in enumerate(sent)]
        training = self._federation.training
        yield from figures_of_rebuilt(
            self._yardstick, np.concatenate(rebuilt), setting, training, context, pictures
        )

    def _by_matching(self, update: Array, examples: Examples, at: int, rng: np.random.Generator) -> Array:
        label = None if self._subject.task.kind == "regression" else read_label(self._subject, update)
        y = torch.as_tensor(examples.y[at : at + 1] if label is None else np.array([label]))
        found = match(self._subject, self._federation, update, y, rng, iterations=self._iterations)
        return self._yardstick.middle if found is None else self._yardstick.ranges(found)

    def rebuilt(
        self, examples: Examples, noises: Sequence[str], tier: Tier, rng: np.random.Generator
    ) -> dict[str, Array]:
        """Other records, from updates of each alone: by noise, ``(n, *inputs)`` in parts of the range."""
        if self._layer is None and tier == "cheap":
            return {}
        made, true = {}, self._yardstick.ranges(examples.x)
        for noise in noises:
            sent = self.updates(1, 1, noise, rng, of=examples)
            rows = [
                self._by_matching(update, examples, at, rng)
                if self._layer is None
                else self._best(analytic(update, self._layer, 1), true[at : at + 1])
                for at, update in enumerate(sent)
            ]
            made[noise] = np.concatenate(rows)
        return made


def _missing(subject: Subject) -> str:
    """What the attacks lack; "" where nothing."""
    if subject.task.kind == "next_token":
        return "inputs are tokens, which these attacks do not rebuild"
    if subject.training is None or subject.federation is None:
        return "how the clients train, and on what, is not known here: only a simulation knows it"
    return ""
