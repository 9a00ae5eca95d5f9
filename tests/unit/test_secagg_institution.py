"""One institution's machine beyond what the hostile suite shows: table, durability, secrets."""

import copy
import pickle

import numpy as np
import pytest

from common.errors import ConfigError, DataError, ProtocolError
from common.secagg import institution, vectors
from common.secagg.codec import decode
from common.secagg.errors import FailedError, OutOfOrderError, SecaggError
from common.secagg.machine import Machine
from common.secagg.messages import Kind
from common.secagg.packing import pack, unpack
from common.secagg.pipeline import Packed
from common.secagg.states import Idle
from common.secagg.transitions import INSTITUTION, SEMI_HONEST, Local, Phase, Stage, after, rows
from tests.secagg_parties import STAGES, Federation, Parties, advance, bytes_of, parameters

PARTIES = Parties(parameters(5))
REMEMBERED: dict = {}


def reach(stage, parties=PARTIES, **changes):
    return Federation(
        parties, remembered=REMEMBERED if parties is PARTIES else None, **changes
    ).reach(stage)


@pytest.mark.parametrize("adversary", ["malicious", "semi_honest"])
def test_machine_takes_exactly_the_path_of_the_table(adversary):
    threshold = 4 if adversary == "malicious" else 3
    parties = Parties(parameters(5, adversary=adversary, threshold=threshold))
    federation = Federation(parties)
    path = [federation.states[0].stage]
    answer = federation.answer

    def watched(stage, index, message):
        before = federation.states[index]
        event = decode(message).kind
        reply = answer(stage, index, message)
        if index == 0:
            stages = [before.stage]
            stages.append(after(before.stage, event, adversary))
            if stages[-1] is Stage.INSTRUCTED:
                stages.append(after(stages[-1], Local.VECTOR, adversary))
            assert federation.states[0].stage is stages[-1]
            path.extend(stages[1:])
        return reply

    federation.answer = watched
    federation.run()
    assert path == [Stage.IDLE, *rows(adversary).values()]


def test_tables_lead_from_every_stage_to_the_next_and_from_failure_nowhere():
    assert [to for _, to in INSTITUTION.items()] == list(Stage)[1:-1]
    assert {stage for stage, _ in (INSTITUTION | SEMI_HONEST)} == set(Stage) - {
        Stage.OPENED, Stage.FAILED,
    }  # fmt: skip
    for event in (*Kind, *Local):
        with pytest.raises(FailedError):
            after(Stage.FAILED, event, "malicious")


@pytest.mark.parametrize(
    "kind", [Kind.ADVERT, Kind.BOXES, Kind.MASKED, Kind.CONSISTENT, Kind.OPENING]
)
def test_replies_are_no_requests(kind):
    for stage in list(Stage)[:-1]:
        with pytest.raises(OutOfOrderError):
            after(stage, kind, "malicious")


@pytest.mark.parametrize("stage", STAGES)
def test_reply_comes_with_what_must_be_durable_first(stage):
    federation = reach(stage)
    step = advance(federation.states[0], federation.requests[0], 0)
    if stage == "mask":
        assert (step.reply, step.durable, step.state.stage) == (b"", None, Stage.INSTRUCTED)
        step = institution.submit(step.state, PARTIES.vector(0))
    assert step.durable.stage is step.state.stage
    assert step.durable.session == PARTIES.session()
    assert len(step.durable.reply_sha256) == 64


@pytest.mark.parametrize("stage", STAGES)
def test_number_of_random_bytes_is_exact(stage):
    federation = reach(stage)
    state = federation.states[0]
    wanted = institution.random_bytes(state)
    assert wanted == {"advertise": 96, "share": 32}.get(stage, 0)
    for n in {wanted - 1, wanted + 1} - {-1}:
        with pytest.raises(ConfigError, match=f"expected {wanted}"):
            institution.receive(state, federation.requests[0], bytes(n))


def test_same_inputs_give_the_same_bytes_and_other_random_bytes_others():
    federation = reach("share")
    state, request = federation.states[0], federation.requests[0]
    replies = [institution.receive(state, request, bytes_of(32, name)).reply for name in "aab"]
    assert replies[0] == replies[1] != replies[2]


def test_refusal_in_the_middle_keeps_the_vector():
    federation = reach("mask")
    step = advance(federation.states[0], federation.requests[0], 0)
    for wrong in (np.zeros(5, np.int64), np.zeros((2, 2), np.uint32)):
        with pytest.raises(DataError):
            institution.submit(step.state, wrong)
    assert institution.submit(step.state, PARTIES.vector(0)).reply


def test_masked_vector_is_unlike_the_vector_and_fresh_in_each_session():
    length = 4096
    found = []
    for session in (PARTIES.session(1, 1), PARTIES.session(1, 2)):
        federation = Federation(PARTIES, machine=PARTIES.machine(session, length)).reach("mask")
        step = advance(federation.states[0], federation.requests[0], 0)
        vector = np.zeros(length, np.uint32)
        masked = decode(institution.submit(step.state, vector).reply)
        found.append(unpack(masked.packed, length, 24))
        assert not vector.any()  # it is only read
    for vector in found:
        bits = np.unpackbits(vector.view(np.uint8)).reshape(length, 32).sum(axis=0)
        # of 24 bits; 5 sigma of length fair coins
        assert (bits[bits > 0].size, vector.max() < 1 << 24) == (24, True)
        assert np.abs(bits[bits > 0] - length / 2).max() < 5 * np.sqrt(length / 4)
    assert np.count_nonzero(found[0] == found[1]) < 5


