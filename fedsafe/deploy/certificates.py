"""Keys and certificates of a federation: its authority, the server's name, and one key for each client.

Everything is X.509 with elliptic keys on P-384, the curve that Flower accepts for nodes. The authority signs the
server's certificate, by which clients know the server, and one certificate for each client, by which the server knows
the clients: Flower itself knows a node by its bare key alone, which neither expires nor says whose it is.

Private keys of nodes are in OpenSSH form, since ``flower-supernode --auth-supernode-private-key`` reads no other.
"""

import datetime
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsafe.errors import ConfigError
from fedsafe.store.files import replace_file

DAYS: Final = {"authority": 3650, "server": 397, "node": 397}
"""How long each certificate holds, in days."""
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
"""Names of every server: its own processes reach it there."""
_CLOCKS_DIFFER = datetime.timedelta(minutes=10)

_PURPOSE: Final = {"node": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}

Key = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey
Certificate = x509.Certificate


def new_key() -> Key:
    """A private key on P-384, from the operating system's generator."""
    return ec.generate_private_key(ec.SECP384R1())


def make_authority(federation: str, key: Key, *, days: int = DAYS["authority"]) -> Certificate:
    """The certificate that a federation signs itself, and everything else with.

    Args:
        federation: Its name.
        key: The authority's.
        days: How long it holds.
    """
    name = _name(f"{federation} authority", federation)
    built = _builder(name, name, key.public_key(), days)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    built = built.add_extension(_usage(signs_certificates=True), critical=True)
    return built.sign(key, hashes.SHA384())


def issue_server(
    authority: Certificate,
    authority_key: Key,
    key: PublicKey,
    names: Iterable[str],
    *,
    days: int = DAYS["server"],
) -> Certificate:
    """The server's certificate, good for every name and address that clients may reach it by.

    Args:
        authority: Of the federation.
        authority_key: Its key.
        key: The server's.
        names: Host names and addresses; those of loopback are added.
        days: How long it holds; negative for one that has expired.
    """
    subject = _name("server", federation_of(authority))
    built = _builder(subject, authority.subject, key, days)
    built = built.add_extension(
        x509.SubjectAlternativeName(_alternatives([*names, *LOOPBACK])), critical=False
    )
    return _issue(built, authority, authority_key, ExtendedKeyUsageOID.SERVER_AUTH)


def issue_node(
    authority: Certificate,
    authority_key: Key,
    key: PublicKey,
    client: str,
    *,
    days: int = DAYS["node"],
    more: x509.ExtensionType | None = None,
) -> Certificate:
    """A client's certificate: this key is this client's until then.

    Args:
        authority: Of the federation.
        authority_key: Its key.
        key: The client's.
        client: Its name.
        days: How long it holds; negative for one that has expired.
        more: What else it says of the client.
    """
    built = _builder(_name(client, federation_of(authority)), authority.subject, key, days)
    if more is not None:
        built = built.add_extension(more, critical=False)
    return _issue(built, authority, authority_key, ExtendedKeyUsageOID.CLIENT_AUTH)


def request_node(
    key: Key, client: str, more: x509.ExtensionType | None = None
) -> x509.CertificateSigningRequest:
    """What a client that made its own key sends to whoever holds the authority's: the public half, signed.

    Args:
        key: The client's.
        client: Its name.
        more: What else the certificate is to say.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, client)])
    built = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if more is not None:
        built = built.add_extension(more, critical=False)
    return built.sign(key, hashes.SHA384())


def read_request(path: Path, client: str) -> PublicKey:
    """The key of a client's request.

    Raises:
        ConfigError: The file is no request, its signature is not the key's, or it is another client's.
    """
    try:
        request = x509.load_pem_x509_csr(path.read_bytes())
    except ValueError as error:
        raise ConfigError(
            f"{path} is no certificate request: {error}; make one with `fedsafe deploy key`"
        ) from error
    if not request.is_signature_valid:
        raise ConfigError(
            f"{path}: whoever made this request does not hold its key; ask the client for another one"
        )
    said = common_name(request.subject)
    if said != client:
        raise ConfigError(f"{path} is the request of {said!r}, and it was given as that of {client!r}")
    return _elliptic(request.public_key(), path)


def why_not(
    certificate: Certificate,
    authority: Certificate,
    *,
    of: Literal["node", "server"] = "node",
    now: datetime.datetime | None = None,
) -> str:
    """Why a certificate does not hold in a federation; empty if it does.

    Args:
        certificate: Of a node or the server.
        authority: Of the federation.
        of: Which of the two it must be for.
        now: The time to judge at.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return f"another federation's authority signed it: {federation_of(certificate)!r}"
    now = datetime.datetime.now(datetime.UTC) if now is None else now
    if certificate.not_valid_after_utc < now:
        return f"its certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if certificate.not_valid_before_utc > now:
        return f"its certificate holds only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: compare clocks"
    if authority.not_valid_after_utc < now:
        return f"the federation's authority expired on {authority.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if authority.not_valid_before_utc > now:
        return f"the authority holds only from {authority.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: compare clocks"
    if _PURPOSE[of] not in _purposes(certificate):
        return f"its certificate is not that of a {of}: ask for another one"
    return ""


