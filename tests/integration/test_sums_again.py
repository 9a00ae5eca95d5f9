"""A noised sum that may have been opened is tried again over exactly the same institutions.

A coordinator dies when shares were given, and does not have the total; or when it was about to ask
for them. Another one goes on, with the file of attempts; who was left behind may be back by then,
and one who was not may be gone.
"""

from contextlib import suppress

import numpy as np
import pytest

from common.errors import FederationError
from common.secagg.errors import OpenedError
from server.attempts import Attempts
from server.outcome import GivenError
from server.patience import Patience
from tests.sums_parties import Federation

LIMIT_S = 20.0
MODES = ("malicious", "semi_honest")
RING = "collusion: 1, threshold: 8, degree: 6, neighbour_threshold: 6"


class CutError(Exception):
    """The coordinator is gone."""


class Lives:
    """A federation whose noised vectors are given again, and the lives of its coordinator.

    Attributes:
        now: of this life; time passes only while somebody sleeps.
        path: of the file of attempts.
    """

    def __init__(self, folder, section="{}", n=5, **more):
        self.parties = Federation(folder, n=n, section=section, noised=True, **more)
        self.names, self.path = self.parties.names, folder / "attempts.json"
        self.begin()

    def begin(self):
        """Another life: nothing but the file is left of the one before."""
        self.now = 0.0
        parties = self.parties
        parties.coordinator = parties.make_coordinator(Attempts(self.path))
        parties.coordinator._patience = Patience(
            limit_s=LIMIT_S, sleep=self._sleep, clock=lambda: self.now
        )
        parties.lost, parties.deaf, parties.before = set(), set(), lambda *_: None
        parties.refused.clear()
        parties.recorded.clear()
        parties.trips.clear()

    def _sleep(self, seconds):
        self.now += seconds

    def die_with_shares_given(self, purpose, round_, *, left_behind=(), gave=None, following=None):
        """Those of `gave` give their shares, or all; no total comes of it."""
        names, parties = self.names, self.parties
        gave = names if gave is None else gave
        parties.deaf = {(purpose, round_, "mask", name) for name in left_behind}
        parties.deaf |= {(purpose, round_, "open", name) for name in names if name not in gave}
        parties.lost = {(purpose, round_, "open", name) for name in names}
        opened = []

        def before(*at):
            if opened:
                raise CutError
            opened.extend(["open"] if at == (purpose, round_, "open") else [])

        parties.before = before
        with pytest.raises(CutError):
            parties.sum(purpose, round_, following)
        self.begin()

    def die_before(self, purpose, round_, stage, *, left_behind=()):
        """When it is about to ask for a stage; it is noted what is noted before."""
        self.parties.deaf = {(purpose, round_, "mask", name) for name in left_behind}

        def before(*at):
            if at == (purpose, round_, stage):
                raise CutError

        self.parties.before = before
        with pytest.raises(CutError):
            self.parties.sum(purpose, round_)
        self.begin()

    def away_until(self, when, *names):
        """At the coordinator's look, and when they are asked."""
        parties = self.parties

        def present():
            parties.away = set(names) if self.now < when else set()
            return [name for name in self.names if name not in parties.away]

        parties.coordinator._present = present

    @property
    def over(self):
        return Attempts(self.path).over("train", 1)

    def bound(self):
        """Who gives shares over one set only, by now."""
        sites = self.parties.sites.items()
        return [name for name, site in sites if site._freshness.opened_over("train", 1)]

    def exact(self, total, names, round_=1):
        assert total.survivors == tuple(n for n in self.names if n in names)
        levels = total.values % np.uint32(1 << self.parties.bits)  # counts go modulo 2^32
        assert np.array_equal(levels, self.parties.plain_sum(names, round_))
        return True


def section(mode):
    return f"{{adversary: {mode}}}"


@pytest.fixture(params=MODES)
def five(request, tmp_path):
    """Four of five have to stay."""
    made = Lives(tmp_path, section(request.param))
    assert made.parties.quorum == 4
    return made


@pytest.fixture
def malicious(tmp_path):
    return Lives(tmp_path, section("malicious"))


# --- what is noted, and when


