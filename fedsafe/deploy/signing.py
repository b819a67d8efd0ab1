"""The keys that clients sign the messages of secure aggregation with, and the others' keys that each has pinned.

The SuperNode, which talks to the network, holds ``node.key``; the gate, which nothing reaches, holds ``signing.key``
(Ed25519). A client's request, and the certificate that the authority makes of it, name the signing key beside the
node's: one word of the authority says both are this client's. ``peers.pem`` has the certificates of all clients. Each
client gets it from who holds the authority's key, and its gate takes no key that it does not find there: a server can
withhold the file and cannot forge a line of it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedsafe.deploy.certificates import Certificate, common_name, read_certificate, why_not
from fedsafe.deploy.federation import Federation
from fedsafe.errors import ConfigError
from fedsafe.store.files import replace_file

SIGNING: Final = "signing.key"
PEERS: Final = "peers.pem"
_URN = "urn:fedsafe:signing-key:"


@dataclass(frozen=True, kw_only=True)
class Peers:
    """The clients of a federation as one of its parties knows them.

    Args:
        keys: Of each client, by name.
        left_out: Clients whose key is not known, and why.
        digest: SHA-256 of the file, by which people compare over another channel.
    """

    keys: Mapping[str, Ed25519PublicKey]
    left_out: Mapping[str, str]
    digest: str


def make_signing_key(folder: Path) -> Ed25519PublicKey:
    """A client's signing key, for its owner alone; an older one is kept beside it.

    Returns:
        The public half.
    """
    path, key = folder / SIGNING, Ed25519PrivateKey.generate()
    if path.exists():
        os.replace(path, folder / f"{SIGNING}.old")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(*form))
        file.flush()
        os.fsync(file.fileno())
    return key.public_key()


def read_signing_key(folder: Path) -> Ed25519PrivateKey:
    """A client's signing key.

    Raises:
        ConfigError: There is none that can be read.
    """
    path = folder / SIGNING
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; secure aggregation needs it: `fedsafe deploy key` makes one"
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no private key that can be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds a key of another kind: an Ed25519 one is needed")
    return key


def naming(key: Ed25519PublicKey) -> x509.SubjectAlternativeName:
    """What a request and a certificate say of a signing key."""
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_URN + key.public_bytes_raw().hex())])


def signing_key_of(signed: Certificate | x509.CertificateSigningRequest) -> Ed25519PublicKey | None:
    """The signing key that a certificate or request names; None for one of before there were any."""
    try:
        names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        named = names.get_values_for_type(x509.UniformResourceIdentifier)
        found = [name.removeprefix(_URN) for name in named if name.startswith(_URN)]
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(found[0])) if len(found) == 1 else None
    except (x509.ExtensionNotFound, ValueError):
        return None


def requested_signing_key(path: Path) -> Ed25519PublicKey | None:
    """The signing key that a client's request names, whose signature was checked before."""
    return signing_key_of(x509.load_pem_x509_csr(path.read_bytes()))


def write_peers(federation: Federation) -> Path:
    """Write the certificates of all clients that are let in, here and in each client's folder that is here."""
    let_in = [federation.certificate(name) for name in federation.names]
    whole = b"".join(path.read_bytes() for path in let_in if path.is_file())
    folders = [federation.client_folder(name) for name in federation.names]
    for folder in (federation.folder, *(each for each in folders if each.is_dir())):
        replace_file(folder / PEERS, whole)
    return federation.folder / PEERS


def read_peers(folder: Path, authority: Path | None = None) -> Peers:
    """The clients that a client's folder has pinned.

    Args:
        folder: With ``peers.pem``.
        authority: Certificate of the authority; ``ca.pem`` of the folder by default.

    Raises:
        ConfigError: A file is missing, or a certificate is not this federation's, or two are of one client or key.
    """
    path = folder / PEERS
    try:
        data = path.read_bytes()
        certificates = x509.load_pem_x509_certificates(data) if data.strip() else []
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; secure aggregation needs the clients' certificates: ask who "
            "holds the authority's key for it"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} holds something else than certificates: {error}") from error
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    keys, left_out = _known(certificates, read_certificate(authority or folder / "ca.pem"), path)
    return Peers(keys=keys, left_out=left_out, digest=digest.finalize().hex())


def let_in_keys(federation: Federation) -> Mapping[str, Ed25519PublicKey]:
    """The signing keys of the clients that the server lets in now."""
    let_in = [federation.certificate(name) for name in federation.names]
    certificates = [read_certificate(path) for path in let_in if path.is_file()]
    keys, _ = _known(
        certificates, read_certificate(federation.server / "ca.pem"), federation.server / "nodes"
    )
    return keys


def _known(
    certificates: list[Certificate], authority: Certificate, path: Path
) -> tuple[dict[str, Ed25519PublicKey], dict[str, str]]:
    keys: dict[str, Ed25519PublicKey] = {}
    left_out: dict[str, str] = {}
    owners: dict[bytes, str] = {}
    for certificate in certificates:
        name, key = common_name(certificate.subject), signing_key_of(certificate)
        reason = why_not(certificate, authority)
        if "authority signed it" in reason:
            raise ConfigError(
                f"{path} has a certificate of {name!r} that is not this federation's: {reason}; ask who holds the "
                "authority's key for the right file"
            )
        if name in keys or name in left_out:
            raise ConfigError(f"{path} has two certificates of {name!r}: ask for a file with one")
        if reason or key is None:
            left_out[name] = (
                reason or "its certificate names no signing key: it needs `fedsafe deploy key` and `add`"
            )
            continue
        if owners.setdefault(key.public_bytes_raw(), name) != name:
            raise ConfigError(f"{path}: {owners[key.public_bytes_raw()]!r} and {name!r} have one signing key")
        keys[name] = key
    return keys, left_out
