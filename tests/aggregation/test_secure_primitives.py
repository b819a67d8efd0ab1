"""What secure aggregation is made of, held to slow oracles: shares, streams, masks, bytes, kept states."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_secure_round import ROUND, Game

from fedsafe.aggregation.secure import KeptRound, RoundId
from fedsafe.aggregation.secure.lists import from_bitmap, to_bitmap
from fedsafe.aggregation.secure.masks import (
    add_mask,
    from_residues,
    key_stream,
    to_residues,
    trimmed,
    word_type,
)
from fedsafe.aggregation.secure.shamir import PRIME, deal, is_share, recover
from fedsafe.errors import SecureAggregationError
from fedsafe.privacy.mechanisms import wrap
from fedsafe.rng import _keystream

secrets_of_32 = st.binary(min_size=32, max_size=32)
holders_of = st.lists(st.integers(0, 2**31 - 3), min_size=1, max_size=9, unique=True)


def interpolated(points: list[int], values: list[int], at: int = 0) -> int:
    """Lagrange's formula in Python's whole numbers."""
    total = 0
    for point, value in zip(points, values, strict=True):
        top = bottom = 1
        for other in points:
            if other != point:
                top, bottom = top * (at - other) % PRIME, bottom * (point - other) % PRIME
        total += value * top * pow(bottom, -1, PRIME)
    return total % PRIME


def limbs_of(share: bytes) -> list[int]:
    return [int.from_bytes(share[i : i + 4], "little") for i in range(0, 64, 4)]


class TestShares:
    @given(secrets_of_32, holders_of, secrets_of_32, st.data())
    @settings(max_examples=40, deadline=None)
    def test_any_threshold_of_them_gives_the_secret_as_lagrange_does(self, secret, holders, key, data):
        threshold = data.draw(st.integers(1, len(holders)))
        shares = dict(zip(holders, deal(secret, holders, threshold, key), strict=True))
        chosen = data.draw(st.permutations(holders))[:threshold]
        assert recover([shares[h] for h in chosen], chosen) == secret
        for limb in range(16):
            found = interpolated([h + 1 for h in chosen], [limbs_of(shares[h])[limb] for h in chosen])
            assert found == int.from_bytes(secret[2 * limb : 2 * limb + 2], "little")

    def test_fewer_fit_every_secret(self):
        """With one share less, each value of a limb has a polynomial: the shares exclude nothing."""
        holders, shares = [3, 8], deal(bytes(range(32)), [3, 8, 11], 3, b"k" * 32)[:2]
        for claimed in (0, 1, 7777, 65535):
            values = [claimed, *(limbs_of(share)[0] for share in shares)]
            points = [0, *(h + 1 for h in holders)]
            assert 0 <= interpolated(points, values, at=12) < PRIME

    def test_shares_look_uniform_and_those_without_coefficients_do_not(self):
        def p_value(threshold: int) -> float:
            drawn = [deal(bytes(32), range(1, 9), threshold, k.to_bytes(32, "big")) for k in range(200)]
            limbs = np.frombuffer(b"".join(itertools.chain(*drawn)), "<u4")
            counts, _ = np.histogram(limbs, bins=32, range=(0, PRIME))
            return float(stats.chisquare(counts).pvalue)

        assert p_value(2) > 1e-4
        assert p_value(1) < 1e-9

    def test_a_wrong_share_gives_another_secret_or_none(self):
        shares = deal(bytes(32), [0, 1, 2], 2, b"k" * 32)
        wrong = (int.from_bytes(shares[0], "little") ^ 1).to_bytes(64, "little")
        assert recover([wrong, shares[1]], [0, 1]) != bytes(32)

    @pytest.mark.parametrize(
        ("share", "fits"),
        [
            (bytes(64), True),
            (b"", False),
            (bytes(63), False),
            (bytes(65), False),
            ((PRIME - 1).to_bytes(4, "little") * 16, True),
            (PRIME.to_bytes(4, "little") * 16, False),
            (b"\xff" * 64, False),
        ],
    )
    def test_what_is_no_share_is_told_apart(self, share, fits):
        assert is_share(share) is fits


class TestStreams:
    def test_they_are_chacha20_of_the_standard(self):
        """RFC 8439, appendix A.1, test vector 1: a key and nonce of zeros."""
        first = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        assert key_stream(bytes(32), 8, np.dtype("<u4")).tobytes().hex() == first

    def test_they_are_the_platforms_own_chacha20(self):
        key = bytes(range(32))
        oracle = _keystream(np.frombuffer(key, "<u4")[None], 0, 4)[0]
        np.testing.assert_array_equal(key_stream(key, 64, np.dtype("<u4")), oracle)
        assert key_stream(key, 32, np.dtype("<u8")).tobytes() == oracle.tobytes()

    @given(st.integers(2, 62), st.lists(st.integers(-(2**61), 2**61 - 1), min_size=1, max_size=5))
    @settings(max_examples=60)
    def test_residues_are_those_of_pythons_integers_and_come_back(self, modulus, values):
        grid = np.array(values)
        found = to_residues(grid, modulus)
        assert [int(v) for v in found] == [v % 2**modulus for v in values]
        np.testing.assert_array_equal(from_residues(found, modulus), wrap(grid, modulus))

    @pytest.mark.parametrize(
        ("modulus", "size"), [(2, 1), (8, 1), (9, 2), (16, 2), (17, 4), (32, 4), (33, 8), (62, 8)]
    )
    def test_words_are_as_narrow_as_they_can_be(self, modulus, size):
        assert word_type(modulus).itemsize == size

    @pytest.mark.parametrize("modulus", [5, 16, 24, 32, 40])
    def test_a_mask_that_is_added_and_taken_away_leaves_nothing(self, modulus):
        values = to_residues(np.arange(-50, 50), modulus)
        masked = values.copy()
        add_mask(masked, b"k" * 32, 1)
        assert (trimmed(masked, modulus) != values).mean() > 0.7
        add_mask(masked, b"k" * 32, -1)
        np.testing.assert_array_equal(trimmed(masked, modulus), values)


class TestUniform:
    """A million masked values, in bins of their top and of their bottom bits."""

    @pytest.mark.parametrize("modulus", [24, 32])
    def test_masked_values_are_uniform_and_bare_ones_are_not(self, modulus):
        game = Game(3, values=350_000, modulus=modulus, minimum=2)
        game.inputs = {client: np.full(350_000, 5 * client - 3) for client in range(3)}
        game.until("mask")
        answers = [game.answer(client) for client in range(3)]
        from fedsafe.aggregation.secure.encoding import decode

        masked = np.concatenate([np.frombuffer(decode(a)[1].values, "<u4") for a in answers])
        bare = np.concatenate([to_residues(game.inputs[client], modulus) for client in range(3)])
        assert len(masked) > 10**6
        for bins in (lambda v: v >> (modulus - 10), lambda v: v & 1023):
            assert stats.chisquare(np.bincount(bins(masked), minlength=1024)).pvalue > 1e-4
            assert stats.chisquare(np.bincount(bins(bare), minlength=1024)).pvalue < 1e-9
        # One mask alone is not enough to know the others: the sum of two clients' values is uniform too.
        two = trimmed(masked[:350_000] + masked[350_000:700_000], modulus)
        assert stats.chisquare(np.bincount(two & 1023, minlength=1024)).pvalue > 1e-4

    def test_the_test_finds_a_bias_of_a_hundredth(self):
        drawn = key_stream(b"k" * 32, 10**6, np.dtype("<u4")) & 1023
        drawn[:10_000] = 7
        assert stats.chisquare(np.bincount(drawn, minlength=1024)).pvalue < 1e-9


class TestBitmaps:
    @given(st.sets(st.integers(0, 300), min_size=1, max_size=40), st.data())
    @settings(max_examples=30)
    def test_they_are_read_as_they_were_written(self, clients, data):
        listed = sorted(clients)
        chosen = data.draw(st.sets(st.sampled_from(listed)))
        bits = to_bitmap(chosen, listed)
        assert len(bits) == -(-len(listed) // 8)
        assert from_bitmap(bits, listed) == tuple(sorted(chosen))


class TestKept:
    def test_a_round_is_begun_once_whatever_the_plan_and_whatever_became_of_it(self, tmp_path):
        kept = KeptRound.begin(tmp_path / "secure", 3, ROUND, b"secret")
        for plan in (b"plan", b"another"):
            again = RoundId(run="here", round=3, plan=plan)
            with pytest.raises(
                SecureAggregationError, match="has taken part in round 3 of run 'here' before"
            ):
                KeptRound.begin(tmp_path / "secure", 3, again, b"secret")
        kept.finish()
        with pytest.raises(SecureAggregationError, match="before"):
            KeptRound.begin(tmp_path / "secure", 3, ROUND, b"secret")
        with pytest.raises(SecureAggregationError, match="is over for client 3"):
            KeptRound.resume(tmp_path / "secure", 3, ROUND)
        for other in (RoundId(run="here", round=4), RoundId(run="there", round=3)):
            KeptRound.begin(tmp_path / "secure", 3, other, b"secret")
        KeptRound.begin(tmp_path / "secure", 4, ROUND, b"secret")

    def test_it_goes_on_from_what_was_kept_last_and_is_for_its_owner_alone(self, tmp_path):
        KeptRound.begin(tmp_path / "secure", 3, ROUND, b"first").keep(b"second")
        kept, state = KeptRound.resume(tmp_path / "secure", 3, ROUND)
        assert state == b"second"
        files = list((tmp_path / "secure").iterdir())
        assert [file.stat().st_mode & 0o777 for file in files] == [0o600]
        assert (tmp_path / "secure").stat().st_mode & 0o777 == 0o700
        kept.finish()
        assert b"second" not in files[0].read_bytes()

    def test_one_that_was_not_begun_is_not_gone_on_with(self, tmp_path):
        with pytest.raises(SecureAggregationError, match="has not begun round 3"):
            KeptRound.resume(tmp_path, 3, ROUND)


def test_the_shares_of_a_known_polynomial_are_its_values():
    """Of one limb by hand: the coefficients are read off two shares, and a third lies on the line."""
    shares = [limbs_of(share)[0] for share in deal(bytes(32), [0, 1, 4], 2, b"k" * 32)]
    slope = shares[0]  # through the origin: the secret is zero
    assert shares[1] == 2 * slope % PRIME
    assert shares[2] == 5 * slope % PRIME
    assert Fraction(slope, PRIME) < 1
