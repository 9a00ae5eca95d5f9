"""Growth of the secure sum with the number of institutions: masks, shares, time of one.

    scripts/bench secagg-growth [--institutions 10 32 100 316 1000] [--values 100000] [--beyond ...]
        [--svg docs/images/secagg-growth.svg]
    scripts/bench secagg-growth --whole N [--values 1000] [--dropout 0.05]

Each row is a study in which 5% of the institutions collude, 5% vanish in a session, and the
threshold is 80% of the roster or what the rules ask for. The degree is the smallest that
`common.secagg.graph.choose_degree` allows. One institution really takes part in a session of all of
them: it checks every key, draws the graph, deals and opens shares, masks a vector, signs, checks
every signature. The other institutions answer only as far as it hears of them.

`2^` columns: base-2 logarithms of the chance that privacy fails in one attempt (for some honest
institution) and that an unlucky round aborts; `never` where the ring allows for all colluders.
`--beyond` adds sizes of which only the arithmetic is done. `--svg` draws masks and shares of one
institution against the roster.

`--whole` runs one session of N institutions and the coordinator, all of them the real machines, in
which `--dropout` of the roster vanish before each of four stages, and fails unless the sum is that
of the survivors to the bit. The degree then allows for four times the drop-out.
"""

import argparse
import hashlib
import itertools
import math
import time
from pathlib import Path

import numpy as np

from common.identity.signing import Signer
from common.secagg import institution, keys, statements
from common.secagg.codec import adverts_digest, decode
from common.secagg.graph import (
    choose_degree,
    liveness_failure_log2,
    make_graph,
    privacy_failure_log2,
)
from common.secagg.messages import (
    Advert,
    Adverts,
    Consistent,
    Instruction,
    Invitation,
    Request,
    Survivors,
    Unmask,
)
from common.secagg.params import Parameters, smallest_threshold
from common.secagg.session import Context, Party, Session
from common.secagg.shamir import SHARE_BYTES
from common.secagg.states import Idle
from scripts.benchmarks._secagg_plot import svg
from scripts.benchmarks._secagg_whole import Whole, table
from scripts.benchmarks.dp_step import _cpu_name as cpu_name

