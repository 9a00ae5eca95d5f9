"""Who is behind which node: a hello to each new one, whose answer is taken whenever it comes.

Guarantees:
    - Greeting waits for nobody. A hello goes out beside what else there is to send, one at a time
      to each node, and its answer is looked for with all others.
    - A trip may wait for nodes that were greeted and have not said who they are, but for each only
      within `grace_s` of its first hello, and never over a fixed part of the study's deadline. A
      node that says nothing, or a part of an answer, costs all trips of a run together no more than
      that; only an answer gives it another grace. Where nodes don't authenticate, all that nobody
      knows have one grace together, whatever numbers they come under; only an institution that is
      taken in, or makes room for another of its nodes, gives them another.
    - A silent node is greeted again, after pauses that double; a node that went away, as soon as it
      is back. So one that is slow at first is taken in later.
    - Who refuses, or can't be taken in, is asked again too, and no trip waits for it: soon where
      the cause may pass by itself (a full disk, a clock), every few minutes otherwise. Why is said
      once, and when it changes.
    - Where nodes authenticate, a node is taken in only under the name of the institution whose key
      it has; what it says under another name counts for nobody. Nodes of institutions that are not
      in the study are not greeted.
    - A name off the roster, a name that another living node has, or another model than the
      study began with: said, and not taken in.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from common.config.canonical import study_hash
from common.config.study import Study
from common.errors import ProtocolError
from common.wire import UNKNOWN, Reply, decode_reply
from common.wire import Refusal as ProtocolRefusal
from server.mail import Letter, Lost, Mail, Pace, doubled

log = logging.getLogger("fedner.server")

_FINAL: Final = frozenset({ProtocolRefusal.POLICY.value, ProtocolRefusal.STUDY.value})
"""Refusals of a `hello` that stay until a person has mended something at the institution."""

_HELLO_BYTES: Final = 1 << 16
"""Of an answer to a hello, which has a few names and hashes."""

_FIRST_HELLO_S: Final = 30.0
_LONGEST_HELLO_S: Final = 480.0
"""How long an answer to the first hello counts, and to a late one, each twice the last."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
"""After a hello that came back as an error, or a refusal that may pass, each twice the last."""
_MENDED_PAUSE_S: Final = 300.0
"""After an answer that a person has to mend something for."""


@dataclass(slots=True)
class _Silent:
    """A node that has not said who it is.

    Attributes:
        tries: hellos since it was last away.
        message: the hello that is out.
        due: when it is greeted next.
        behind: the living node that has its name; it is not greeted before that is gone.
        refused: why its last answer did not let it in, and `refusals`, how often; it is not waited
            for.
    """

    tries: int = 0
    message: str = ""
    due: float = -inf
    behind: int | None = None
    refused: str = ""
    refusals: int = 0