def test_a_set_that_nobody_could_be_asked_to_open_binds_nobody(five):
    """All are away when the first request that binds would leave, and one does not come back."""
    five.parties.deaf = {("train", 1, "open", name) for name in five.names}
    with pytest.raises(FederationError):
        five.parties.sum("train", 1)
    assert ("train", 1, "open") in [trip[:3] for trip in five.parties.trips]
    assert (five.over, five.bound()) == ((), [])
    five.begin()
    five.away_until(2 * LIMIT_S, five.names[4])
    assert five.exact(five.parties.sum("train", 1), five.names[:4])


@pytest.mark.parametrize(
    ("text", "n", "binds"),
    [
        ("{adversary: malicious}", 5, "open"),
        ("{adversary: semi_honest}", 5, "open"),
        (f"{{adversary: malicious, {RING}}}", 10, "sign"),
        (f"{{adversary: semi_honest, {RING}}}", 10, "open"),
    ],
)
def test_over_whom_is_on_disk_before_the_first_request_that_binds_and_no_earlier(
    tmp_path, text, n, binds
):
    lives, noted, bound = Lives(tmp_path, text, n=n), {}, {}
    lives.parties.deaf = {("train", 1, "mask", lives.names[1])}

    def before(_purpose, _round, stage):
        noted[stage], bound[stage] = lives.over, lives.bound()

    lives.parties.before = before
    survivors = lives.parties.sum("train", 1).survivors
    before("train", 1, "after")
    stages = list(noted)
    at, behind = stages.index(binds), stages.index(binds) + 1
    assert all(noted[stage] == () for stage in stages[:at])
    assert all(noted[stage] == survivors for stage in stages[at:])
    assert all(bound[stage] == [] for stage in stages[: at + 1])
    assert all(bound[stage] == list(survivors) for stage in stages[behind:])


def test_nothing_is_noted_of_vectors_that_are_given_once(tmp_path):
    parties = Federation(tmp_path)
    parties.coordinator = parties.make_coordinator(Attempts(tmp_path / "attempts.json"))
    parties.sum("train", 1)
    assert Attempts(tmp_path / "attempts.json").over("train", 1) == ()


def test_a_set_that_is_not_of_this_study_is_refused(five):
    Attempts(five.path).bind("train", 1, ("elsewhere", five.names[0]))
    five.begin()
    with pytest.raises(FederationError, match="this study has not: elsewhere"):
        five.parties.sum("train", 1)
    assert five.parties.trips == []


# --- shares were given


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
@pytest.mark.parametrize("gave", [None, 1])
def test_after_shares_were_given_the_sum_comes_about_over_the_same_though_another_is_back(
    five, purpose, gave
):
    back, old = five.names[2], [n for n in five.names if n != five.names[2]]
    gave = None if gave is None else old[:gave]
    five.die_with_shares_given(purpose, 1, left_behind=[back], gave=gave)
    total = five.parties.sum(purpose, 1, (purpose, 2))
    assert five.exact(total, old)
    assert total.course["attempts"] == 1
    assert five.parties.refused == []
    assert all(back not in asked for *_, asked in five.parties.trips)
    # and is in the next one again
    assert five.exact(five.parties.sum(purpose, 2), five.names, 2)


def test_within_one_life_a_second_attempt_is_over_the_same(five):
    back, opened = five.names[2], []
    five.parties.deaf = {("train", 1, "mask", back)}
    five.parties.lost = {("train", 1, "open", name) for name in five.names}

    def before(_purpose, _round, stage):
        if opened:
            five.parties.deaf, five.parties.lost = set(), set()
        opened.extend([stage] if stage == "open" else [])

    five.parties.before = before
    total = five.parties.sum("train", 1)
    assert five.exact(total, set(five.names) - {back})
    assert total.course["attempts"] == 2
    assert five.parties.refused == []


def test_after_worker_and_coordinator_were_restarted_it_is_over_the_same(five):
    back = five.names[0]
    five.die_with_shares_given("train", 1, left_behind=[back])
    for name in five.names:
        five.parties.restart(name)
    assert five.exact(five.parties.sum("train", 1), set(five.names) - {back})


