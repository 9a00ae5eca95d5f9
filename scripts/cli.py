"""`fedner`: parses the command line, calls one function per verb, renders.

Exit codes: 0 done; 1 a fault of fedner's; 2 wrong usage; 3 configuration; 4 data; 5 encoder or
model; 6 refused by policy; 7 protocol; 8 federation; 9 privacy budget; 10 identity
or roster; 11 audit log; 130 interrupted.
"""

import os
import sys
from typing import Annotated

import typer

from common import __version__
from common.errors import FednerError
from scripts.console import err, out, show_error
from scripts.verbs import (
    budget,
    config,
    data,
    doctor,
    encoder,
    enrol,
    evaluate,
    health,
    identity,
    log,
    policy,
    predict,
    provision,
    roster,
    simulate,
    train,
)
from scripts.verbs import client as client_verb
from scripts.verbs import server as server_verb

app = typer.Typer(
    name="fedner",
    help="Federated fine-tuning of BERT for named-entity recognition.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("simulate")(simulate.command)
app.command("server")(server_verb.command)
app.command("client")(client_verb.command)
app.command("doctor")(doctor.command)
app.command("health")(health.command)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("predict")(predict.command)
app.command("provision")(provision.command)
app.add_typer(data.app, name="data")
app.add_typer(encoder.app, name="encoder")
app.add_typer(config.app, name="config")
app.add_typer(budget.app, name="budget")
app.add_typer(identity.app, name="identity")
app.add_typer(roster.app, name="roster")
app.add_typer(enrol.app, name="enrol")
app.add_typer(policy.app, name="policy")
app.add_typer(log.app, name="log")


def _version(asked: bool) -> None:
    if asked:
        out.print(f"fedner {__version__}", highlight=False)
        raise typer.Exit


@app.callback(epilog="Exit codes: 0 done, 2 usage, 3 configuration, 4 data, 5 encoder or model, "
              "6 policy, 7 protocol, 8 federation, 9 budget, 10 identity, 11 audit log, "
              "130 interrupted, 1 else.")  # fmt: skip
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Federated fine-tuning of BERT for named-entity recognition."""


def main() -> None:
    """Entry point: errors become a message and an exit code, Ctrl-C becomes 130."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app(standalone_mode=True)
    except FednerError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        show_error(FednerError(f"{error.strerror or type(error).__name__}", place=error.filename))
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)


if __name__ == "__main__":
    main()