def _purposes(certificate: Certificate) -> tuple[x509.ObjectIdentifier, ...]:
    try:
        return tuple(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()


def days_left(certificate: Certificate) -> int:
    """For how many whole days a certificate still holds; negative once it has expired."""
    return (certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days


def same_key(one: PublicKey, other: PublicKey) -> bool:
    """Whether two public keys are the same."""
    return public_pem(one) == public_pem(other)


def names_of(certificate: Certificate) -> tuple[str, ...]:
    """The host names and addresses that a server's certificate is good for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in extension.value)


def common_name(name: x509.Name) -> str:
    """Whose a certificate is."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def federation_of(certificate: Certificate) -> str:
    """The federation that a certificate says it is of."""
    found = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(found[0].value) if found else ""


def key_digest(key: PublicKey) -> str:
    """SHA-256 of a public key, in hexadecimal: what logs call it by."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(_encoded(key))
    return digest.finalize().hex()


def public_pem(key: PublicKey) -> bytes:
    """A public key as Flower's servers keep it."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def write_key(path: Path, key: Key, *, ssh: bool = False) -> None:
    """Write a private key that only its owner can read; never over another one.

    Args:
        path: Where to.
        key: What.
        ssh: In OpenSSH form, as SuperNodes read it.

    Raises:
        ConfigError: There is a key already.
    """
    form = serialization.PrivateFormat.OpenSSH if ssh else serialization.PrivateFormat.PKCS8
    data = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already: move the old key away first") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_public(path: Path, key: PublicKey) -> None:
    """Write a public key in OpenSSH form, as ``flwr supernode register`` reads it."""
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.write_bytes(key.public_bytes(*form) + b"\n")


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Write a certificate as PEM, at once: a running server may be reading its folder."""
    replace_file(path, certificate.public_bytes(serialization.Encoding.PEM))


def read_key(path: Path) -> Key:
    """A private key, in either form.

    Raises:
        ConfigError: The file is missing, or holds no elliptic key.
    """
    data = _bytes(path)
    load = (
        serialization.load_ssh_private_key if b"OPENSSH" in data[:60] else serialization.load_pem_private_key
    )
    try:
        key = load(data, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no private key that can be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} holds a key of another kind: use an elliptic one on P-384")
    return key


def read_certificate(path: Path) -> Certificate:
    """A certificate.

    Raises:
        ConfigError: The file is missing, or holds none.
    """
    try:
        return x509.load_pem_x509_certificate(_bytes(path))
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificate: {error}") from error


def certificate_key(certificate: Certificate, path: Path) -> PublicKey:
    """The public key of a certificate.

    Raises:
        ConfigError: It is not an elliptic one.
    """
    return _elliptic(certificate.public_key(), path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _elliptic(key: object, path: Path) -> PublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{path} holds a key of another kind: use an elliptic one on P-384")
    return key


def _encoded(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _name(common: str, federation: str) -> x509.Name:
    attributes = ((NameOID.COMMON_NAME, common), (NameOID.ORGANIZATION_NAME, federation))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def _alternatives(names: Iterable[str]) -> list[x509.GeneralName]:
    return [_alternative(name) for name in dict.fromkeys(names)]


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, key: PublicKey, days: int) -> x509.CertificateBuilder:
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    begin = min(datetime.datetime.now(datetime.UTC), end - datetime.timedelta(days=1)) - _CLOCKS_DIFFER
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    built = built.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    return built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _issue(
    built: x509.CertificateBuilder, authority: Certificate, authority_key: Key, use: x509.ObjectIdentifier
) -> Certificate:
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    built = built.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    built = built.add_extension(signer, critical=False)
    built = built.add_extension(_usage(signs_certificates=False), critical=True)
    built = built.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    return built.sign(authority_key, hashes.SHA384())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
