"""Where data files come from: a folder named by the user, the package, a verified download.

A file whose checksum is known is always checked, wherever it came from: results that carry a source's name
must have been computed on that source.
"""

import gzip
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zlib
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
        packed: Whether the address answers with the content compressed by gzip. It is unpacked before it is checked
            and kept, since the same content has many packed forms.
    """

    url: str
    sha256: str
    size: int
    packed: bool = False


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
    except (OSError, http.client.HTTPException, zlib.error) as error:
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


def local_copy(environment: Mapping[str, str], place: str, expected: str) -> bytes | None:
    """The content of a file in the user's data folder, if it is there.

    Args:
        environment: Variables that name folders.
        place: Where it is under ``FEDSAFE_DATA_DIR``, e.g. ``"mnist/train-labels-idx1-ubyte"``; a file of that name
            with ``.gz`` at its end is unpacked.
        expected: Checksum of the content, in hexadecimal.

    Raises:
        DataError: If it is another file.
    """
    folder = data_dir(environment)
    if folder is None:
        return None
    path = folder / place
    if path.is_file():
        return read_verified(path, expected)
    packed = path.with_name(path.name + ".gz")
    if packed.is_file():
        return verified(unpacked(packed.read_bytes(), str(packed)), expected, str(packed))
    return None


def obtain(
    environment: Mapping[str, str], folder: str, files: Mapping[str, RemoteFile], title: str
) -> dict[str, bytes]:
    """The contents of files by name: from the user's data folder, the cache, or their addresses, in that order.

    Args:
        environment: Variables that name folders.
        folder: The folder under ``FEDSAFE_DATA_DIR`` and under the cache.
        files: Their names, and where they are to be had.
        title: What they are, for a message.

    Raises:
        DataError: If a file is another one, or none can be had; the message says where to put it.
    """
    found: dict[str, bytes] = {}
    for name, remote in files.items():
        content = local_copy(environment, f"{folder}/{name}", remote.sha256)
        if content is None:
            try:
                content = download(remote, cache_dir(environment) / folder / name).read_bytes()
            except DataError as error:
                place = (data_dir(environment) or Path(f"${DATA_DIR}")) / folder / name
                raise DataError(f"{title} is not on this machine. {error} Or put it at {place}.") from error
        found[name] = content
    return found


def _fetch(remote: RemoteFile, timeout: float) -> bytes:
    request = urllib.request.Request(remote.url, headers={"User-Agent": "fedsafe"})  # noqa: S310 - scheme checked
    content = bytearray()
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16) if remote.packed else None
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - scheme checked by the caller
        while len(content) <= remote.size and (block := answer.read(_BLOCK)):
            # No more than is asked for: a few packed bytes can stand for gigabytes.
            content += block if unpack is None else unpack.decompress(block, remote.size + 1 - len(content))
    return bytes(content)


def unpacked(content: bytes, name: str) -> bytes:
    """The content of a file compressed by gzip.

    Raises:
        DataError: If it is none.
    """
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is not a file compressed by gzip: {error}.") from error


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
