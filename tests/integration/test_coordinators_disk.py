"""Real processes: what a coordinator has on disk, and all that came to it, searched for plants.

`fedner server` with Flower's SuperLink and three `fedner client`s on loopback. One worker's loss,
F1 and counts are distinctive, and it writes down its update and levels; the ServerApp writes down
all that it pulls. Flower keeps messages and objects in the SuperLink's memory; here it is made to
keep them in a database in the run's folder, so that what it forgets to delete can be found.

    pytest -m slow tests/integration/test_coordinators_disk.py    four minutes on two busy cores
"""

import os
from pathlib import Path

import numpy as np
import pytest

from common.config.load import parse_study
from common.secagg.packing import unpack
from tests.integration.test_processes import THREE, Federation
from tests.needles import SHORTEST, Known, files_below, found_in, needles

PLANTED = THREE[1]
ROUND = "{rounds: 1, local_epochs: 1, batch_size: 4, learning_rate: 5e-3, precision: float32}"
LIMIT_S = 1200.0
"""A busy machine needs more than a minute for what takes half of one."""
PLANTS = Path(__file__).parents[1] / "planted"


class PlantedFederation:
    """A finished run, its coordinator's files, and what the planted site alone knows."""

    def __init__(self, tiny_study, folder, patch, **changes):
        self.folder, self.known_in = folder, folder / "known"
        self.known_in.mkdir()
        self.heard, self.database = folder / "heard", folder / "real" / "run.db"
        for name, value in {
            "PYTHONPATH": os.pathsep.join([str(PLANTS), os.environ.get("PYTHONPATH", "")]),
            "PLANT_SITE": folder / "real" / "f" / PLANTED / "site.yaml",
            "PLANT_KNOWN": self.known_in,
            "PLANT_HEARD": self.heard,
            "PLANT_DATABASE": self.database,
        }.items():
            patch.setenv(name, str(value))
        patch.setattr("tests.integration.test_processes.LIMIT_S", LIMIT_S)
        text = tiny_study(
            training=ROUND,
            federation=f"{{institutions: [{', '.join(THREE)}], deadline_s: 300}}",
            simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
            **changes,
        )
        self.study = parse_study(text, "study.yaml")
        self._carry_out(text)

    def _carry_out(self, text):
        federation = Federation(self.folder / "real", text, THREE)
        try:
            assert federation.finish() == 0, federation.server.text
            self.files = dict(files_below(*self._coordinators(federation)))
        finally:
            federation.close()
        self.messages = {str(self.heard): self.heard.read_bytes()}

    def _coordinators(self, federation):
        """Folders and files of the coordinator; the rest of the test's is the institutions'."""
        dealt = federation.folder / "f"
        home = Path(os.environ["FEDNER_HOME"])
        yield from (federation.run.path, federation.server.log, home / "coordinator")
        yield from (dealt / "coordinator", dealt / "roster.yaml", dealt / "study.yaml")
        yield from self.database.parent.glob(f"{self.database.name}*")

    @property
    def known(self):
        update = np.frombuffer((self.known_in / "update.f4").read_bytes(), np.float32)
        counts = np.frombuffer((self.known_in / "counts.i8").read_bytes(), np.int64)
        known = Known(update=update, counts=counts)
        if self.study.secure is not None:
            known.bits = self.study.secure.bits
            packed = (self.known_in / "packed").read_bytes()
            known.levels = unpack(packed, len(update), known.bits)
        return known

    def found(self):
        """In files and messages; the shortest needles only where no masked vectors are."""
        things = list(needles(self.known))
        long = [thing for thing in things if len(thing.raw) >= SHORTEST]
        stored = {p: d for p, d in self.files.items() if p.startswith(str(self.database))}
        texts = {p: d for p, d in self.files.items() if p not in stored}
        assert stored
        return [
            found_in(texts.items(), things),
            found_in(stored.items(), long),
            found_in(self.messages.items(), long),
        ]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nothing_of_one_institution_is_on_the_disk_of_a_real_coordinator(
    tiny_study, tmp_path, monkeypatch
):
    run = PlantedFederation(tiny_study, tmp_path, monkeypatch, secure_aggregation="{}")
    assert run.found() == [{}, {}, {}]
    assert sum(map(len, run.messages.values())) > 3 * 2 * len(run.known.update)
    for name in ("metrics.jsonl", "run.log", "superlink.log", "server.log"):
        assert any(path.endswith(name) for path in run.files), name
    clients = "".join(p.read_text() for p in (tmp_path / "real" / "f").glob("*/client.log"))
    assert "loss 6.183e+07" in clients  # the plant is there: the site's own terminal has it


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_without_secure_aggregation_a_real_coordinator_has_the_update_and_the_counts(
    tiny_study, tmp_path, monkeypatch
):
    run = PlantedFederation(tiny_study, tmp_path, monkeypatch, secure_aggregation="none")
    _, stored, heard = run.found()
    for found in (stored, heard):
        assert "f4<" in found["update"]
        assert "i8<" in found["counts"]
