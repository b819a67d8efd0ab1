"""API keys: who may ask. A file holds a name and a SHA-256 for each; the key itself is shown once and kept nowhere.

An operator's line ends with ``:operator``: it may see the figures of the whole service, which tell of other callers.

A key is 256 random bits, so that a plain hash of it cannot be searched; one that people chose would need a slow hash.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from fedsafe.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
OPERATOR = "operator"
_LINE = re.compile(rf"({_NAME.pattern}):([0-9a-f]{{64}})(:{OPERATOR})?")
_PREFIX = "fsk_"


class Keys:
    """The keys of a service.

    Args:
        digests: Name to the SHA-256 of its key.
        operators: Names of operators.
    """

    def __init__(self, digests: Mapping[str, bytes], operators: Iterable[str] = ()) -> None:
        self._digests, self.operators = tuple(digests.items()), frozenset(operators)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file of keys.

        Raises:
            ConfigError: It cannot be read, others may write it, a line is none, a name is there twice, or it is empty.
        """
        try:
            mode = path.stat().st_mode
            lines = path.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--keys {path} cannot be read: {error}; --new-key NAME makes one") from error
        if mode & 0o022:
            raise ConfigError(
                f"--keys {path} may be written by others, who could let themselves in: chmod 600 {path}"
            )
        digests: dict[str, bytes] = {}
        operators = []
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            found = _LINE.fullmatch(line.strip())
            if found is None or found[1] in digests:
                what = "names a caller twice" if found else f"is not NAME:SHA256 or NAME:SHA256:{OPERATOR}"
                raise ConfigError(f"--keys {path}, line {number} {what}; --new-key NAME writes one")
            digests[found[1]] = bytes.fromhex(found[2])
            if found[3]:
                operators.append(found[1])
        if not digests:
            raise ConfigError(f"--keys {path} holds no key, so nobody could ask: --new-key NAME makes one")
        return cls(digests, operators)

    @property
    def names(self) -> tuple[str, ...]:
        """Who may ask."""
        return tuple(name for name, _ in self._digests)

    def who(self, key: str) -> str | None:
        """Whose key it is; None for nobody's. How long that takes depends on no key."""
        given = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for name, digest in self._digests:
            if hmac.compare_digest(given, digest):
                found = name
        return found


def new_key(path: Path, name: str, *, operator: bool = False) -> str:
    """Make a key, and add its hash to a file, which is made for its owner alone where absent.

    Args:
        path: The file.
        name: Of the caller.
        operator: Whether it may see the figures of the service.

    Returns:
        The key; it is kept nowhere.

    Raises:
        ConfigError: The name is none or there already, or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--new-key {name!r}: use letters, digits, '.', '_' and '-', at most 64")
    if path.exists() and path.stat().st_size and name in Keys.read(path).names:
        raise ConfigError(
            f"--keys {path} has a key of {name!r} already: remove its line first, or use another name"
        )
    key = f"{_PREFIX}{secrets.token_urlsafe(32)}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            # A last line that somebody left without its end would swallow this one.
            begun = "" if _ended(path) else "\n"
            role = f":{OPERATOR}" if operator else ""
            file.write(f"{begun}{name}:{hashlib.sha256(key.encode()).hexdigest()}{role}\n")
    except OSError as error:
        raise ConfigError(f"--keys {path} cannot be written: {error.strerror}") from error
    return key


def _ended(path: Path) -> bool:
    """Whether a file is empty or ends with its line."""
    content = path.read_bytes()
    return not content or content.endswith(b"\n")
