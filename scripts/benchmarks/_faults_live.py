"""The faults that are made in a running federation; each returns the rounds that it concerned."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import yaml

from scripts.benchmarks._faults_campaign import DEADLINE_S, NAMES, SERVER, SMALL_DISK, Campaign
from scripts.benchmarks._faults_clock import wrong_clock
from scripts.benchmarks._faults_ledger import caught
from scripts.benchmarks._proxy import Direction, Proxy
from scripts.benchmarks._stage import Role, StageError

TRIES: Final = 5
"""Rounds in which a worker may be too quick to be caught."""
STAGES: Final = ("keys", "boxes", "vectors", "signatures", "shares")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a row has to say beside its round.

    Attributes:
        round: that the fault was made in.
        until: the last one that it concerned.
        said: in words, if something is to be told.
        ended: why the run did, if it did.
    """

    round: int
    until: int
    said: str = ""
    ended: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: short, as `--rows` takes it.
        fault: in words.
        site: whose it is; empty where it is not one institution's.
    """

    name: str
    fault: str
    make: Callable[[Campaign], Done]
    site: str = ""


def _killed(role: Role, stage: str, site: str) -> Row:
    def make(c: Campaign) -> Done:
        round_ = c.reach(site, stage)
        count = c.stage.send(site, role)
        c.await_round(round_)
        return Done(round=round_, until=round_, said=f"{count} processes killed")

    fault = f"SIGKILL of {site}'s {role}, {stage}"
    return Row(name=f"{role}-{stage}", fault=fault, make=make, site=site)


def _killed_after_its_reserve(site: str) -> Row:
    """The vector is lost: charged, and in no sum."""

    def make(c: Campaign) -> Done:
        for _ in range(TRIES):
            workers = c.stage.processes(site, "worker")
            round_ = c.announced(site, "vectors")
            if caught(c.stage.state(site) / "ledger", "train", round_, workers, DEADLINE_S):
                break
        else:
            raise StageError(f"{site}'s vector was stored before the worker could be killed")
        c.await_round(round_)
        until = c.round
        c.whole()
        said = f"{len(workers)} processes killed; a round over all again: {c.round}"
        return Done(round=round_, until=until, said=said)

    fault = f"SIGKILL of {site}'s worker, after its reserve and before its vector is stored"
    return Row(name="worker-reserve", fault=fault, make=make, site=site)


def _each_stage(role: Role) -> Row:
    """Of one round; each time another institution's."""

    def make(c: Campaign) -> Done:
        count, round_ = 0, 0
        for stage, site in zip(STAGES, NAMES, strict=False):
            round_ = c.reach(site, stage)
            count += c.stage.send(site, role)
        c.await_round(round_)
        until = c.round
        c.whole()
        said = f"{count} processes killed; a round over all again: {c.round}"
        return Done(round=round_, until=until, said=said)

    pairs = ", ".join(f"{site} {stage}" for stage, site in zip(STAGES, NAMES, strict=False))
    fault = f"SIGKILL of a {role} at each stage of one round: {pairs}"
    return Row(name=f"{role}-stages", fault=fault, make=make)


def _in_evaluation() -> Row:
    victims: tuple[tuple[Role, str], ...] = (
        ("relay", "north"), ("supernode", "east"), ("worker", "south"),
    )  # fmt: skip

    def make(c: Campaign) -> Done:
        round_ = c.reach("south", "vectors", "evaluate")
        for role, site in victims:
            c.stage.send(site, role)
        c.await_round(round_ + 1)
        (found,) = (e for e in c.stage.run.events("evaluation") if e["round"] == round_)
        over = f"evaluation over {', '.join(sorted(found['institutions']))}"
        return Done(round=round_, until=round_, said=over)

    pairs = ", ".join(f"{site}'s {role}" for role, site in victims)
    return Row(name="evaluation", fault=f"SIGKILL in one evaluation: {pairs}", make=make)


def _server_killed(name: str, *order: str) -> Row:
    """Again and again; after each `--resume` a sum begins in full."""

    def make(c: Campaign) -> Done:
        took, round_ = [], 0
        for stage in order:
            round_ = c.reach_any(stage)
            took.append(_resumed(c))
        c.await_round(round_)
        return Done(round=round_, until=round_, said=f"resumed after {', '.join(took)}")

    at = order[0] if len(order) == 1 else f"at one stage after the other ({', '.join(order)})"
    where = f", {at}" if len(order) == 1 else f" {at}"
    return Row(name=name, fault=f"SIGKILL of the server{where}; --resume", make=make)


def _server_killed_in_evaluation() -> Row:
    def make(c: Campaign) -> Done:
        round_ = c.reach_any("vectors", "evaluate")
        took = _resumed(c)
        c.await_round(round_ + 1)
        count = sum(e["round"] == round_ for e in c.stage.run.events("evaluation"))
        said = f"resumed after {took}; {count} evaluation of the round"
        return Done(round=round_, until=round_, said=said)

    fault = "SIGKILL of the server in an evaluation; --resume"
    return Row(name="server-evaluation", fault=fault, make=make)


