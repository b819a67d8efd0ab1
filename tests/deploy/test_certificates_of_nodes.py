"""Keys and certificates: what a standard verifier accepts, and what does not hold in a federation."""

import datetime
import ipaddress
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes

from fedsafe.deploy.certificates import (
    common_name,
    days_left,
    federation_of,
    issue_node,
    issue_server,
    key_digest,
    make_authority,
    names_of,
    new_key,
    public_pem,
    read_certificate,
    read_key,
    read_request,
    request_node,
    same_key,
    why_not,
    write_certificate,
    write_key,
    write_public,
)
from fedsafe.errors import ConfigError


@pytest.fixture(scope="module")
def authority():
    key = new_key()
    return make_authority("heart", key), key


def server_of(authority, *names, **more):
    return issue_server(*authority, new_key().public_key(), names, **more)


def verify(authority, certificate, name):
    """As any TLS client would: RFC 5280, with the name that it dialled."""
    store = Store([authority[0]])
    try:
        subject = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    PolicyBuilder().store(store).build_server_verifier(subject).verify(certificate, [])


@pytest.mark.parametrize(
    "name", ["fl.example.org", "10.0.0.1", "2001:db8::1", "localhost", "127.0.0.1", "::1"]
)
def test_the_servers_certificate_is_good_for_every_name_and_address(authority, name):
    certificate = server_of(authority, "fl.example.org", "10.0.0.1", "2001:db8::1")
    verify(authority, certificate, name)
    assert name in names_of(certificate)


def test_it_is_good_for_no_other_name(authority):
    with pytest.raises(VerificationError):
        verify(authority, server_of(authority, "fl.example.org"), "other.example.org")


def test_it_is_not_good_under_another_authority(authority):
    other = new_key()
    with pytest.raises(VerificationError):
        verify(
            (make_authority("heart", other), other), server_of(authority, "fl.example.org"), "fl.example.org"
        )


def test_openssl_agrees_on_purposes(authority, tmp_path):
    write_certificate(tmp_path / "ca.pem", authority[0])
    write_certificate(tmp_path / "server.pem", server_of(authority, "fl.example.org"))
    write_certificate(tmp_path / "node.pem", issue_node(*authority, new_key().public_key(), "north"))
    for file, good, bad in (("server", "sslserver", "sslclient"), ("node", "sslclient", "sslserver")):
        for purpose, code in ((good, 0), (bad, 2)):
            command = [
                "openssl",
                "verify",
                "-x509_strict",
                "-CAfile",
                "ca.pem",
                "-purpose",
                purpose,
                f"{file}.pem",
            ]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == code, (purpose, done.stderr)


def test_what_certificates_say(authority):
    node = issue_node(*authority, new_key().public_key(), "north")
    assert (common_name(node.subject), federation_of(node)) == ("north", "heart")
    assert days_left(node) in (396, 397)
    assert why_not(node, authority[0]) == ""
    uses = node.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not node.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert authority[0].extensions.get_extension_for_class(
        x509.BasicConstraints
    ).value == x509.BasicConstraints(True, 0)


def test_an_expired_certificate_does_not_hold(authority):
    certificate = issue_node(*authority, new_key().public_key(), "north", days=-2)
    assert "expired on" in why_not(certificate, authority[0])
    assert days_left(certificate) < 0


def test_a_certificate_of_tomorrow_does_not_hold_yet(authority):
    certificate = issue_node(*authority, new_key().public_key(), "north")
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    assert "compare clocks" in why_not(certificate, authority[0], now=yesterday)


def test_another_federations_certificate_does_not_hold_even_under_the_same_name(authority):
    other = new_key()
    certificate = issue_node(make_authority("heart", other), other, new_key().public_key(), "north")
    assert "another federation's authority" in why_not(certificate, authority[0])


def test_a_certificate_is_for_a_node_or_for_the_server_and_not_for_both(authority):
    node, server = issue_node(*authority, new_key().public_key(), "north"), server_of(authority, "10.0.0.1")
    assert why_not(node, authority[0]) == why_not(server, authority[0], of="server") == ""
    assert "not that of a node" in why_not(server, authority[0])
    assert "not that of a server" in why_not(node, authority[0], of="server")


def test_nothing_holds_once_the_authority_has_expired():
    key = new_key()
    authority = make_authority("heart", key, days=-1)
    node = issue_node(authority, key, new_key().public_key(), "north")
    assert "authority expired on" in why_not(node, authority)


def test_a_certificate_cannot_issue_others(authority):
    """Who is in the federation can let nobody else in."""
    own = new_key()
    node = issue_node(*authority, own.public_key(), "north")
    below = issue_node(node, own, new_key().public_key(), "guest")
    assert why_not(below, authority[0])


def test_keys_are_private_and_never_overwritten(tmp_path):
    key, path = new_key(), tmp_path / "node.key"
    write_key(path, key, ssh=True)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="there already"):
        write_key(path, new_key())
    assert same_key(read_key(path).public_key(), key.public_key())


def test_flower_reads_the_keys_as_they_are_written(tmp_path):
    key = new_key()
    write_key(tmp_path / "node.key", key, ssh=True)
    write_public(tmp_path / "node.pub", key.public_key())
    loaded = serialization.load_ssh_private_key((tmp_path / "node.key").read_bytes(), None)
    assert public_key_to_bytes(loaded.public_key()) == public_pem(key.public_key())
    assert try_load_public_key(tmp_path / "node.pub") == public_pem(key.public_key())
    assert bytes_to_public_key(public_pem(key.public_key())) == key.public_key()


def test_a_request_is_the_clients_own(tmp_path):
    key, path = new_key(), tmp_path / "node.csr"
    path.write_bytes(request_node(key, "north").public_bytes(serialization.Encoding.PEM))
    assert key_digest(read_request(path, "north")) == key_digest(key.public_key())
    with pytest.raises(ConfigError, match="is the request of 'north'"):
        read_request(path, "south")


def test_a_request_that_its_key_did_not_sign_is_refused(tmp_path):
    path = tmp_path / "node.csr"
    der = bytearray(request_node(new_key(), "north").public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    damaged = x509.load_der_x509_csr(bytes(der))
    path.write_bytes(damaged.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(ConfigError, match="does not hold its key"):
        read_request(path, "north")


@pytest.mark.parametrize("read", [read_key, read_certificate])
def test_files_that_hold_neither_are_named(read, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigError, match=r"text holds no"):
        read(tmp_path / "text")
