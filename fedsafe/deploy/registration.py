"""Letting clients in and turning them away, before a run or while the server is running."""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedsafe.deploy.bundle import bundle_digest
from fedsafe.deploy.certificates import (
    Certificate,
    Key,
    PublicKey,
    issue_node,
    issue_server,
    key_digest,
    new_key,
    read_certificate,
    read_key,
    read_request,
    request_node,
    write_certificate,
    write_key,
    write_public,
)
from fedsafe.deploy.client_folder import first_policy, write_client
from fedsafe.deploy.federation import Client, Federation, read_client, require_name
from fedsafe.deploy.pages import write_pages
from fedsafe.deploy.signing import make_signing_key, naming, requested_signing_key, write_peers
from fedsafe.deploy.thin_app import build_thin_app
from fedsafe.errors import ConfigError
from fedsafe.runs.config import make_config
from fedsafe.store.files import replace_file


def make_request(folder: Path) -> str:
    """Make a client's keys and the request for its certificate; older keys are kept beside them.

    One key is its node's, the other signs what its gate says in secure aggregation; the request names both.

    Args:
        folder: Of the client.

    Returns:
        SHA-256 of the node's public key, in hexadecimal, to be compared over another channel.
    """
    client = read_client(folder).client
    path = folder / "node.key"
    if path.exists():
        os.replace(path, folder / "node.key.old")
    key = new_key()
    write_key(path, key, ssh=True)
    write_public(folder / "node.pub", key.public_key())
    request = request_node(key, client, naming(make_signing_key(folder)))
    replace_file(folder / "node.csr", request.public_bytes(serialization.Encoding.PEM))
    return key_digest(key.public_key())


def read_authority(federation: Federation) -> tuple[Certificate, Key]:
    """The federation's authority.

    Raises:
        ConfigError: Its folder is not here.
    """
    folder = federation.folder / "ca"
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not here: only who holds the authority's key can let clients in")
    return read_certificate(folder / "ca.pem"), read_key(folder / "ca.key")


def write_server_certificate(federation: Federation, authority: Certificate, authority_key: Key) -> None:
    """A new certificate of the server, for the host that ``federation.toml`` names, under the key that is there."""
    key = read_key(federation.server / "server.key").public_key()
    issued = issue_server(authority, authority_key, key, [federation.host])
    write_certificate(federation.server / "server.pem", issued)


def certify(
    federation: Federation,
    name: str,
    key: PublicKey,
    authority: Certificate,
    authority_key: Key,
    *,
    signing: Ed25519PublicKey | None = None,
) -> None:
    """A client's certificate, on the server's side and, where its folder is here, on its own."""
    more = None if signing is None else naming(signing)
    issued = issue_node(authority, authority_key, key, name, more=more)
    write_certificate(federation.certificate(name), issued)
    own = federation.client_folder(name)
    if own.is_dir():
        write_certificate(own / "node.pem", issued)


def make_keys(federation: Federation, name: str, authority: Certificate, authority_key: Key) -> None:
    """A client's keys, made here, and its certificate."""
    folder, key = federation.client_folder(name), new_key()
    write_key(folder / "node.key", key, ssh=True)
    write_public(folder / "node.pub", key.public_key())
    signing = make_signing_key(folder)
    certify(federation, name, key.public_key(), authority, authority_key, signing=signing)


def add(
    federation: Federation,
    name: str,
    *,
    request: Path | None,
    host: str = "",
    records: int | None = None,
    digest: str = "",
) -> Iterator[str]:
    """Let a client in, or give one that is in a certificate for another key.

    Args:
        federation: Whose authority is here.
        name: Of the client.
        request: Its request; None to make its key here.
        host: Of a new client.
        records: How many records a new client trains on, which is public.
        digest: Of its key, as it said over another channel: a request of another key is not signed. Empty to compare
            afterwards.

    Yields:
        What was done, and what is left to do.

    Raises:
        ConfigError: The request is another client's or not sound, or of another key than was said, or a new client's
            records were not said.
    """
    authority, authority_key = read_authority(federation)
    key = None if request is None else read_request(request, name)
    if digest and (key is None or key_digest(key) != digest.strip().lower()):
        found = "no request was given" if key is None else f"{request} is of {key_digest(key)}"
        raise ConfigError(f"--digest says {digest}, and {found}: ask {name} again; nothing was signed")
    if name not in federation.names:
        federation = _enrol(federation, require_name(name), host, records)
        yield f"{name} is in federation.toml, experiment.toml and compose.yaml: every client needs the new experiment"
    if key is not None and request is not None:
        certify(federation, name, key, authority, authority_key, signing=requested_signing_key(request))
        then = "as said" if digest else f"compare it with what {name} says over another channel, or revoke it"
        yield f"its key is {key_digest(key)}: {then}"
    else:
        if (federation.client_folder(name) / "node.key").exists():
            raise ConfigError(
                f"{name} has a key already: for another one give its request with --request FILE"
            )
        make_keys(federation, name, authority, authority_key)
    peers = write_peers(federation)
    yield f"wrote {peers}: where experiments aggregate securely, every client needs it before the next run"
    yield (
        f"made {federation.certificate(name)}: a running server whose server/nodes it is put into lets {name} in from "
        "then on"
    )


def revoke(federation: Federation, name: str) -> Path:
    """Turn a client away, and leave its key out of ``peers.pem``, which the others need anew.

    Returns:
        Where its certificate is kept.

    Raises:
        ConfigError: It is not let in.
    """
    path = federation.certificate(name)
    if not path.is_file():
        raise ConfigError(f"{path} is not there: {name} is not let in")
    serial = read_certificate(path).serial_number
    kept = federation.server / "revoked" / f"{name}-{serial:x}.pem"
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    os.replace(path, kept)
    write_peers(federation)
    return kept


def _enrol(federation: Federation, name: str, host: str, records: int | None) -> Federation:
    if records is None:
        raise ConfigError(
            f"{name} is new: say how many records it trains on, which is public, with --records N"
        )
    path = federation.folder / "experiment.toml"
    values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    values["task"]["clients"][name] = records
    config = make_config(values)
    clients = sorted((*federation.clients, Client(name=name, host=host)), key=lambda client: client.name)
    federation = replace(federation, clients=tuple(clients))
    federation.write()
    replace_file(path, tomli_w.dumps(values).encode())
    write_client(
        federation, name, first_policy(config, name, bundle_digest(build_thin_app(federation.folder / "app")))
    )
    write_pages(federation, keys_at_clients=True, evaluation=values["task"].get("evaluation"))
    return federation