def test_a_ring_whose_sum_was_signed_for_is_tried_again_over_the_same(tmp_path):
    lives = Lives(tmp_path, f"{{{RING}}}", n=10)
    back = lives.names[7]
    lives.die_before("train", 1, "open", left_behind=[back])
    assert len(lives.bound()) == 9
    assert lives.exact(lives.parties.sum("train", 1), set(lives.names) - {back})
    assert lives.parties.refused == []


# --- one of them is away


def test_who_is_needed_and_away_for_a_while_is_waited_for(five):
    back, needed = five.names[2], five.names[0]
    five.die_with_shares_given("train", 1, left_behind=[back])
    five.away_until(7.0, needed)
    total = five.parties.sum("train", 1)
    assert five.exact(total, set(five.names) - {back})
    assert total.course["attempts"] == 1
    assert 7.0 <= five.now <= 8.0


def test_who_is_needed_and_gone_for_good_is_named_after_the_limit_with_all_who_are_needed(five):
    back, gone = five.names[2], five.names[0]
    old = [name for name in five.names if name != back]
    five.die_with_shares_given("train", 1, left_behind=[back])
    five.away_until(float("inf"), gone)
    with pytest.raises(FederationError) as caught:
        five.parties.sum("train", 1)
    said = caught.value.message
    assert five.now == LIMIT_S
    assert (
        f"3 of 4 institutions could be reached within 20 s, a sum takes 4; missing: {gone}" in said
    )
    assert f"may have been opened over {', '.join(old)}: who gave shares" in said
    assert "would show one institution's vector" in said
    assert "then `fedner server --resume`" in caught.value.remedy
    assert "If one never comes back: begin a new study" in caught.value.remedy
    assert not isinstance(caught.value, GivenError)
    # nobody was bound to another set by what was tried
    assert {site._freshness.opened_over("train", 1) for site in five.parties.sites.values()} == {
        (0, 1, 3, 4), (),
    }  # fmt: skip
    five.begin()
    five.parties.away = set()
    assert five.exact(five.parties.sum("train", 1), old)


def test_one_of_them_that_misses_a_stage_ends_the_attempt_before_anything_that_binds(five):
    """Else those who gave no shares before would give them over others, and bind themselves."""
    late, gave = five.names[4], five.names[:1]
    for stage in ("advertise", "share", "mask"):
        five.die_with_shares_given("train", 1, gave=gave)
        five.parties.deaf = {("train", 1, stage, late)}
        done = []

        def before(_purpose, _round, at, done=done, stage=stage):
            if stage in done and at == "advertise":
                five.parties.deaf = set()
            done.append(at)

        five.parties.before = before
        total = five.parties.sum("train", 1)
        assert five.exact(total, five.names)
        assert total.course["attempts"] == 2
        assert done.count("sign") <= 1
        assert done.count("open") == 1
        (ended,) = [
            figures["reason"] for event, figures in five.parties.recorded if event == "abort"
        ]
        did = "sent a vector" if stage == "mask" else "sent keys"
        assert ended == (
            f"4 of 5 over whom its sum may have been opened already {did}; missing: {late}"
        )


# --- over others, where that can't make it worse


def test_a_set_that_was_noted_and_never_asked_to_open_does_not_block(malicious):
    gone = malicious.names[0]
    malicious.die_before("train", 1, "open")
    assert malicious.over == malicious.names
    malicious.away_until(float("inf"), gone)
    total = malicious.parties.sum("train", 1)
    assert malicious.now == LIMIT_S
    assert malicious.exact(total, set(malicious.names) - {gone})
    assert malicious.over == total.survivors


def test_who_gave_shares_does_not_sign_for_others_and_the_others_can_be_enough(tmp_path):
    eight = Lives(tmp_path, n=8)
    assert eight.parties.study.secure.threshold == 6
    gave, gone = eight.names[:1], eight.names[7]
    eight.die_with_shares_given("train", 1, gave=gave)
    eight.away_until(float("inf"), gone)
    total = eight.parties.sum("train", 1)
    assert eight.exact(total, set(eight.names) - {gone})
    assert {name for name, e in eight.parties.refused if isinstance(e, OpenedError)} == set(gave)


