"""The keys of simulated nodes: what was verified is not verified again, and nothing else is ever taken for it."""

import copy

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsafe.federation import SimulatedKeys
from fedsafe.federation.secure_clients import RememberingKey

KEY = bytes(range(32))


def test_a_bad_signature_stays_bad_and_a_good_one_good():
    signing = Ed25519PrivateKey.generate()
    key = RememberingKey(signing.public_key())
    good = signing.sign(b"this")
    for _ in range(2):
        key.verify(good, b"this")
        # The same bytes cut elsewhere are another signature of something else.
        for signature, data in ((good, b"that"), (good + b"t", b"his"), (bytes(64), b"this")):
            with pytest.raises(InvalidSignature):
                key.verify(signature, data)


def test_keys_are_those_of_the_signatures_and_the_same_each_time():
    first, second = SimulatedKeys(KEY, 3), SimulatedKeys(KEY, 3)
    for client in range(3):
        assert first[client] == second[client] == first.signing(client).public_key()
        assert copy.deepcopy(first[client]) == copy.copy(first[client])
        first[client].verify(first.signing(client).sign(b"x"), b"x")
    assert first[0] != first[1]
    assert list(first) == [0, 1, 2]
    with pytest.raises(KeyError):
        first[3]


def test_many_statements_are_verified_one_by_one(monkeypatch):
    monkeypatch.setattr("fedsafe.federation.secure_clients._REMEMBERED", 2)
    signing = Ed25519PrivateKey.generate()
    key = RememberingKey(signing.public_key())
    for number in range(5):
        key.verify(signing.sign(bytes([number])), bytes([number]))
    assert len(key._good) <= 2
