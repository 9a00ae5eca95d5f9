"""A whole study on one machine: the same worker sessions, the same bytes, no processes.

A study with secure aggregation runs under identities and a roster that are made for the run and
kept in memory: they protect nobody, since all parties are one process.
"""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from flwr.app import Context

from client.app import Exchange, make_app
from client.guard import open_guard
from client.session import Party, Session
from client.sums import Sums, open_sums
from common.config.site import Policy
from common.config.study import Study
from common.data.records import Document
from common.errors import UsageError
from common.identity.identity import Identity
from common.identity.roster import Member, Roster
from common.identity.signing import SEED_BYTES
from common.io.datasets import Sides, simulated_sides
from common.io.encoders import resolve_encoder
from common.io.flower_internals import LocalGrid
from common.io.standing import Standing
from common.model.ner import NerModel
from server.app import run_study
from server.run_dir import RunDir

log = logging.getLogger("fedner.simulation")

SIMULATED_POLICY: Final = Policy(
    accept_privacy_none=True,
    accept_secure_aggregation_none=True,
    accept_exact_evaluation=True,
    accept_insecure_seed=True,
    accept_semi_honest=True,
)
COORDINATOR: Final = "coordinator"

EPHEMERAL: Final = (
    "SIMULATED IDENTITIES. Keys and roster of the secure sums were made for this run, in this one "
    "process: nobody compared them, and they protect nobody."
)

OnEvent = Callable[[str, Mapping[str, Any]], None]
OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Identities of one simulated run, by name, and their roster. They are never written down."""

    identities: Mapping[str, Identity]
    coordinator: Identity
    roster: Roster

    @classmethod
    def of(cls, study: Study, random: Callable[[int], bytes] = os.urandom) -> "Cast":
        """Fresh ones.

        Raises:
            UsageError: the study is for another roster.
        """
        if study.secure is not None and study.secure.roster_sha256 is not None:
            raise UsageError(
                "the study names its roster, whose keys a simulation does not have",
                remedy="leave `secure_aggregation.roster_sha256` out to simulate it",
            )
        names = study.federation.institutions
        identities = {name: Identity.of(name, random(SEED_BYTES)) for name in names}
        coordinator = Identity.of(COORDINATOR, random(SEED_BYTES))
        members = [
            Member(name=name, public_key=one.signer.public_key) for name, one in identities.items()
        ]
        roster = Roster(
            coordinator=coordinator.signer.public_key,
            institutions=tuple(members),
            note="made for a simulation",
        )
        return cls(identities=identities, coordinator=coordinator, roster=roster)

    @property
    def standing(self) -> Standing:
        """The coordinator's."""
        return Standing(identity=self.coordinator, roster=self.roster)

    def sums(self, study: Study, name: str, policy: Policy, state: Path) -> Sums:
        """An institution's driver of the secure sums."""
        state.mkdir(parents=True, exist_ok=True)
        signer = self.identities[name].signer
        return open_sums(study, self.roster, name, signer, policy, state / "sums")


@dataclass(frozen=True, slots=True)
class Bench:
    """A study with everything that its simulation and its baselines need."""

    study: Study
    sides: Mapping[str, Sides]
    encoder_dir: Path
    encoder: str

    @classmethod
    def of(cls, study: Study, base: Path) -> "Bench":
        """Read the data and check the encoder.

        Args:
            base: folder at which relative paths of the study start.
        """
        folder, info = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
        return cls(study, simulated_sides(study, base), folder, info.fingerprint)

    def model(self, device: str = "auto") -> NerModel:
        """A fresh model."""
        return NerModel(self.encoder_dir, self.study, device)

    @property
    def all_train(self) -> tuple[Document, ...]:
        """The pooled training documents: what no federation has."""
        return tuple(d for sides in self.sides.values() for d in sides.train)

    @property
    def all_test(self) -> tuple[Document, ...]:
        """The held-out documents of all institutions."""
        return tuple(d for sides in self.sides.values() for d in sides.test)

    def session(
        self,
        name: str,
        model: NerModel,
        state: Path,
        on_step: OnStep | None = None,
        cast: Cast | None = None,
    ) -> Session:
        """One institution's worker session on a model that institutions may share.

        Args:
            state: folder of this institution's privacy ledger and of what it remembers of secure
                sums, if the study needs them.
            cast: in a study with secure aggregation.
        """
        policy = SIMULATED_POLICY
        sums = None
        if cast is not None:
            policy = replace(policy, roster_sha256=cast.roster.sha256)
            sums = cast.sums(self.study, name, policy, state)
        party = Party(
            name=name,
            policy=policy,
            encoder=self.encoder,
            train=model.prepare(self.sides[name].train),
            test=model.prepare(self.sides[name].test),
        )
        log.info("%s: preparing train %s, test %s", name, party.train.notes(), party.test.notes())
        progress = None if on_step is None else lambda done, of: on_step(name, done, of)
        guard = None
        if self.study.local_privacy is not None:
            size = model.layout.size
            guard = open_guard(self.study, name, policy, state / "ledger", size)
        return Session(self.study, party, model, progress=progress, guard=guard, sums=sums)


def simulate(
    bench: Bench,
    run: RunDir,
    model: NerModel,
    on_event: OnEvent | None = None,
    on_step: OnStep | None = None,
) -> None:
    """Run the study in this process; afterwards `model` holds the shared weights."""
    names = bench.study.federation.institutions
    log.info("reading: %s", next(iter(bench.sides.values())).notes or "clean")
    sites = run.path / "sites"
    cast = None
    if bench.study.secure is not None:
        cast = Cast.of(bench.study)
        log.warning(EPHEMERAL)
    sessions = {name: bench.session(name, model, sites / name, on_step, cast) for name in names}

    def exchange_for(context: Context) -> Exchange:
        return sessions[str(context.node_config["institution"])].handle

    nodes = [{"institution": name} for name in names]
    with ExitStack() as stack:
        for session in sessions.values():
            stack.callback(session.close)
        grid = stack.enter_context(
            LocalGrid(make_app(exchange_for), nodes, {"run-dir": str(run.path)})
        )
        standing = None if cast is None else cast.standing
        run_study(grid, run, on_event, home=run.path / "coordinator", standing=standing)
    delta, _ = run.load_delta()
    model.set_delta(delta)
