"""What an uploaded bundle is, found out without unpacking it to the disk and without importing anything."""

import hashlib
import io
import tomllib
import zipfile

from fedsafe.deploy.refusals import Refusal, Refused

# FedSafe's own client, which every party has installed: the gate answers in its place.
CLIENT_APP = "fedsafe.apps.client:app"
_MOST_BYTES = 2**20


def bundle_digest(fab: bytes) -> str:
    """SHA-256 of a bundle, in hexadecimal: what ``code.apps`` of a policy lists."""
    return hashlib.sha256(fab).hexdigest()


def has_own_code(fab: bytes) -> bool:
    """Whether an allowed bundle wants code of its own run at the client.

    Raises:
        Refused: It is no bundle.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(fab)) as files:
            entry = files.getinfo("pyproject.toml")
            if entry.file_size > _MOST_BYTES:
                raise ValueError("its pyproject.toml is too large")
            with files.open(entry) as file:
                project = tomllib.loads(file.read(_MOST_BYTES).decode())
            names = files.namelist()
        app = project["tool"]["flwr"]["app"]["components"].get("clientapp")
    except (zipfile.BadZipFile, KeyError, ValueError, AttributeError, TypeError) as error:
        raise Refused(
            Refusal.APP_NOT_ALLOWED, f"the bundle cannot be read: {type(error).__name__}"
        ) from error
    return app != CLIENT_APP or any(name.endswith((".py", ".so", ".pyc", ".pth")) for name in names)
