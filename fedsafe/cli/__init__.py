"""The command line. One file per command; what is slow to import is imported inside the command."""

import os
import sys

import click
import typer

from fedsafe.cli.assess import assess_command
from fedsafe.cli.audit import audit_command
from fedsafe.cli.budget import budget_command
from fedsafe.cli.byzantine import byzantine_command
from fedsafe.cli.compare import compare_command
from fedsafe.cli.constitution import constitution_app
from fedsafe.cli.data import data_app
from fedsafe.cli.deploy import deploy_app
from fedsafe.cli.export import export_command
from fedsafe.cli.guard import guard_command
from fedsafe.cli.ledger import ledger_app
from fedsafe.cli.new import new_command
from fedsafe.cli.report import report_command
from fedsafe.cli.run import run_command
from fedsafe.cli.serve import serve_command
from fedsafe.cli.simulate import simulate_command
from fedsafe.cli.ui import ui_command
from fedsafe.cli.verify import verify_command
from fedsafe.errors import FedSafeError
from fedsafe.extensions import search

app = typer.Typer(
    name="fedsafe",
    help="Private, assessed federated learning: every epsilon carries its claim.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run_command)
app.command("simulate")(simulate_command)
app.command("report")(report_command)
app.command("new")(new_command)
app.command("verify")(verify_command)
app.command("budget")(budget_command)
app.command("audit")(audit_command)
app.command("assess")(assess_command)
app.command("byzantine")(byzantine_command)
app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("serve")(serve_command)
app.command("guard")(guard_command)
app.command("ui")(ui_command)
app.add_typer(constitution_app, name="constitution")
app.add_typer(data_app, name="data")
app.add_typer(deploy_app, name="deploy")
app.add_typer(ledger_app, name="ledger")


def main() -> None:
    """Run a command. An error is one line on standard error, and an exit code that is not zero."""
    try:
        search([os.curdir])
        code = app(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        sys.stderr.write(f"fedsafe: {error.format_message()}\n")
        sys.exit(error.exit_code)
    except (FedSafeError, OSError) as error:
        sys.stderr.write(f"fedsafe: {error}\n")
        sys.exit(1)
    sys.exit(code)
