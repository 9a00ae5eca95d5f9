"""`fedner`: parses the command line, calls one function per verb, renders.

Exit codes: 0 done; 1 a fault of fedner's; 2 wrong usage; 3 configuration; 4 data; 5 encoder or
model; 6 refused by policy; 7 protocol; 8 federation; 9 privacy budget; 10 identity
or roster; 11 audit log; 12 Flower's processes ended before the run; 13 a disk that fails or is
full; 130 interrupted.
"""

import importlib
import os
import sys
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from common import __version__
from common.errors import FednerError
from scripts.console import err, out, show_error

VERBS: Final = (
    "simulate", "server", "client", "doctor", "health", "train", "evaluate", "predict", "export",
    "verify", "watch", "report", "runs", "provision", "data", "encoder", "config", "budget",
    "identity", "roster", "enrol", "policy", "log",
)  # fmt: skip
"""Each is a module of `scripts.verbs`."""


class Verbs(TyperGroup):
    """Imports the module of the verb that is asked for, and of no other.

    What supervises an institution then holds no torch, and starts in a fraction of the time.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """All verbs, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One verb; none of that name is click's to complain of."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"scripts.verbs.{cmd_name}")
        verbs = getattr(module, "app", None)
        if verbs is not None:
            command: Any = get_group(verbs)
        else:
            alone = typer.Typer(add_completion=False, rich_markup_mode="markdown")
            alone.command(cmd_name)(module.command)
            command = get_command(alone)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="fedner",
    help="Federated fine-tuning of BERT for named-entity recognition.",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(asked: bool) -> None:
    if asked:
        out.print(f"fedner {__version__}", highlight=False)
        raise typer.Exit


@app.callback(epilog="Exit codes: 0 done, 2 usage, 3 configuration, 4 data, 5 encoder or model, "
              "6 policy, 7 protocol, 8 federation, 9 budget, 10 identity, 11 audit log, "
              "12 Flower ended before the run, 13 disk, 130 interrupted, 1 else.")  # fmt: skip
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
