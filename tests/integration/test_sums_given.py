"""When the coordinator says that a sum can't come about any more: on the word of institutions."""

import json

import pytest

from common.errors import FederationError
from common.wire import Refusal
from server.attempts import Attempts
from server.outcome import Answers, Course, GivenError
from tests.sums_parties import BODY, STAGES, Federation


@pytest.fixture
def five(tmp_path):
    """Four of five have to stay."""
    made = Federation(tmp_path)
    assert (made.quorum, made.study.secure.min_cohort) == (4, 4)
    return made


def begin_again(federation, path=None):
    """Another life of the coordinator; of its attempts it knows what the file says."""
    federation.forget(path)
    federation.lost, federation.before = set(), lambda *_: None


def cut_off(federation, names):
    """An attempt in which these alone were asked for their vectors, and whose sum got lost."""
    others = set(federation.names) - set(names)
    federation.deaf = {("train", 1, "mask", name) for name in others}
    federation.lost = {("train", 1, "mask", name) for name in names}

    def before(_purpose, _round, stage):
        if len([t for t in federation.trips if t[2] == stage]) > 1:
            raise CutError

    federation.before = before
    with pytest.raises(CutError):
        federation.sum("train", 1)
    federation.deaf = set()


class CutError(Exception):
    """The coordinator is gone."""


def test_what_is_tried_is_on_disk_before_a_request_leaves(five, tmp_path):
    path, seen = tmp_path / "attempts.json", {}
    five.coordinator = five.make_coordinator(Attempts(path))

    def before(purpose, round_, stage):
        seen[stage] = json.loads(path.read_text())[purpose][str(round_)]

    five.before = before
    five.sum("train", 1)
    assert seen["advertise"] == seen["share"] == {"attempts": 1, "asked": False}
    assert seen["mask"] == {"attempts": 1, "asked": True}


def test_where_too_few_have_a_vector_left_institutions_say_so_and_are_named(five):
    gave = five.names[1:3]
    cut_off(five, gave)
    begin_again(five)
    assert not five.coordinator._attempts.asked("train", 1)  # nothing is inferred
    with pytest.raises(GivenError) as caught:
        five.sum("train", 1)
    assert f"{gave[0]}, {gave[1]} say that theirs were given" in caught.value.message
    assert "asked for already" in caught.value.message
    assert "begin a new study" in caught.value.remedy


def test_who_gave_a_vector_is_left_behind_where_the_others_are_enough(five):
    cut_off(five, five.names[:1])
    begin_again(five)
    assert five.sum("train", 1).survivors == five.names[1:]


def test_where_the_others_could_be_enough_the_run_can_go_on(five):
    cut_off(five, five.names[:1])
    begin_again(five)
    five.away = {five.names[4]}
    with pytest.raises(FederationError, match="no sum of updates") as caught:
        five.sum("train", 1)
    assert not isinstance(caught.value, GivenError)
    assert "--resume" in caught.value.remedy
    five.away = set()
    assert five.sum("train", 1).survivors == five.names[1:]


def test_a_quorum_above_the_cohort_counts(tmp_path):
    federation = Federation(tmp_path, quorum=5)
    cut_off(federation, federation.names[:1])
    begin_again(federation)
    federation.deaf = {("train", 1, "mask", name) for name in federation.names[1:]}
    with pytest.raises(GivenError, match=f": {federation.names[0]} say"):
        federation.sum("train", 1)


def test_that_vectors_were_asked_for_is_no_word_of_who_answers_and_gave_none(five):
    five.deaf = {("train", 1, "mask", name) for name in five.names}
    with pytest.raises(FederationError) as caught:
        five.sum("train", 1)
    assert five.coordinator._attempts.asked("train", 1)
    assert not isinstance(caught.value, GivenError)
    five.deaf = set()
    assert five.sum("train", 1).survivors == five.names


def test_where_none_answers_what_was_asked_for_is_not_taken_to_be_given(five, tmp_path):
    path = tmp_path / "attempts.json"
    begin_again(five, path)
    cut_off(five, five.names)
    begin_again(five, path)
    five.away = set(five.names)
    with pytest.raises(FederationError, match="no institution has told since") as caught:
        five.sum("train", 1)
    assert not isinstance(caught.value, GivenError)
    assert "then `fedner server --resume`: they tell" in caught.value.remedy


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_who_answered_and_went_away_has_not_given_what_it_was_asked_for(five, purpose):
    """A `GivenError` here would drop an evaluation for good, though no counts ever left."""
    five.deaf = {(purpose, 1, "mask", name) for name in five.names}

    def before(_purpose, _round, stage):
        five.away = set(five.names) if stage == "mask" else set()

    five.before = before
    with pytest.raises(FederationError) as caught:
        five.sum(purpose, 1)
    assert five.coordinator._attempts.asked(purpose, 1)
    assert not isinstance(caught.value, GivenError)
    assert "no institution has told since" not in caught.value.message
    five.deaf, five.away, five.before = set(), set(), lambda *_: None
    assert five.sum(purpose, 1).survivors == five.names


def test_where_none_answers_and_none_was_asked_the_run_can_go_on(five):
    five.away = set(five.names)
    with pytest.raises(FederationError) as caught:
        five.sum("train", 1)
    assert not isinstance(caught.value, GivenError)


def test_vectors_with_noise_of_their_own_are_never_said_to_be_given(tmp_path):
    federation = Federation(tmp_path, noised=True)
    asked = federation.coordinator._trips._ask

    def ask(kind, round_, body, sums, most, _take, leaving):
        answers = asked(kind, round_, body, sums, most, lambda *_: None, leaving)
        refused = dict.fromkeys(answers.replied, Refusal.SPENT.value)
        return Answers(replied=(), refused=refused, down=0, up=0)

    federation.coordinator._trips._ask = ask
    with pytest.raises(FederationError) as caught:
        federation.sum("train", 1)
    assert not isinstance(caught.value, GivenError)


def test_one_models_vectors_are_given_once_and_institutions_say_so_in_another_round(five):
    five.sum("evaluate", 1, body=BODY)
    with pytest.raises(GivenError, match="or of the very same model"):
        five.sum("evaluate", 2, body=BODY)


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_said_where_the_next_sums_keys_travel_along_is_not_of_this_sum(stage):
    course = Course()
    refused = {"north": Refusal.SPENT.value, "east": Refusal.SUMS.value}
    course.take(stage, Answers(replied=(), refused=refused, down=0, up=0), 0.0)
    assert course.spent == ({"north"} if stage in ("advertise", "mask") else set())
    assert course.answered


def test_what_was_said_in_an_earlier_attempt_still_counts():
    course = Course()
    course.begin()
    course.take("mask", Answers(replied=(), refused={"north": "spent"}, down=0, up=0), 0.0)
    course.begin()
    assert (course.answered, course.spent, course.attempts) == (True, {"north"}, 2)
