"""The keys that clients sign with in secure aggregation, as the server's app is told them."""

import json
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedsafe.aggregation.secure import VerifyingKey
from fedsafe.errors import ConfigError
from fedsafe.runs.compose import Parts


def write_peer_keys(path: Path, keys: Mapping[str, Ed25519PublicKey]) -> None:
    """Write each client's key beside its name, for :func:`read_peer_keys`."""
    path.write_text(json.dumps({name: key.public_bytes_raw().hex() for name, key in keys.items()}, indent=1))


def read_peer_keys(path: Path) -> dict[str, VerifyingKey]:
    """The key of each client, by name.

    Raises:
        ConfigError: The file cannot be read, or has something else in it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)) for name, key in found.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the keys of clients, {path}, cannot be read: {error}; start the run again"
        ) from error


def pinned_of(parts: Parts, peers: Mapping[str, VerifyingKey]) -> dict[int, VerifyingKey]:
    """The keys by the clients' numbers in a run; of clients that it does not have, none.

    Raises:
        ConfigError: The run sums updates behind masks, and there are too few keys to do so.
    """
    names = parts.federated.names or ()
    pinned = {number: peers[name] for number, name in enumerate(names) if name in peers}
    if parts.config.aggregation.secure and len(pinned) < 2:
        raise ConfigError(
            "aggregation.secure = true over nodes needs clients behind gates, which keep their keys and have pinned "
            "those of the others: make a federation with `fedsafe deploy init`, and start the run with `fedsafe deploy "
            "start`"
        )
    return pinned