def test_packed_levels_give_the_reply_of_the_vector_and_broken_ones_keep_the_state():
    federation = reach("mask")
    step = advance(federation.states[0], federation.requests[0], 0)
    vector = PARTIES.vector(0)
    stream = pack(vector, 24)
    for wrong in (stream[:-1], stream + b"\0"):
        with pytest.raises(ProtocolError):
            institution.submit(step.state, Packed(stream=wrong, length=len(vector)))
    reply = institution.submit(step.state, Packed(stream=stream, length=len(vector))).reply
    assert reply == institution.submit(step.state, vector).reply


def test_threads_do_not_change_a_byte(monkeypatch):
    monkeypatch.setattr(vectors, "PASSES_A_THREAD", 1)
    federation = Federation(PARTIES, machine=PARTIES.machine(length=100_000)).reach("mask")
    step = advance(federation.states[0], federation.requests[0], 0)
    replies = [institution.submit(step.state, PARTIES.vector(0, 100_000), threads).reply
               for threads in (1, 3)]  # fmt: skip
    assert replies[0] == replies[1]


SECRET_FIELDS = ("secrets", "own", "shares", "advert")


@pytest.mark.parametrize(
    ("stage", "left"),
    [("share", {"secrets", "advert"}), ("mask", {"secrets", "own"}), ("sign", {"shares"}),
     ("open", {"shares"}), (None, set())],
)  # fmt: skip
def test_secrets_are_held_no_longer_than_they_are_needed(stage, left):
    federation = reach(stage)
    state = federation.states[0]
    assert {name for name in SECRET_FIELDS if hasattr(state, name)} == left


def secrets_of(federation):
    found = []
    for state in federation.states.values():
        if hasattr(state, "secrets"):
            found += [state.secrets.box_key, state.secrets.mask_key, state.secrets.seed]
        for shares in getattr(state, "shares", {}).values():
            found += [shares.key, shares.seed]
    return found


@pytest.mark.parametrize("stage", ["share", "mask", "sign", "open"])
def test_states_do_not_print_secrets_and_are_not_pickled_or_copied(stage):
    federation = reach(stage)
    secrets = secrets_of(federation)
    assert secrets
    shown = repr(list(federation.states.values()))
    for secret in secrets:
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled or copied"):
            leak(federation.states[0])


@pytest.mark.parametrize("stage", ["share", "mask", "sign", "open"])
def test_institution_may_give_up_for_its_own_reasons(stage):
    federation = reach(stage)
    step = institution.abort(federation.states[0], "privacy budget")
    assert (step.state.stage, step.state.reason, step.reply) == (
        Stage.FAILED,
        "privacy budget",
        b"",
    )
    assert not any(hasattr(step.state, name) for name in SECRET_FIELDS)
    with pytest.raises(FailedError):
        advance(step.state, federation.requests[0])
    with pytest.raises(FailedError):
        institution.submit(step.state, PARTIES.vector(0))


def test_nothing_to_give_up_before_a_session():
    idle = Idle(party=PARTIES.party(0), newest={})
    assert institution.abort(idle, "bored").state is idle


def test_two_sessions_live_side_by_side():
    """The next session's keys and shares ride on this one's last stages."""
    first = reach("sign")
    following = Federation(PARTIES, machine=PARTIES.machine(PARTIES.session(2)))
    ahead = following.reach("share")
    first.stage("sign", first.requests)
    first.requests = first.machine.close()
    ahead.stage("share", ahead.requests)
    first.stage("open", first.requests)
    first.machine.close()
    ahead.machine.close()
    ahead.requests = ahead.machine.instruct(bytes(32))
    for stage in ("mask", "sign", "open"):
        ahead.stage(stage, ahead.requests)
        ahead.requests = ahead.machine.close()
    for federation in (first, ahead):
        assert np.array_equal(federation.machine.total, PARTIES.plain_sum(range(5)))


def test_machine_keeps_the_new_state_and_the_old_one_after_a_refusal():
    asked = []

    def random(n):
        asked.append(n)
        return bytes_of(n, "random", len(asked))

    machines = [Machine(PARTIES.party(i), {}, random) for i in range(5)]
    coordinator = PARTIES.machine()
    requests = coordinator.invite()
    while requests:
        for i, request in requests.items():
            before = machines[i].stage
            with pytest.raises(SecaggError):
                machines[i].receive(request[:-1])
            assert machines[i].stage is before
            step = machines[i].receive(request)
            if step.state.stage is Stage.INSTRUCTED:
                step = machines[i].submit(PARTIES.vector(i))
            assert machines[i].stage is step.state.stage
            assert machines[i].receive(request).reply == step.reply
            coordinator.receive(i, step.reply)
        requests = coordinator.close()
        if coordinator.phase is Phase.MODEL:
            requests = coordinator.instruct(bytes(32))
    assert np.array_equal(coordinator.total, PARTIES.plain_sum(range(5)))
    assert {machine.stage for machine in machines} == {Stage.OPENED}


def test_machine_that_gave_up_answers_nothing():
    machine = Machine(PARTIES.party(0), {}, lambda n: bytes_of(n, "random"))
    request = PARTIES.machine().invite()[0]
    machine.receive(request)
    machine.abort("maintenance")
    with pytest.raises(FailedError):
        machine.receive(request)
    assert "random" not in repr(machine)
