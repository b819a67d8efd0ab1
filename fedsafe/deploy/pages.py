"""What people read and containers follow: the page of who does what, the compose file, commands and units."""

import string
from importlib import resources
from pathlib import Path
from typing import Any, Final

import fedsafe
from fedsafe.deploy.certificates import LOOPBACK
from fedsafe.deploy.federation import Federation, address, is_address, read_client


def fill(name: str, **values: Any) -> str:
    """A template with its ``@{names}`` filled in."""
    text = (resources.files("fedsafe.deploy") / "templates" / f"{name}.txt").read_text(encoding="utf-8")
    return _Text(text).substitute(values)


class _Text(string.Template):
    delimiter = "@"  # shells and compose have their own dollars


def write_script(path: Path, text: str) -> None:
    """Write a script that can be started."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def write_server_commands(federation: Federation) -> None:
    """The server's command and its unit."""
    server, home = federation.server, f"/opt/fedsafe/{federation.name}"
    write_script(server / "superlink.sh", fill("superlink.sh", federation=federation.name))
    what = {
        "description": f"server of {federation.name}",
        "what": "of the federation",
        "script": "server/superlink.sh",
    }
    unit = fill("unit.service", home=home, reach=f"ReadWritePaths={home}/server", **what)
    (server / "superlink.service").write_text(unit, encoding="utf-8")


def write_client_commands(federation: Federation, name: str) -> None:
    """A client's two commands and their units."""
    folder, home = federation.client_folder(name), f"/opt/fedsafe/{name}"
    facts = vars(read_client(folder))
    for role in ("supernode", "gate"):
        write_script(folder / f"{role}.sh", fill(f"{role}.sh", **facts))
        what = {"description": f"{role} of {name}", "what": f"clients/{name}", "script": f"{role}.sh"}
        unit = fill("unit.service", home=home, reach=_REACH[role].format(home=home), **what)
        (folder / f"{role}.service").write_text(unit, encoding="utf-8")


def write_pages(federation: Federation, *, keys_at_clients: bool, evaluation: str | None) -> None:
    """The page, and the compose file of every client whose folder is here.

    Args:
        federation: Whose they are.
        keys_at_clients: Whether each client makes its own key.
        evaluation: Name of the file of public records; None where there is none.
    """
    facts = {
        "federation": federation.name,
        "version": fedsafe.__version__,
        "host": federation.host,
        "port": federation.port,
        "address": address(federation.host, federation.port),
        "count": len(federation.names),
        "clients": ", ".join(federation.names),
        "keys": _THEIR_OWN_KEYS if keys_at_clients else _OUR_KEYS,
        "networks": "" if is_address(federation.host) else _ALIAS.format(host=federation.host),
        "note": _ON_LOOPBACK if federation.host in LOOPBACK else "",
        "evaluation": f"      - ./{evaluation}:/federation/{evaluation}:ro\n" if evaluation else "",
    }
    (federation.folder / "README.md").write_text(fill("README.md", **facts), encoding="utf-8")
    text = fill("compose.yaml", **facts)
    for name in federation.names:
        if (federation.client_folder(name) / "client.toml").is_file():
            own = read_client(federation.client_folder(name))
            text += fill("compose-client.yaml", version=fedsafe.__version__, **vars(own))
    (federation.folder / "compose.yaml").write_text(text, encoding="utf-8")


# As in the compose file: who talks to the network finds neither records nor ledger nor noise keys.
_REACH: Final = {
    "supernode": "TemporaryFileSystem={home}\n"
    "BindReadOnlyPaths={home}/supernode.sh {home}/ca.pem {home}/node.key {home}/state/runtime.secret\n"
    "Environment=FLWR_HOME=/tmp/flwr",
    "gate": "ReadWritePaths={home}/state\nInaccessiblePaths=-{home}/node.key",
}
_ALIAS: Final = '    networks:\n      default:\n        aliases: ["{host}"]\n'
_ON_LOOPBACK: Final = (
    "# This server is on loopback, which is for plain processes on one machine: for containers, give init --hosts\n"
    "# server=server, or the host that clients reach it by.\n"
)
_OUR_KEYS: Final = (
    "The keys of all clients were made here, in one place, which is right for a trial on one machine. For a real "
    "federation let each client make its own: `fedsafe deploy init ... --keys-at-clients`."
)
_THEIR_OWN_KEYS: Final = (
    "Each client makes its own key with `fedsafe deploy key NAME`, which writes `node.csr`, and sends that to who "
    "holds `ca/`. Who holds `ca/` asks the client for its digest over another channel, and runs `fedsafe deploy add . "
    "NAME --request node.csr --digest DIGEST`; the certificate `server/nodes/NAME.pem` goes to the server, and to the "
    "client as `node.pem`."
)