def test_too_few_who_are_free_leave_the_old_set_as_it_was(malicious):
    gave, gone = malicious.names[:2], malicious.names[4]
    malicious.die_with_shares_given("train", 1, gave=gave)
    malicious.away_until(float("inf"), gone)
    with pytest.raises(FederationError, match="; the last since 2 of 5 institutions signed"):
        malicious.parties.sum("train", 1)
    assert malicious.over == malicious.names
    assert malicious.bound() == list(gave)
    malicious.begin()
    malicious.parties.away = set()
    assert malicious.exact(malicious.parties.sum("train", 1), malicious.names)


def test_one_who_is_there_and_always_fails_is_left_behind_for_one_who_was_not_needed(malicious):
    broken, other = malicious.names[0], malicious.names[1]
    malicious.die_before("train", 1, "open", left_behind=[other])
    malicious.parties.deaf = {("train", 1, "mask", broken)}
    total = malicious.parties.sum("train", 1)
    assert malicious.exact(total, set(malicious.names) - {broken})
    assert total.course["attempts"] == 4


@pytest.mark.parametrize(
    ("text", "n"),
    [("{adversary: semi_honest}", 5), (f"{{{RING}}}", 10)],
)
def test_where_the_first_to_answer_would_be_bound_nobody_else_is_asked(tmp_path, text, n):
    lives = Lives(tmp_path, text, n=n)
    gone = lives.names[0]
    lives.die_before("train", 1, "open")
    lives.away_until(float("inf"), gone)
    with pytest.raises(FederationError, match=f"missing: {gone}") as caught:
        lives.parties.sum("train", 1)
    assert "after 1 attempt" in caught.value.message
    assert lives.parties.trips == []
    assert lives.over == lives.names


# --- keys fetched ahead


def test_keys_fetched_ahead_are_of_the_same_institutions(five):
    """The evaluation is lost with its line of the metrics, and due again before the next round."""
    back, old = five.names[2], [n for n in five.names if n != five.names[2]]
    five.parties.sum("train", 1)
    five.parties.sum("evaluate", 1)
    five.die_with_shares_given("train", 2, left_behind=[back])
    evaluated = five.parties.sum("evaluate", 1, ("train", 2))
    assert five.exact(evaluated, five.names)
    trained = five.parties.sum("train", 2)
    assert five.exact(trained, old, 2)
    assert trained.course["trips"] == 3
    assert trained.course["attempts"] == 1


def test_keys_fetched_ahead_without_one_of_them_are_void(five):
    missing = five.names[2]
    five.parties.sum("train", 1)
    five.parties.deaf = {("evaluate", 1, "mask", missing)}
    five.parties.sum("evaluate", 1)
    five.parties.deaf = set()
    five.die_with_shares_given("train", 2)
    five.parties.sum("evaluate", 1, ("train", 2))
    trained = five.parties.sum("train", 2)
    assert five.exact(trained, five.names, 2)
    assert trained.course["trips"] > 3
    assert trained.course["attempts"] == 1


# --- the quorum, before a vector is asked for


@pytest.mark.parametrize("stage", ["advertise", "share"])
def test_below_the_studys_quorum_no_vector_is_asked_for(tmp_path, stage):
    parties = Federation(tmp_path, quorum=5)
    late = parties.names[0]
    parties.deaf = {("train", 1, stage, late)}
    with pytest.raises(
        FederationError, match=f"sent keys, the study's quorum is 5; missing: {late}"
    ):
        parties.sum("train", 1)
    asked = {trip[2] for trip in parties.trips}
    assert asked == ({"advertise"} if stage == "advertise" else {"advertise", "share"})
    assert not parties.coordinator._attempts.asked("train", 1)
    parties.deaf = set()
    assert parties.sum("train", 1).survivors == parties.names  # nothing was given in vain


def test_keys_fetched_ahead_by_fewer_than_the_quorum_bring_no_model(tmp_path):
    parties = Federation(tmp_path, quorum=5)
    late, present = parties.names[0], parties.coordinator._present
    parties.deaf = {("train", 1, "sign", late)}
    parties.sum("train", 1, ("train", 2))
    looks = []

    def fewer():
        looks.append(len(looks))
        return present() if len(looks) == 1 else [n for n in parties.names if n != late]

    parties.coordinator._present = fewer
    with suppress(FederationError):
        parties.sum("train", 2)
    assert "mask" not in {trip[2] for trip in parties.trips if trip[1] == 2 and len(trip[4]) < 5}