class Greeter:
    """Knows the nodes of one run.

    Args:
        on_seen: told an institution's name and `joined`, `back`, or why it is not taken in.
        owners: institution by node id, where nodes authenticate.
    """

    def __init__(
        self,
        mail: Mail,
        study: Study,
        pace: Pace,
        on_seen: Callable[[str, str], None],
        owners: Mapping[int, str] | None,
    ):
        self._mail, self._pace, self._on_seen, self._owners = mail, pace, on_seen, owners
        self._study = study_hash(study)
        self._roster = study.federation.institutions
        self._required = study.federation.required
        self._grace_s = pace.grace(study.federation.deadline_s)
        self._nodes: dict[int, str] = {}
        self._silent: dict[int, _Silent] = {}
        self._grace_ends: dict[int | None, float] = {}
        self._foreign: set[int] = set()
        self._final: set[str] = set()
        self._facts: dict[str, object] = {}
        self._online: frozenset[int] = frozenset()
        self._looked = -inf
        self.hello = Letter(())
        self.started = False
        """Whether the model is settled: who joins later must have the same."""

    @property
    def nodes(self) -> Mapping[int, str]:
        """Institutions that were taken in, by node."""
        return self._nodes

    @property
    def online(self) -> Collection[int]:
        """Nodes that could be reached at the last look."""
        return self._online

    @property
    def present(self) -> frozenset[str]:
        """Institutions taken in whose nodes were online at the last look."""
        return frozenset(name for node, name in self._nodes.items() if node in self._online)

    @property
    def hopeless(self) -> bool:
        """Whether all others are here, or final refusals leave too few for the quorum."""
        here = set(self._nodes.values())
        refused = self._final - here
        left = len(self._roster) - len(refused)
        return bool(refused) and (left < self._required or left == len(here))

    def awaited(self, names: Collection[str]) -> bool:
        """Whether a node that may be one of these is within its grace."""
        now = self._pace.clock()
        return any(
            now < self._grace_ends[self._grace_of(node)]
            for node, silent in self._silent.items()
            if node in self._online
            and silent.behind is None
            and not silent.refused
            and self._may_be(node, names)
        )

    def look(self, *, anew: bool = False) -> dict[str, Reply]:
        """Greet who is new, and hear who has answered; who was taken in.

        Args:
            anew: look for nodes even if that was done a moment ago.
        """
        now = self._pace.clock()
        if anew or now >= self._looked + self._pace.look_s:
            self._looked = now
            self._see(frozenset(self._mail.online()))
            self._greet(now)
        return self._hear(now)

    def _see(self, online: frozenset[int]) -> None:
        """What is known of nodes that are away is forgotten, but not that they were silent."""
        self._online = online
        gone = self._silent.keys() - online
        self._mail.drop([self._silent.pop(node).message for node in gone])

    def _grace_of(self, node: int) -> int | None:
        """Whose grace a node's is: its own where it is known whose node it is."""
        return None if self._owners is None else node

    def _greet(self, now: float) -> None:
        unknown = self._online - self._nodes.keys()
        due = [node for node in sorted(unknown) if self._is_ours(node) and self._is_due(node, now)]
        waits: dict[float, list[int]] = {}
        for node in due:
            waits.setdefault(self._begin(node, now), []).append(node)
        for wait_s, nodes in waits.items():
            hellos = dict.fromkeys(nodes, self.hello)
            sent = self._mail.send("hello", 0, hellos, wait_s, _HELLO_BYTES)
            for node, message in zip(nodes, sent, strict=True):
                self._silent[node].message = message

    def _begin(self, node: int, now: float) -> float:
        """Note that a node is greeted; for how long."""
        silent = self._silent.setdefault(node, _Silent())
        self._mail.drop([silent.message])
        if silent.behind is not None:  # it has answered once, and its name is free now
            self._grace_ends.pop(self._grace_of(node), None)
        self._grace_ends.setdefault(self._grace_of(node), now + self._grace_s)
        wait_s = doubled(_FIRST_HELLO_S, _LONGEST_HELLO_S, silent.tries)
        silent.tries, silent.due, silent.behind = silent.tries + 1, now + wait_s, None
        return wait_s

    def _is_due(self, node: int, now: float) -> bool:
        silent = self._silent.get(node)
        return silent is None or (now >= silent.due and silent.behind not in self._online)

    def _is_ours(self, node: int) -> bool:
        """Whether a node may be of the study; else it is said once."""
        if self._may_be(node, self._roster):
            return True
        if node not in self._foreign:
            self._foreign.add(node)
            owner = self._owner(node)
            log.warning("node %d, of %s, is not greeted: not on the roster", node, owner)
            self._on_seen(owner, "not on the roster")
        return False

    def _may_be(self, node: int, names: Collection[str]) -> bool:
        if self._owners is None:
            return bool(names)
        return self._owners.get(node) in names

    def _owner(self, node: int) -> str:
        return (self._owners or {}).get(node, f"node {node}")

    def _hear(self, now: float) -> dict[str, Reply]:
        out = {silent.message: node for node, silent in self._silent.items() if silent.message}
        answers = dict(self._mail.fetch(tuple(out), _HELLO_BYTES)) if out else {}
        taken = {}
        for message, data in sorted(answers.items(), key=lambda answer: out[answer[0]]):
            reply = self._hear_one(out[message], data, now)
            if reply is not None:
                taken[reply.institution] = reply
        return taken

    def _hear_one(self, node: int, data: bytes | Lost, now: float) -> Reply | None:
        silent = self._silent[node]
        silent.message = ""
        if isinstance(data, Lost):
            pause_s = doubled(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, silent.tries - 1)
            silent.due = now + pause_s
            return None
        if self._owners is not None:
            self._grace_ends.pop(node, None)
        return self._introduce(node, data)

    def _introduce(self, node: int, data: bytes) -> Reply | None:
        try:
            reply = decode_reply(data)
        except ProtocolError as error:
            self._refuse(node, error.message)
            return None
        name = reply.institution
        owner = self._owner(node) if self._owners is not None else name
        is_nameless = name == UNKNOWN and bool(reply.refusal)  # its worker could not say more
        claims = owner != name and not is_nameless
        problem = f"claims to be {name}" if claims else self._problem(reply)
        before = next((n for n, other in self._nodes.items() if other == name), None)
        if problem:
            self._refuse(node, problem, owner, is_passing=problem == reply.refusal)
            return None
        if before is not None and before in self._online:
            self._silent[node] = _Silent(behind=before)
            self._say(node, name, "another node has this name")
            return None
        self._take_in(node, reply, before)
        return reply

    def _take_in(self, node: int, reply: Reply, before: int | None) -> None:
        name = reply.institution
        del self._silent[node]
        if before is not None:
            del self._nodes[before]
        self._nodes[node] = name
        self._grace_ends.pop(None, None)
        for other in self._silent:
            self._grace_ends.setdefault(self._grace_of(other), self._pace.clock() + self._grace_s)
        self._final.discard(name)
        self._facts = self._facts or reply.facts
        log.info("%s is %s", name, "here" if before is None else "back")
        self._on_seen(name, "joined" if before is None else "back")

    def _refuse(self, node: int, problem: str, name: str = "", *, is_passing: bool = False) -> None:
        """Not now.

        Args:
            name: whose node it is, or says it is; empty where it has not said.
            is_passing: the institution itself refused; for some causes a person is needed even so.
        """
        silent = self._silent[node]
        is_final = problem in _FINAL
        if is_final and name in self._roster:
            self._final.add(name)
        elif is_passing:
            self._final.discard(name)
        pause_s = doubled(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, silent.refusals)
        silent.due = self._pace.clock() + (
            pause_s if is_passing and not is_final else _MENDED_PAUSE_S
        )
        is_news, silent.refused = problem != silent.refused, problem
        silent.refusals += 1
        if is_news:
            self._say(node, name, problem)

    def _say(self, node: int, name: str, problem: str) -> None:
        whose = f", {name}," if name else ""
        log.warning("node %d%s is not taken in: %s", node, whose, problem)
        if name:
            self._on_seen(name, problem)

    def _problem(self, reply: Reply) -> str:
        if reply.refusal:
            return reply.refusal
        if reply.kind != "hello" or reply.round != 0 or reply.study != self._study:
            return "answered something else"
        if reply.institution not in self._roster:
            return "not on the roster"
        fixed = self.started or reply.institution in self._nodes.values()
        return "came with another model" if fixed and reply.facts != self._facts else ""