def _resumed(c: Campaign) -> str:
    """Kill the server and go on; seconds until it had its institutions again."""
    before = _count(c, "resume")
    c.stage.kill_server()
    begun = time.monotonic()
    c.stage.serve()
    c.stage.await_event("resume", 1 + before)
    return f"{time.monotonic() - begun:.0f} s"


def _count(c: Campaign, event: str) -> int:
    return len(c.stage.run.events(event))


def _cut(name: str, fault: str, seconds: float, cuts: Mapping[str, tuple[Direction, ...]]) -> Row:
    def make(c: Campaign) -> Done:
        round_ = c.reach(next(iter(cuts)), "vectors")
        for site, directions in cuts.items():
            c.proxies[site].hold(*directions)
        time.sleep(seconds)
        for site in cuts:
            c.proxies[site].release()
        c.await_round(round_)
        until = c.round
        c.whole()
        return Done(round=round_, until=until, said=f"a round over all again: {c.round}")

    return Row(name=name, fault=fault, make=make)


def _poor(name: str, fault: str, spoil: Callable[[Proxy, float], None], value: float) -> Row:
    """All links, for a round that begins with it."""

    def make(c: Campaign) -> Done:
        begun = c.round
        for proxy in c.proxies.values():
            spoil(proxy, value)
        c.await_round(begun + 2)
        for proxy in c.proxies.values():
            spoil(proxy, 0.0)
        return Done(round=begun + 2, until=begun + 2)

    return Row(name=name, fault=f"{fault}, for a round", make=make)


def _stalled(seconds: float, pause_s: float) -> Row:
    def make(c: Campaign) -> Done:
        begun = c.round
        while c.round < begun + 2:
            for proxy in c.proxies.values():
                proxy.hold()
            time.sleep(seconds)
            for proxy in c.proxies.values():
                proxy.release()
            time.sleep(pause_s)
        return Done(round=begun + 2, until=begun + 2)

    fault = f"all links stall for {seconds:g} s, again and again, for a round"
    return Row(name="stalls", fault=fault, make=make)


def _reset(every_s: float) -> Row:
    def make(c: Campaign) -> Done:
        begun, count = c.round, 0
        while c.round < begun + 2:
            count += sum(proxy.reset() for proxy in c.proxies.values()) // 2
            time.sleep(every_s)
        return Done(round=begun + 2, until=begun + 2, said=f"{count} connections reset")

    fault = f"every connection reset (RST) each {every_s:g} s, for a round"
    return Row(name="resets", fault=fault, make=make)


def _slow(site: str) -> Row:
    def make(c: Campaign) -> Done:
        round_ = c.reach(site, "vectors")
        c.stage.send(site, "worker", signal.SIGSTOP)
        try:
            c.await_round(round_, 4 * DEADLINE_S)
        finally:
            c.stage.send(site, "worker", signal.SIGCONT)
        c.whole()
        return Done(round=round_, until=round_, said=f"back in round {c.round}")

    fault = f"{site}'s worker stopped in training for longer than the deadline ({DEADLINE_S} s)"
    return Row(name="slow", fault=fault, make=make, site=site)


def _sites_disk(site: str, stage: str, name: str) -> Row:
    def make(c: Campaign) -> Done:
        round_ = c.reach(site, stage)
        with c.full(site):
            c.await_round(round_)
        until = c.round
        c.whole()
        return Done(round=round_, until=until, said=f"back in round {c.round}")

    fault = f"{site}'s disk full for a round, from {stage} on"
    return Row(name=name, fault=fault, make=make, site=site)


def _servers_disk(site: str) -> Row:
    def make(c: Campaign) -> Done:
        round_ = c.reach(site, "vectors")
        ended = ""
        with c.full(SERVER):
            deadline = time.monotonic() + 2 * DEADLINE_S
            while time.monotonic() < deadline and c.stage.server is not None:
                if c.stage.server.process.poll() is not None:
                    ended = _last_words(c)
                    break
                time.sleep(0.2)
        if not ended:
            raise StageError("the server goes on upon a full disk")
        c.stage.serve()
        c.await_round(round_)
        return Done(round=round_, until=round_, said=f"ended: {ended}; resumed with room")

    return Row(name="disk-server", fault="the server's disk full; --resume with room", make=make)


def _last_words(c: Campaign) -> str:
    text = "" if c.stage.server is None else c.stage.server.text
    lines = [line for line in text.splitlines() if line.strip()]
    found = [line for line in lines if line.startswith("error")] or lines[-1:]
    return " ".join(found).replace(str(c.stage.run.path), "RUN")[:300]


