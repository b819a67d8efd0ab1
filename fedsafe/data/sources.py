"""Where data files come from: a folder named by the user, the package, a verified download.

A file whose checksum is known is always checked, wherever it came from: results that carry a source's name
must have been computed on that source.
"""

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fedsafe.errors import DataError

DATA_DIR = "FEDSAFE_DATA_DIR"
CACHE_DIR = "FEDSAFE_CACHE_DIR"
_BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file on the web whose content is known.

    Args:
        url: An http or https address.
        sha256: Checksum of the content, in hexadecimal.
        size: Length of the content in bytes; a longer answer is cut off and refused.
    """

    url: str
    sha256: str
    size: int


def data_dir(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder that ``FEDSAFE_DATA_DIR`` names, or None if the variable is not set."""
    named = environment.get(DATA_DIR, "")
    return Path(named).expanduser() if named else None


def cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder for downloads: ``FEDSAFE_CACHE_DIR``, else ``~/.cache/fedsafe``."""
    named = environment.get(CACHE_DIR, "")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "fedsafe"


def sha256(content: bytes) -> str:
    """Checksum in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def verified(content: bytes, expected: str, name: str) -> bytes:
    """``content``, if it has the expected checksum.

    Raises:
        DataError: Naming the file, the expected and the actual checksum.
    """
    got = sha256(content)
    if got != expected:
        raise DataError(
            f"{name} is not the file it should be: expected sha256 {expected}, got {got}. "
            f"Delete it, or put the original in its place."
        )
    return content


def read_verified(path: Path, expected: str) -> bytes:
    """The bytes of a file, if they have the expected checksum.

    Raises:
        DataError: If the file cannot be read, or its checksum differs.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return verified(content, expected, str(path))


def download(remote: RemoteFile, target: Path, *, timeout: float = 30.0) -> Path:
    """Download to ``target``, unless a file with the right checksum is already there.

    Only bytes with the right checksum are written, to a temporary file beside the target that is then
    renamed, so that no interruption leaves, and no other process sees, a partial file.

    Args:
        remote: What to fetch.
        target: Where to put it; missing folders are made.
        timeout: Seconds without any byte after which the server is given up.

    Returns:
        ``target``.

    Raises:
        DataError: If the address is not http or https, the server refuses, answers with an error, is too slow
            or breaks off, the checksum differs, or the folder cannot be written. It says how to go on by
            hand.
    """
    if urllib.parse.urlsplit(remote.url).scheme not in ("http", "https"):
        raise DataError(f"{remote.url} is not an http or https address.")
    if target.is_file() and sha256(target.read_bytes()) == remote.sha256:
        return target
    by_hand = f"Download it elsewhere and put it at {target}."
    try:
        content = _fetch(remote, timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{remote.url} answered {error.code} {error.reason}. {by_hand}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{remote.url} could not be downloaded: {reason}. {by_hand}") from error
    if len(content) != remote.size:
        shape = "broke off" if len(content) < remote.size else "went on"
        raise DataError(f"{remote.url} {shape} at {len(content)} bytes of {remote.size}. {by_hand}")
    verified(content, remote.sha256, remote.url)
    try:
        _write(content, target)
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror or error}. Set {CACHE_DIR}.") from error
    return target


def _fetch(remote: RemoteFile, timeout: float) -> bytes:
    request = urllib.request.Request(remote.url, headers={"User-Agent": "fedsafe"})  # noqa: S310 - scheme checked
    content = bytearray()
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - scheme checked by the caller
        while len(content) <= remote.size and (block := answer.read(_BLOCK)):
            content += block
    return bytes(content)


def _write(content: bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle: IO[bytes]
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=target.name, suffix=".part", delete=False
    ) as handle:
        part = Path(handle.name)
        try:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        except OSError:
            part.unlink(missing_ok=True)
            raise
    part.replace(target)
