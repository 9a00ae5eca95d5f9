"""Where this user's fedner keeps what belongs to no single study.

$FEDNER_HOME     encoders; may be read-only, and belong to another user
$FEDNER_STATE    a coordinator's receipt key and book, which it must not lose; without the
                 variable they are in $FEDNER_HOME
"""

import os
from pathlib import Path
from typing import Final

STATE_VARIABLE: Final = "FEDNER_STATE"
_COORDINATOR: Final = "coordinator"


def fedner_home() -> Path:
    """`$FEDNER_HOME`, else `~/.fedner`."""
    return Path(os.environ.get("FEDNER_HOME") or Path.home() / ".fedner")


def coordinator_state() -> Path:
    """`$FEDNER_STATE/coordinator`, else that of `fedner_home()`."""
    place = os.environ.get(STATE_VARIABLE)
    return (Path(place) if place else fedner_home()) / _COORDINATOR


def former_coordinator_state() -> Path | None:
    """Where key and book are without `$FEDNER_STATE`, if that says another place."""
    former = fedner_home() / _COORDINATOR
    return None if former.absolute() == coordinator_state().absolute() else former
