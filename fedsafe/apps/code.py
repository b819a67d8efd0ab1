"""Which code a process runs: two installations of one version can differ, and a plan says nothing of code."""

import hashlib
from functools import cache
from pathlib import Path

import fedsafe


@cache
def code_digest(package: Path = Path(fedsafe.__file__).parent) -> str:
    """SHA-256, in hexadecimal, of the names and lines of every Python file below a folder.

    Args:
        package: The folder; by default where this process has FedSafe from.
    """
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).parts):
        lines = path.read_bytes().replace(b"\r\n", b"\n")
        name = path.relative_to(package).as_posix().encode()
        whole.update(b"%d:%s%d:%s" % (len(name), name, len(lines), lines))
    return whole.hexdigest()