MODEL = bytes(32)
SIZES = (10, 32, 100, 316, 1000)
BEYOND = (3162, 10_000, 31_623, 100_000)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench secagg-growth")
    parser.add_argument("--institutions", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--beyond", type=int, nargs="*", default=list(BEYOND))
    parser.add_argument("--values", type=int, help="100,000; of a whole session 1,000")
    parser.add_argument("--whole", type=int, metavar="N")
    parser.add_argument("--collusion", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args(argv)
    if options.whole:
        _whole(options.whole, options.values or 1000, options.collusion, options.dropout)
        return 0
    print("| institutions | h | t | graph | masks | shares | boxes B | privacy 2^ | abort 2^ |"
          " keys ms | shares ms | boxes ms | mask ms | sign ms | open ms |")  # fmt: skip
    print("|" + "---:|" * 15)
    points = []
    for n in options.institutions:
        study = _study(n, options.collusion, options.dropout)
        work, cells = _measure(study, options.values or 100_000, options.dropout)
        points.append((n, work))
        print("| " + " | ".join(cells) + " |", flush=True)
    points += [(n, _ring(n, options.collusion, options.dropout)) for n in options.beyond]
    print("\n" + _text_plot(points))
    if options.svg:
        options.svg.write_text(svg(points))
    return 0


def _whole(n: int, values: int, collusion: float, dropout: float) -> None:
    study = _study(n, collusion, 4 * dropout)
    whole = Whole(study, values, dropout)
    leaving = ", ".join(f"{len(who)} before {stage}" for stage, who in whole.leaving.items())
    degree = "all" if study.degree is None else f"{study.degree}"
    print(f"- {cpu_name()}; {n} institutions, {values:,} values, k = {study.bits}")
    print(f"- t = {study.threshold}, h = {study.collusion}; {degree} neighbours, "
          f"{study.share_threshold} open a secret")  # fmt: skip
    print(f"- vanished: {leaving}\n", flush=True)
    started = time.perf_counter()
    whole.run()
    print(table(whole))
    print(f"\nThe sum of the survivors' vectors, to the bit; {time.perf_counter() - started:.0f} s "
          f"in all, one process, processor seconds above.")  # fmt: skip


def _numbers(n: int, collusion: float) -> tuple[int, int]:
    """Colluders and threshold."""
    h = max(1, round(n * collusion))
    return h, max(smallest_threshold(n, h), n * 4 // 5)


def _ring(n: int, collusion: float, dropout: float) -> int:
    """Masks of one institution, by arithmetic alone."""
    h, t = _numbers(n, collusion)
    degree, _ = choose_degree(t, h, dropout, n)
    return n if degree is None else degree + 1


def _study(n: int, collusion: float, dropout: float) -> Parameters:
    h, t = _numbers(n, collusion)
    degree, least = choose_degree(t, h, dropout, n)
    return Parameters(
        institutions=tuple(f"site-{i}" for i in range(n)), threshold=t, collusion=h,
        adversary="malicious", min_cohort=t, value_bits=16, bits=27 if n > 500 else 26,
        degree=degree, neighbour_threshold=least,
    )  # fmt: skip


def _measure(study: Parameters, values: int, dropout: float) -> tuple[int, list[str]]:
    """Mask expansions of one institution, and its row."""
    clock = _Clock()
    boxes = _One(study).run(values, clock)
    neighbours = len(boxes)
    degree, least = study.degree, study.share_threshold
    graph = "complete" if degree is None else f"{degree}, {least} open"
    rare = ("-", "-")
    if degree is not None:
        private = privacy_failure_log2(study.threshold, study.collusion, degree, least)
        live = liveness_failure_log2(study.n, dropout, degree, least)
        rare = (f"{private:.0f}" if math.isfinite(private) else "never", f"{live:.0f}")
    cells = [study.n, study.collusion, study.threshold, graph, neighbours + 1, 2 * neighbours + 2,
             sum(len(box.box) + 66 for box in boxes), *rare,
             *(f"{ms:.1f}" for ms in clock.milliseconds)]  # fmt: skip
    return neighbours + 1, [str(cell) for cell in cells]


class _Clock:
    """Process time of each step, so that what else the machine does does not count."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []

    def __call__(self, step, *arguments):
        started = time.process_time()
        done = step(*arguments)
        self.milliseconds.append(1000 * (time.process_time() - started))
        if getattr(done, "aborted", None) is not None:
            raise done.aborted
        return done


class _One:
    """One institution in a session of all; the others are made as far as it hears of them."""

    def __init__(self, study: Parameters):
        self.signers = [Signer(_seed("identity", i)) for i in range(study.n)]
        self.coordinator = Signer(_seed("coordinator"))
        self.context = Context(
            parameters=study, study="1a" * 32, roster="2b" * 32,
            public_keys=tuple(signer.public_key for signer in self.signers),
            coordinator=self.coordinator.public_key,
        )  # fmt: skip
        self.session = Session(
            study="1a" * 32, roster="2b" * 32, purpose="train", round=1, attempt=1
        )

    def run(self, values: int, clock: _Clock) -> tuple:
        """All stages of institution 0; its boxes."""
        party = Party(context=self.context, index=0, signer=self.signers[0])
        state = Idle(party=party, newest={})
        invitation = self._signed(Invitation(session=self.session))
        step = clock(institution.receive, state, invitation, _seed("a") + _seed("b") + _seed("c"))
        adverts = self._adverts(decode(step.reply))
        step = clock(institution.receive, step.state, self._signed(adverts), _seed("d"))
        boxes = decode(step.reply).boxes
        step = clock(institution.receive, step.state, self._signed(self._instruction(adverts)))
        vector = np.zeros(values, np.uint32)
        step = clock(institution.submit, step.state, vector)
        everyone = tuple(range(self.context.parameters.n))
        told = Survivors(session=self.session, survivors=everyone, dropped=())
        step = clock(institution.receive, step.state, self._signed(told))
        unmask = self._signed(self._unmask(adverts, step.reply, everyone))
        clock(institution.receive, step.state, unmask)
        return boxes

    def _signed(self, request: Request) -> bytes:
        return statements.signed(self.coordinator, request)

    def _adverts(self, own: Advert) -> Adverts:
        others = [self._advert(i) for i in range(1, self.context.parameters.n)]
        return Adverts(session=self.session, adverts=(own, *others))

    def _advert(self, index: int) -> Advert:
        secrets = self._secrets(index)
        fields = {
            "session": self.session, "sender": index,
            "box_key": keys.public_key(secrets.box_key),
            "mask_key": keys.public_key(secrets.mask_key),
            "commitment": keys.commitment(self.session, index, secrets.seed),
        }  # fmt: skip
        text = statements.advert_text(Advert(**fields, signature=b""))
        signature = statements.sign(self.signers[index], statements.ADVERT, text)
        return Advert(**fields, signature=signature)

    def _secrets(self, index: int) -> keys.Secrets:
        return keys.Secrets.of(b"".join(_seed("secrets", index, part) for part in range(3)))

    def _instruction(self, adverts: Adverts) -> Instruction:
        """With boxes for institution 0 of all its neighbours, as they would close them."""
        degree, everyone = self.context.parameters.degree, range(self.context.parameters.n)
        graph = make_graph(everyone, degree, self.session.to_bytes(), adverts_digest(adverts))
        boxes = []
        for i in sorted(graph.neighbours(0)):
            public = adverts.adverts[0].box_key
            key = keys.box_key(self._secrets(i).box_key, public, self.session, i, 0, i)
            shares = keys.Shares(key=bytes(SHARE_BYTES), seed=bytes(SHARE_BYTES))
            sealed = keys.seal(key, self.session, i, 0, shares)
            boxes.append(
                type(sealed)(peer=i, key_digest=sealed.key_digest,
                             seed_digest=sealed.seed_digest, box=sealed.box)
            )  # fmt: skip
        return Instruction(session=self.session, model=MODEL, receiver=0, boxes=tuple(boxes))

    def _unmask(self, adverts: Adverts, own: bytes, everyone: tuple[int, ...]) -> Unmask:
        view = statements.view_text(self.session, adverts_digest(adverts), MODEL, everyone, ())
        mine = decode(own)
        assert isinstance(mine, Consistent)
        others = [(i, statements.sign(self.signers[i], statements.VIEW, view)) for i in everyone]
        signatures = ((0, mine.signature), *others[1:])
        return Unmask(session=self.session, survivors=everyone, dropped=(), signatures=signatures)


def _seed(*name: object) -> bytes:
    return hashlib.sha256(repr(name).encode()).digest()


def _text_plot(points: list[tuple[int, int]]) -> str:
    """Masks of one institution, and by how much they grow with the roster."""
    most = max(work for _, work in points)
    bars = [f"{n:>6} {'#' * max(1, round(60 * work / most))} {work}" for n, work in points]
    growth = [
        f"from {a[0]} to {b[0]}: institutions x {b[0] / a[0]:.2f}, masks x {b[1] / a[1]:.2f}"
        for a, b in itertools.pairwise(points)
    ]
    return "masks of one institution\n" + "\n".join(bars + growth)
