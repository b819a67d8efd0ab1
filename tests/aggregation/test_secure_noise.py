"""The noise of a masked sum is the planned one, and what is claimed for it against three kinds of server."""

import math

import numpy as np
import pytest

from fedsafe.aggregation.secure import RoundId, SecureParameters, secure_sum, simulated_identities
from fedsafe.privacy.accounting.distributed import discrete_gaussian_rdp, distributed_epsilon, skellam_rdp
from fedsafe.privacy.accounting.renyi import RenyiCurve
from fedsafe.privacy.circumstances import Circumstances
from fedsafe.privacy.client_claim import CLIENTS, OUTSIDER, SERVER, headline
from fedsafe.privacy.distributed_claim import COLLUDING, UNMASKED
from fedsafe.privacy.levels import DISTRIBUTED, ClientPlan, RecordPlan, Shares
from fedsafe.privacy.matrix import Cell, claim_matrix
from fedsafe.privacy.mechanisms import DistributedMechanism
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(31)
VALUES = 2**16
both_laws = pytest.mark.parametrize("law", ["discrete gaussian", "skellam"])


@both_laws
@pytest.mark.parametrize("factor", [2 / 3, 1.0, 3 / 2])
def test_the_noise_of_the_sum_is_the_planned_one_within_a_hundredth(law, factor):
    """Three honest of four survivors add what was planned, four shares are in the sum, and one client drops out."""
    planned = DistributedMechanism(clip=1.0, noise=1.5, bits=0, modulus=26, minimum=4, corrupt=1, law=law)
    planned = planned.on_finest_grid(5)
    used = DistributedMechanism(
        clip=1.0, noise=1.5 * factor, bits=planned.bits, modulus=26, minimum=4, corrupt=1, law=law
    )
    streams = [
        Stream(KEY, StreamId(purpose="client draws", client=c, round=1, digest=b"d")) for c in range(5)
    ]
    found = secure_sum(
        {c: (lambda c=c: used.sent(np.zeros(VALUES), streams[c])) for c in range(5)},
        key=KEY,
        identities=simulated_identities(KEY, range(5)),
        parameters=SecureParameters.of(used, VALUES, dropouts=0.2),
        round=RoundId(run="noise", round=1),
        lost={"mask": {2}},
    )
    deviation = found.total.std() / (1.5 * planned.bound(VALUES)) / math.sqrt(4 / 3)
    assert bool(abs(deviation - 1.0) < 0.01) is (factor == 1.0)


def plan_of(corrupt: int, law: str = "discrete gaussian") -> PrivacyPlan:
    return PrivacyPlan(
        clients=200,
        rounds=20,
        record=RecordPlan(
            epsilon=math.inf, delta=1e-5, clip=1.0, rate=0.01, steps=1, max_participations=20, noise=0.0
        ),
        client=ClientPlan(
            epsilon=8.0, delta=1e-3, clip=1.0, rate=0.5, noise=3.0, grid_bits=30, mechanism=DISTRIBUTED,
            shares=Shares(law=law, minimum=50, corrupt=corrupt, modulus=32, rotated=True, parameters=1000),
        ),
        program="",
    )  # fmt: skip


def cells_of(plan: PrivacyPlan) -> dict[tuple[str, str], Cell]:
    return {
        (cell.adversary, cell.unit): cell for cell in claim_matrix(plan, Circumstances(key_from_seed=False))
    }


class TestClaims:
    def test_each_kind_of_server_has_a_row(self):
        adversaries = dict.fromkeys(adversary for adversary, _ in cells_of(plan_of(5)))
        assert list(adversaries) == [SERVER, COLLUDING, UNMASKED, CLIENTS, OUTSIDER]
        assert COLLUDING not in {adversary for adversary, _ in cells_of(plan_of(0))}

    @both_laws
    def test_the_epsilons_are_those_of_the_published_formulas(self, law):
        """Of all survivors, of the honest ones, and of one share alone, where any update replaces any other."""
        plan = plan_of(5, law)
        noise = plan.client.distributed(200, 20)
        orders = [
            *range(2, 65),
            *range(68, 129, 4),
            *range(144, 257, 16),
            512,
            1024,
            2048,
            4096,
            16384,
            65536,
        ]

        def published(shares: int, moved: float) -> float:
            def rdp(order: int) -> float:
                norms = {"l2": moved * noise.l2, "l1": moved * noise.l1}
                if law == "skellam":
                    return 20 * skellam_rdp(order, variance=shares * noise.share**2, **norms)
                return 20 * discrete_gaussian_rdp(
                    order, share=noise.share, shares=shares, dimension=noise.dimension, **norms
                )

            curve = RenyiCurve(orders=tuple(map(float, orders)), values=tuple(map(rdp, orders)))
            return curve.epsilon(1e-3)

        found = cells_of(plan)
        for adversary, shares, moved in ((SERVER, 50, 1.0), (COLLUDING, 45, 1.0), (UNMASKED, 1, 2.0)):
            claimed = found[adversary, "client"].claim.epsilon
            assert claimed == pytest.approx(published(shares, moved), rel=1e-6)

    def test_it_is_the_corrupt_clients_that_the_plan_is_made_for(self):
        plan, about = plan_of(5), Circumstances(key_from_seed=False)
        found = cells_of(plan)
        assert found[COLLUDING, "client"].claim.epsilon == headline(plan, about).epsilon
        assert found[SERVER, "client"].claim.epsilon < found[COLLUDING, "client"].claim.epsilon
        assert "at most 5 of each round's clients" in found[COLLUDING, "client"].claim.adversary

    def test_without_masks_next_to_nothing_is_left_and_it_is_said(self):
        found = cells_of(plan_of(5))
        alone = found[UNMASKED, "client"].claim
        assert alone.epsilon == pytest.approx(found[SERVER, "client"].claim.fallback_epsilon)
        assert alone.epsilon > 50 * found[COLLUDING, "client"].claim.epsilon
        assert alone.adjacency.startswith("replace-one")
        assert alone.fallback_epsilon is None
        assert not any("secure aggregation" in assumed for assumed in alone.assumptions)
        assert "own share alone" in alone.adversary or "its own share" in alone.adversary

    def test_a_record_is_claimed_behind_each_under_replace_one(self):
        found = cells_of(plan_of(5))
        bounds = [found[adversary, "record"].claim.epsilon for adversary in (SERVER, COLLUDING, UNMASKED)]
        assert bounds == sorted(bounds)
        assert bounds[0] > found[SERVER, "client"].claim.epsilon
        assert all(
            found[adversary, "record"].claim.adjacency.startswith("replace-one")
            for adversary in (SERVER, COLLUDING, UNMASKED)
        )

    def test_a_share_that_is_lost_is_not_counted(self):
        """At the minimum of 50, five of them corrupt: 45 shares; one fewer would cost more than is claimed."""
        noise = plan_of(5).client.distributed(200, 20)
        assert noise.honest == 45
        fewer = type(noise)(**{**noise.__dict__, "honest": 44})
        assert distributed_epsilon(fewer, 1e-3) > cells_of(plan_of(5))[COLLUDING, "client"].claim.epsilon
