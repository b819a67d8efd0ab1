"""Signatures by the keys of nodes: Ed25519, or ECDSA over P-384 as Flower's nodes have it.

Which of the two a signature must be is said by the pinned key, never by the message.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedsafe.errors import ConfigError

SigningKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
VerifyingKey = Ed25519PublicKey | ec.EllipticCurvePublicKey

# No signature of any other protocol under the same key is one of this.
_DOMAIN = b"fedsafe secure aggregation signature\0"


def sign(key: SigningKey, statement: bytes) -> bytes:
    """A signature of a statement of this protocol."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(_DOMAIN + statement)
    return key.sign(_DOMAIN + statement, ec.ECDSA(hashes.SHA384()))


def signed_by(key: VerifyingKey, signature: bytes, statement: bytes) -> bool:
    """Whether the owner of a key signed a statement.

    Raises:
        ConfigError: The key is of another kind.
    """
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, _DOMAIN + statement)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, _DOMAIN + statement, ec.ECDSA(hashes.SHA384()))
        else:
            raise ConfigError(
                f"a node's key for secure aggregation is a {type(key).__name__}: it is an Ed25519 or elliptic-curve one"
            )
    except InvalidSignature:
        return False
    return True