def _skewed(skews: Mapping[str, int]) -> Row:
    def make(c: Campaign) -> Done:
        for site, seconds in skews.items():
            c.stage.stop(site)
            c.stage.start(site, **wrong_clock(c.stage.folder, seconds))
        begun = c.round
        c.await_round(begun + 2)
        until, said = c.round, [f"{site}: {_ends(c, site)}" for site in skews]
        for site in skews:
            c.stage.stop(site)
            c.stage.start(site)
        c.whole()
        said.append(f"clocks mended, a round over all again: {c.round}")
        return Done(round=begun + 2, until=until, said="; ".join(said))

    pairs = " and ".join(f"{site}'s clock {_shift(s)}" for site, s in skews.items())
    return Row(name="clock", fault=f"{pairs}, for a round", make=make)


def _shift(seconds: int) -> str:
    return f"{abs(seconds) / 3600:g} h {'ahead' if seconds > 0 else 'behind'}"


def _ends(c: Campaign, site: str) -> str:
    """What its terminal says of its node."""
    count = c.stage.clients[site].text.count("supernode ended with")
    return f"its node ended {count} times" if count else "its node stayed"


def _other_study(site: str) -> Row:
    def make(c: Campaign) -> Done:
        c.stage.stop(site)
        path = c.stage.sites[site].parent / "study.yaml"
        before = path.read_text()
        changed = before.replace("learning_rate: 0.005", "learning_rate: 0.006")
        if yaml.safe_load(changed) == yaml.safe_load(before):
            raise StageError(f"{path}: nothing was changed")
        path.write_text(changed)
        begun = c.round
        c.stage.start(site)
        with suppress(StageError):
            c.stage.await_true(lambda: "other-study" in _seen(c, site), "a refusal", 180.0, 0.2)
        c.await_round(c.round + 2)
        until, seen = c.round, ", ".join(sorted(_seen(c, site) - {"joined", "back"}))
        c.stage.stop(site)
        path.write_text(before)
        c.stage.start(site)
        c.whole()
        said = f"not taken in: {seen or 'nothing was said'}; back in round {c.round}"
        return Done(round=begun + 2, until=until, said=said)

    return Row(name="study-byte", fault=f"one byte of {site}'s study changed", make=make, site=site)


def _seen(c: Campaign, site: str) -> set[str]:
    return {e["state"] for e in c.stage.run.events("institution") if e["name"] == site}


def _gone(*sites: str) -> Row:
    def make(c: Campaign) -> Done:
        round_ = c.reach(sites[0], "vectors")
        for site in sites:
            c.stage.clients[site].look()
            c.stage.clients[site].destroy()
        c.await_round(round_ + 2, 6 * DEADLINE_S)
        return Done(round=round_, until=round_ + 2)

    fault = f"{' and '.join(sites)} gone for good (SIGKILL of all that is theirs)"
    return Row(name="two-gone", fault=fault, make=make, site=sites[0])


def _third_gone(site: str) -> Row:
    def make(c: Campaign) -> Done:
        round_ = c.reach(site, "vectors")
        c.stage.clients[site].destroy()
        code = c.stage.finish(12 * DEADLINE_S)
        return Done(round=c.round, until=round_, ended=f"exit code {code}: {_last_words(c)}")

    return Row(name="three-gone", fault=f"a third, {site}, gone for good", make=make, site=site)


def _rows() -> Iterator[Row]:
    yield _each_stage("relay")
    yield _killed("worker", "shares", "south")
    yield _killed("worker", "boxes", "centre")
    yield _each_stage("supernode")
    yield _in_evaluation()
    yield _server_killed("server-vectors", "vectors")
    yield _cut("cut", "north cut off for 60 s, both ways", 60.0, {"north": ()})
    one_way: dict[str, tuple[Direction, ...]] = {"east": ("up",), "south": ("down",)}
    yield _cut(
        "cut-one-way", "60 s: east's bytes are held, and the server's to south", 60.0, one_way
    )
    yield _poor("delay", "200 ms later each way, all institutions", Proxy.delay, 0.2)
    kbit = "350 kbit/s each way for each institution"
    yield _poor("slow-link", kbit, Proxy.slow, 350 * 125.0)
    yield _stalled(5.0, 3.0)
    yield _reset(4.0)
    yield _slow("centre")
    yield _sites_disk(SMALL_DISK, "keys", "disk-site")
    yield _sites_disk(SMALL_DISK, "vectors", "disk-site-vectors")
    yield _servers_disk("north")
    yield _skewed({"east": 3600, "coast": -3600})
    yield _other_study("south")
    yield _server_killed_in_evaluation()
    yield _server_killed("server-stages", "signatures", "keys", "boxes", "shares")
    yield _killed("worker", "vectors", "north")
    yield _killed_after_its_reserve("centre")
    yield _killed("worker", "keys", "east")
    yield _killed("worker", "signatures", "south")
    yield _killed("relay", "keys", "west")
    yield _gone("north", "east")
    yield _third_gone("south")


ROWS: Final = tuple(_rows())
"""In the order in which one run can have them: the last two end it."""
if {row.site for row in ROWS} - {"", *NAMES}:
    raise ValueError("a row of no institution")
