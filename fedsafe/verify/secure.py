"""Client level, secure aggregation: what single clients put into a sum, and what else they let anybody see."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsafe.params import Vector
from fedsafe.privacy.mechanisms import rotate_back
from fedsafe.verify import sources
from fedsafe.verify.bench import HUGE, Bench
from fedsafe.verify.masked import PARTY, MaskedRounds, Played, with_few_signatures, words_of
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.server import ClientReply
from fedsafe.verify.statistics import ALPHA, DEVIATIONS, normal_quantile, scale_of, scale_range

# Clients that are looked at one by one.
_MOST = 64
_BINS = 64
_SLACK = 0.02


def check_secure(bench: Bench) -> list[Outcome]:
    """Noise of each client and of the sum, masks, and refusals."""
    masked = bench.masked
    if masked is None:
        return [not_applicable("masked messages", "the claim's updates are not summed behind masks")]
    if masked.population < PARTY:
        return [
            not_applicable("masked messages", f"rounds of {PARTY} clients are played, and there are fewer")
        ]
    looked = Looked(bench=bench, masked=masked)
    return [
        looked.shares(),
        looked.noise_of_the_sum(),
        looked.updates(),
        looked.uniform(),
        looked.clear(),
        looked.too_few(),
        looked.lied_to(),
        looked.twice(),
    ]


@dataclass(kw_only=True)
class Looked:
    """Clients, looked at alone among stand-ins, and together.

    Args:
        bench: Measures.
        masked: Plays rounds.
    """

    bench: Bench
    masked: MaskedRounds

    @cached_property
    def clients(self) -> list[int]:
        """Those that are looked at one by one, in no order."""
        drawn = self.bench.rng.permutation(self.masked.population)[:_MOST]
        return [int(client) for client in drawn]

    @cached_property
    def rounds(self) -> dict[int, list[Played]]:
        """Two of each client, of zeros."""
        return {client: [self.play([client]) for _ in range(2)] for client in sorted(self.clients)}

    @property
    def deviation(self) -> float:
        """Claimed standard deviation of one client's noise, in units of the grid."""
        return self.bench.claim.noise_of(1.0) * self.unit

    @property
    def unit(self) -> float:
        """One clip in units of the grid."""
        return float(np.ldexp(self.bench.claim.clip, self.masked.mechanism.bits))

    def play(
        self,
        tested: Sequence[int],
        *,
        reply: ClientReply | None = None,
        round: int | None = None,
        party: Sequence[int] | None = None,
        model: Vector | None = None,
        **more: object,
    ) -> Played:
        """A round in which training gives zeros, unless something else is said."""
        return self.masked.play(
            tested,
            self.masked.party(tested, self.bench.rng) if party is None else party,
            self.bench.model() if model is None else model,
            round=self.masked.next_round() if round is None else round,
            reply=self.silent if reply is None else reply,
            **more,  # type: ignore[arg-type]
        )

    @property
    def silent(self) -> ClientReply:
        """Zeros."""
        return self.bench.reply(np.zeros(self.bench.parameters, np.float32))

    def shares(self) -> Outcome:
        """Everybody else sends zeros, so the sum is what one client has put in."""
        name = "share of each client behind masks"
        claimed = f"noise of deviation {self.bench.claim.noise_of(1.0):.4g} clips from each client"
        if not self.deviation:
            return not_applicable(name, "the claim is without noise")
        wrong, ratios = {}, {}
        for client, rounds in self.rounds.items():
            lost = next((played.error for played in rounds if played.total is None), "")
            if lost:
                return judged(name, holds=False, claimed=claimed, seen=f"no sum: {lost}", source=sources.LOST)
            drawn = _drawn(rounds)
            low, high = scale_range(drawn.size, tests=len(self.rounds))
            ratios[client] = scale_of(drawn, self.deviation)
            if not low <= ratios[client] <= high:
                wrong[client] = ratios[client]
        worst = min(wrong or ratios, key=lambda client: ratios[client])
        return judged(
            name,
            holds=not wrong,
            claimed=claimed,
            seen=f"{ratios[worst]:.3f} times as much from client {worst}, the least of {len(ratios)} clients that were "
            "looked at one by one",
            source=sources.SURVIVORS,
        )

    def noise_of_the_sum(self) -> Outcome:
        """All of a round are under test."""
        name, claimed = "noise of the sum behind masks", f"the shares of {PARTY} clients, each its own"
        if not self.deviation:
            return not_applicable(name, "the claim is without noise")
        rounds = [self.play(self.masked.party([], self.bench.rng)) for _ in range(self.bench.few)]
        if any(played.total is None for played in rounds):
            seen = f"no sum: {rounds[0].error}"
            return judged(name, holds=False, claimed=claimed, seen=seen, source=sources.LOST)
        drawn = _drawn(rounds)
        low, high = scale_range(drawn.size)
        ratio = scale_of(drawn, self.deviation * np.sqrt(PARTY))
        return judged(
            name,
            holds=low <= ratio <= high,
            claimed=claimed,
            seen=f"{ratio:.3f} times as much, over {drawn.size:,} values",
            source=sources.SURVIVORS,
        )

    def updates(self) -> Outcome:
        """Long updates of all: what the sum says along them."""
        name, claimed = "sum behind masks", "the clipped updates of all whose masked values arrived"
        direction = self.bench.direction()
        reply = self.bench.reply(self.bench.update(direction, HUGE))
        mechanism, party = self.masked.mechanism, self.masked.party([], self.bench.rng)
        lost = party[: int(self.masked.parameters.dropouts * PARTY)]  # as many as are planned for
        worst = 0.0
        for gone in ((), lost):
            played = self.play(party, party=party, reply=reply, lost={"mask": gone, "reveal": lost})
            if played.total is None:
                seen = f"no sum: {played.error}"
                return judged(name, holds=False, claimed=claimed, seen=seen, source=sources.LOST)
            present = PARTY - len(gone)
            along = (
                float(_unrotated(played.total, mechanism.rotated, self.bench.parameters) @ direction)
                / self.unit
            )
            worst = max(worst, abs(along - present) / (present * _SLACK + self._error(present)))
        return judged(
            name,
            holds=worst <= 1.0,
            claimed=claimed,
            seen="so it was"
            if worst <= 1.0
            else f"a sum that was off by {worst:.3g} times what noise may make of it",
            source=sources.MASKS,
        )

    def uniform(self) -> Outcome:
        """Single messages, and what is left of two of one client where the same was to be sent."""
        name, claimed = "masked messages", "values that look uniform, alone and beside an earlier round's"
        modulus = self.masked.parameters.modulus
        messages: dict[int, list[NDArray[np.uint64]]] = {
            client: words_of(rounds, client, modulus) for client, rounds in self.rounds.items()
        }
        seen: dict[str, float] = {}
        tests = 4 * sum(map(len, messages.values()))
        wrong: dict[str, float] = {}
        for client, words in messages.items():
            named = [(f"a message of client {client}", each) for each in words]
            if len(words) > 1:
                named += [(f"the difference of two rounds of client {client}", words[0] - words[1])]
            for what, values in named:
                for bits, found in (("top", _top(values, modulus)), ("bottom", values)):
                    least = _p_value(found, modulus)
                    seen[f"{bits} bits of {what}"] = least
                    if least < ALPHA / max(1, tests):
                        wrong[f"{bits} bits of {what}"] = least
        if not seen:
            said = "no message of a client under test"
            return judged(name, holds=False, claimed=claimed, seen=said, source=sources.LOST)
        worst = min(wrong or seen, key=lambda what: seen[what])
        return judged(
            name,
            holds=not wrong,
            claimed=claimed,
            seen=f"a chi-square test gives p = {seen[worst]:.2g} for the {worst}, the least of {len(seen)}",
            source=sources.MASKS,
        )

    def clear(self) -> Outcome:
        """A server that asks as if nothing were masked."""
        name, claimed = "update in the clear", "a client gives its update behind masks or not at all"
        reply = self.bench.reply(self.bench.update(self.bench.direction(), 1.0))
        gave = [c for c in self.clients if self.masked.in_the_clear(c, self.bench.model(), reply) is not None]
        seen = f"client {gave[0]} answered a server that asked for it" if gave else "it was refused"
        return judged(name, holds=not gave, claimed=claimed, seen=seen, source=sources.MASKS)

    def too_few(self) -> Outcome:
        """One less than the minimum is left, early and late."""
        least = self.masked.parameters.minimum
        name, claimed = "too few survivors behind masks", f"nothing is unmasked below {least} survivors"
        found = []
        for stage in ("share", "mask", "confirm"):
            party = self.masked.party([], self.bench.rng)
            played = self.play(party[:2], party=party, lost={stage: party[least - 1 :]})
            if played.total is not None or played.said.get("reveal"):
                found.append(stage)
        seen = (
            f"shares of secrets, or a sum, where clients were lost before {found[0]!r}"
            if found
            else "so it was"
        )
        return judged(name, holds=not found, claimed=claimed, seen=seen, source=sources.SURVIVORS)

    def lied_to(self) -> Outcome:
        """A server that shows a client one confirmation where most clients must have signed."""
        name, claimed = (
            "shares given to a server that lies",
            "none where too few have signed the list of survivors",
        )
        gave = [
            client
            for client in self.clients[: self.bench.few]
            if self.play([client], forged=with_few_signatures).said.get("reveal")
        ]
        seen = f"client {gave[0]} gave away shares after one signature" if gave else "they were refused"
        return judged(name, holds=not gave, claimed=claimed, seen=seen, source=sources.ONCE)

    def twice(self) -> Outcome:
        """The same round again, over other clients and from another model."""
        name, claimed = "one answer in a round", "a client masks its values in one sum of each round"
        if not self.masked.own_states:
            return not_applicable(
                name,
                "a simulation's server sends clients what they have kept, and its ledger counts a round once",
            )
        found = ""
        for client in self.clients[: self.bench.few]:
            number, model = self.masked.next_round(), self.bench.model()
            first = self.play([client], round=number, model=model)
            again: dict[str, Callable[[], Played]] = {
                "other clients": lambda c=client, n=number, m=model: self.play([c], round=n, model=m),  # type: ignore[misc]
                "another model": lambda c=client, n=number: self.play([c], round=n),  # type: ignore[misc]
            }
            for what, second in again.items():
                if first.said.get("mask") and second().said.get("mask"):
                    found = f"client {client} answered round {number} again, with {what}"
        return judged(name, holds=not found, claimed=claimed, seen=found or "so it was", source=sources.ONCE)

    def _error(self, present: int) -> float:
        """What noise may make of a sum along one direction, in clips."""
        deviations = normal_quantile(tests=2) + DEVIATIONS
        return deviations * self.bench.claim.noise_of(present)


def _drawn(rounds: Sequence[Played]) -> NDArray[np.float64]:
    return np.concatenate([played.total.astype(np.float64) for played in rounds if played.total is not None])


def _unrotated(total: NDArray[np.int64], rotated: bool, parameters: int) -> NDArray[np.float64]:
    values = total.astype(np.float64)
    return rotate_back(values, parameters) if rotated else values


def _top(values: NDArray[np.uint64], modulus: int) -> NDArray[np.uint64]:
    bins = min(_BINS, 2**modulus)
    return (values & np.uint64(2**modulus - 1)) // np.uint64(2**modulus // bins)


def _p_value(values: NDArray[np.uint64], modulus: int) -> float:
    """Of the lowest bits being uniform."""
    bins = min(_BINS, 2**modulus)
    counts = np.bincount((values & np.uint64(bins - 1)).astype(np.int64), minlength=bins)
    return float(stats.chisquare(counts).pvalue)
