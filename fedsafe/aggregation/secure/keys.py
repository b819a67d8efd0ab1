"""The secrets of one client in one round, and what two clients agree on.

Everything is derived from one seed and the round's context (HKDF, RFC 5869), so that a client that lives in several
processes keeps 32 bytes, and nothing is ever good for a second round. Key agreement is X25519 (RFC 7748), shares are
encrypted with ChaCha20-Poly1305 (RFC 8439).
"""

import hashlib
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedsafe.errors import SecureAggregationError

SEED_BYTES = 32
KEY_BYTES = 32
# Of ChaCha20-Poly1305, after what it encrypts.
TAG_BYTES = 16
_FIELD = 2**255 - 19
# One key, one message: each direction of a pair has its own.
_NONCE = bytes(12)

# Points of a small order (Bernstein, 2006): whoever sends one knows what is agreed on.
_LOW_ORDER = {
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    _FIELD - 1,
}


class RoundSecrets:
    """Of one client in one round.

    Args:
        seed: 32 secret bytes, of this round alone.
        context: The round's.
    """

    def __init__(self, seed: bytes, context: bytes) -> None:
        self.seed, self._context = seed, context

    def derive(self, label: str) -> bytes:
        """32 bytes for one purpose."""
        return _expand(self.seed, self._context, b"own " + label.encode())

    @cached_property
    def exchange(self) -> X25519PrivateKey:
        """The key that shares are encrypted with."""
        return X25519PrivateKey.from_private_bytes(self.derive("exchange key"))

    @cached_property
    def mask_secret(self) -> bytes:
        """The private key of the masks: what neighbours hold shares of, for when its client drops out."""
        return self.derive("mask key")

    @cached_property
    def mask(self) -> X25519PrivateKey:
        """The key that masks with neighbours come from."""
        return X25519PrivateKey.from_private_bytes(self.mask_secret)

    @cached_property
    def self_mask(self) -> bytes:
        """The key of the client's own mask: what neighbours hold shares of, for when its client stays."""
        return self.derive("self mask")


def public_bytes(key: X25519PrivateKey) -> bytes:
    """32 bytes."""
    return key.public_key().public_bytes_raw()


def why_weak(public: bytes) -> str:
    """What is wrong with a public key: a second way to write another one, or a point of a small order; else empty."""
    number = int.from_bytes(public, "little")
    if len(public) != KEY_BYTES or number >= _FIELD:
        return "is not a canonical X25519 key"
    return (
        "is a point of a small order, with which anybody knows what is agreed on"
        if number in _LOW_ORDER
        else ""
    )


def commitment(secret: bytes, context: bytes, client: int) -> bytes:
    """32 bytes that bind a client to its self-mask key, and hide it as long as it is random."""
    return hashlib.sha256(b"fedsafe self mask\0" + context + client.to_bytes(4, "big") + secret).digest()


def share_digest(share: bytes, context: bytes, owner: int, holder: int, about: str) -> bytes:
    """32 bytes that bind the owner of a secret to what it dealt to a holder."""
    ids = owner.to_bytes(4, "big") + holder.to_bytes(4, "big")
    return hashlib.sha256(b"fedsafe share " + about.encode() + b"\0" + context + ids + share).digest()


def mask_key(own: X25519PrivateKey, other: bytes, context: bytes, first: int, second: int) -> bytes:
    """The key of the mask of two clients, the same whichever of them asks.

    Args:
        own: The one's private key.
        other: The other's public key.
        context: The round's.
        first: The smaller number of both.
        second: The larger one.

    Raises:
        SecureAggregationError: They agree on zero, as with a point of a small order.
    """
    return _expand(
        _agreed(own, other), context, b"mask" + first.to_bytes(4, "big") + second.to_bytes(4, "big")
    )


def encrypt_share(
    plain: bytes, own: X25519PrivateKey, other: bytes, context: bytes, sender: int, receiver: int
) -> bytes:
    """What the sender deals to the receiver, readable by both alone, and good in this round alone.

    Raises:
        SecureAggregationError: They agree on zero.
    """
    key, about = _share_key(own, other, context, sender, receiver)
    return ChaCha20Poly1305(key).encrypt(_NONCE, plain, about)


def decrypt_share(
    hidden: bytes, own: X25519PrivateKey, other: bytes, context: bytes, sender: int, receiver: int
) -> bytes | None:
    """What the sender dealt; None if it is not what a holder of the sender's key encrypted for this.

    Raises:
        SecureAggregationError: They agree on zero.
    """
    key, about = _share_key(own, other, context, sender, receiver)
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, hidden, about)
    except InvalidTag:
        return None


def _share_key(
    own: X25519PrivateKey, other: bytes, context: bytes, sender: int, receiver: int
) -> tuple[bytes, bytes]:
    about = b"share" + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
    return _expand(_agreed(own, other), context, about), context + about


def _agreed(own: X25519PrivateKey, other: bytes) -> bytes:
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        raise SecureAggregationError(
            f"with the key {other.hex()}, two clients agree on nothing secret: it is a point of a small order"
        ) from None


def _expand(secret: bytes, context: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=context, info=label).derive(secret)
