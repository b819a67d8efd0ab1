"""Draws of many streams side by side are, to the bit, what the cipher of OpenSSL gives each of them alone."""

import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsafe import rng
from fedsafe.privacy.sampling import poisson_batches, poisson_batches_of
from fedsafe.rng import Stream, StreamId, bernoulli_rows, normal_rows, words_of

KEY = bytes(range(32))


def streams(count, key=KEY):
    return [Stream(key, StreamId(purpose="p", client=k, round=2, digest=b"digest")) for k in range(count)]


def keystream(client, length, key=KEY):
    """By OpenSSL and Python's own HMAC."""
    identity = StreamId(purpose="p", client=client, round=2, digest=b"digest").encode()
    subkey = hmac.digest(key, identity, "sha256")
    return Cipher(algorithms.ChaCha20(subkey, bytes(16)), mode=None).encryptor().update(bytes(length))


@settings(max_examples=60, deadline=None)
@given(
    st.binary(min_size=32, max_size=32),
    st.integers(1, 70),
    st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=1, max_size=5),
)
def test_words_side_by_side_are_those_of_the_cipher_whatever_was_drawn_before(key, count, draws):
    made, drawn = streams(count, key), 0
    expected = np.stack([np.frombuffer(keystream(k, 8 * 1000, key), "<u8") for k in range(count)])
    for number, together in draws:
        words = words_of(made, number) if together else np.stack([one.words(number) for one in made])
        np.testing.assert_array_equal(words, expected[:, drawn : drawn + number])
        drawn += number


def test_the_first_block_is_the_published_one():
    """Key and nonce of zeros: RFC 8439, appendix A.1, test vector 1."""
    block = rng._keystream(np.zeros((1, 8), np.uint32), 0, 2).tobytes()
    assert block.hex().startswith(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7da41597c5157488d"
    )
    assert block[64:].hex().startswith("9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed")


def test_streams_that_stand_at_different_places_are_drawn_one_by_one():
    made = streams(40)
    made[7].words(3)
    words = words_of(made, 5)
    for client, row in enumerate(words):
        first = 3 if client == 7 else 0
        np.testing.assert_array_equal(row, np.frombuffer(keystream(client, 800), "<u8")[first : first + 5])


def test_a_stream_that_comes_twice_goes_on_where_it_stood():
    made = streams(30)
    words = words_of([*made, made[4]], 6)
    np.testing.assert_array_equal(
        np.concatenate([words[4], words[30]]), np.frombuffer(keystream(4, 96), "<u8")
    )


def test_the_fast_way_is_taken_where_it_counts(monkeypatch):
    made = streams(rng._MANY)
    monkeypatch.setattr(Stream, "fill", None)
    assert words_of(made, 8 * rng._SHORT).shape == (rng._MANY, 8 * rng._SHORT)
    with pytest.raises(TypeError):
        words_of(streams(rng._MANY), 8 * rng._SHORT + 1)


def test_no_stream_and_no_word():
    assert words_of([], 4).shape == (0, 4)
    assert words_of(streams(20), 0).shape == (20, 0)
    assert normal_rows([], 3).shape == (0, 3)


@pytest.mark.parametrize("rate", [1e-9, 0.3, 1.0])
def test_batches_of_many_clients_are_those_of_each_alone(rate):
    together = poisson_batches_of(streams(50), 21, rate, 3)
    alone = [poisson_batches(one, 21, rate, 3) for one in streams(50)]
    np.testing.assert_array_equal(together, np.stack(alone))
    np.testing.assert_array_equal(bernoulli_rows(streams(50), rate, (3, 21)), together)


@pytest.mark.parametrize("count", [1, 9, 33, 700])
def test_normals_of_many_clients_are_those_of_each_alone(count):
    many, ones = streams(64), streams(64)
    for _ in range(2):
        alone = [normal_rows([one], count)[0] for one in ones]
        np.testing.assert_array_equal(normal_rows(many, count), np.stack(alone))
