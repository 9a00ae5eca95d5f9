"""Faults in a federation of six real institutions: what comes of each, what it costs, the model.

    scripts/bench faults --out runs/faults.jsonl [--rows NAME ...] [--folder FOLDER]
    scripts/bench faults --out runs/faults.jsonl --table

Each fault is made in a round of one long run (t = 4, h = 1, quorum 4, noise from a test seed); then
a run without any, over the same institutions in each sum, is gone through, and the models of the
two are compared to the bit. A finished row is one line of the file and is not made again. Takes
root, for small file systems of its own, and an hour on an idle machine of two cores.
"""

import argparse
import json
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from common.io.atomic import append_json
from scripts.benchmarks._faults_campaign import Campaign
from scripts.benchmarks._faults_check import checked
from scripts.benchmarks._faults_live import ROWS, Row
from scripts.benchmarks._faults_policy import FIELDS, policy_rows
from scripts.benchmarks._faults_table import print_table
from scripts.benchmarks._faults_tests import TESTED, tested_rows
from scripts.benchmarks._stage import StageError
from scripts.benchmarks.federation import commit
from scripts.console import quiet_libraries

Line = dict[str, Any]
NAMES_OF_ROWS: Final = (
    *(row.name for row in ROWS),
    *(row.name for row in TESTED),
    *(f"policy-{one.title}" for one in FIELDS),
)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench faults")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "faults")
    parser.add_argument("--rows", nargs="+", choices=NAMES_OF_ROWS, metavar="NAME")
    parser.add_argument("--table", action="store_true", help="print what is there, and no more")
    options = parser.parse_args(argv)
    quiet_libraries()
    for number in (signal.SIGINT, signal.SIGTERM):  # what was made so far is checked all the same
        signal.signal(number, signal.default_int_handler)
    if not options.table:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        _make(set(options.rows or NAMES_OF_ROWS), options.folder, options.out)
    print_table(read(options.out), NAMES_OF_ROWS)
    return 0


def _make(wanted: set[str], folder: Path, out: Path) -> None:
    """What is not there yet."""
    wanted -= {line["row"] for line in read(out)}
    live = [row for row in ROWS if row.name in wanted]
    place = folder / time.strftime("%H%M%S")
    if live:
        _run(live, place, out)
    for rows in (tested_rows(wanted.__contains__), policy_rows(place / "p", wanted.__contains__)):
        for line in rows:
            append_json(out, {**line, "commit": commit()})
            print(json.dumps(line), flush=True)


def read(path: Path) -> list[Line]:
    """The lines of before; of a row's two the latter, with what the check found, counts."""
    if not path.exists():
        return []
    lines: dict[str, Line] = {}
    for text in path.read_text("utf-8").splitlines():
        line = json.loads(text)
        lines[line["row"]] = lines.get(line["row"], {}) | line
    return list(lines.values())


def _run(rows: Sequence[Row], place: Path, out: Path) -> None:
    made: list[Line] = []
    try:
        with Campaign(place) as campaign:
            for row in rows:
                line = _made(campaign, row)
                made.append(line)
                append_json(out, line)
                print(json.dumps(line), flush=True)
                if line.get("ended"):
                    break
    finally:
        for line in checked(made, place):
            append_json(out, line)


def _made(campaign: Campaign, row: Row) -> Line:
    line: Line = {"row": row.name, "fault": row.fault, "commit": commit()}
    begun = time.monotonic()
    try:
        done = row.make(campaign)
    except StageError as error:
        line["failed"] = str(error)[-2000:]
        _mend(campaign)
        return line
    rounds = range(done.round, done.until + 1)
    last = campaign.round
    found = [campaign.outcome(r) for r in rounds if r <= last]
    return line | asdict(done) | {"seconds": round(time.monotonic() - begun), "sums": found}


def _mend(campaign: Campaign) -> None:
    """Whoever is not there is started again, so that the next row can be made."""
    for name, client in campaign.stage.clients.items():
        if client.process.poll() is not None:
            campaign.stage.start(name)
    server = campaign.stage.server
    if server is not None and server.process.poll() is not None:
        campaign.stage.serve()
    campaign.whole(600.0)
