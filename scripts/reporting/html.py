"""What all of fedner's pages share: one file, no script, everything escaped, nothing fetched."""

from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER: Final = Path(__file__).parent
_GRAVE: Final = ("SIMULATION", "INSECURE", "DEMO", "EXACT", "UNFINISHED")


def rendered(template: str, **content: Any) -> str:
    """A template of this folder, filled in.

    What is filled in is escaped, but for what is `Markup` already.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content) + "\n"


def worded(text: str) -> Markup:
    """Escaped; what stands in backquotes as code."""
    parts = text.split("`")
    pairs = [Markup("<code>{}</code>" if i % 2 else "{}").format(p) for i, p in enumerate(parts)]
    return Markup("").join(pairs)


def is_grave(said: str) -> bool:
    """Whether a notice says what is not protected, or not real."""
    return said.startswith(_GRAVE) or said.split(".")[0].endswith(": NONE")
