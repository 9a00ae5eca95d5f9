"""The coordinator's machine beyond what the hostile suite and the drop-outs show."""

import numpy as np
import pytest

from common.errors import ConfigError
from common.secagg.codec import decode
from common.secagg.errors import BelowThresholdError, OutOfOrderError
from common.secagg.transitions import Phase
from tests.secagg_parties import MODEL, Federation, Parties, parameters

PARTIES = Parties(parameters(5))
REMEMBERED: dict = {}


def reach(stage, **changes):
    return Federation(PARTIES, remembered=REMEMBERED, **changes).reach(stage)


def test_phases_follow_one_another():
    federation = Federation(PARTIES, remembered=REMEMBERED)
    found = []
    for stage in ("advertise", "share", "mask", "sign", "open"):
        found.append(reach(stage).machine.phase)
    assert found == [Phase.ADVERTS, Phase.BOXES, Phase.MASKED, Phase.SIGNATURES, Phase.OPENINGS]
    assert federation.run().machine.phase is Phase.DONE


def test_sum_is_there_when_all_is_done_and_not_before():
    for stage in ("mask", "sign", "open"):
        with pytest.raises(OutOfOrderError, match="not opened"):
            _ = reach(stage).machine.total
    machine = reach(None).machine
    assert machine.total.dtype == np.uint32
    assert np.array_equal(machine.total, PARTIES.plain_sum(range(5)))
    for call in (machine.close, lambda: machine.instruct(MODEL)):
        with pytest.raises(OutOfOrderError, match="done"):
            call()


def test_running_total_is_all_that_is_kept_of_a_vector():
    federation = reach("mask")
    for i, request in federation.requests.items():
        reply = federation.answer("mask", i, request)
        federation.machine.receive(i, reply)
        packed = bytes(decode(reply).packed)
        kept = [v for v in vars(federation.machine).values() if isinstance(v, bytes | dict)]
        assert packed.hex() not in repr(kept)
        assert packed not in [x for v in kept if isinstance(v, dict) for x in v.values()]


def test_model_is_named_when_shares_are_there_and_not_before():
    machine = reach("share").machine
    with pytest.raises(OutOfOrderError, match="no instruction while the phase is boxes"):
        machine.instruct(MODEL)
    federation = reach("share")
    federation.stage("share", federation.requests)
    federation.machine.close()
    with pytest.raises(ConfigError, match="32 bytes"):
        federation.machine.instruct(bytes(31))
    with pytest.raises(OutOfOrderError, match="nothing to close"):
        federation.machine.close()
    assert set(federation.machine.instruct(MODEL)) == {0, 1, 2, 3, 4}


def test_who_sent_a_vector_and_no_signature_is_in_the_sum_and_may_open():
    federation = reach("open", stays={2: 3})
    assert federation.machine.survivors == (0, 1, 2, 3, 4)
    assert 2 in federation.requests
    assert [i for i, _ in decode(federation.requests[2]).signatures] == [0, 1, 3, 4]


def test_abort_names_the_numbers_and_the_missing():
    with pytest.raises(BelowThresholdError) as caught:
        Federation(PARTIES, stays={1: 1, 3: 1}, remembered=REMEMBERED).run()
    assert caught.value.message == (
        "3 of 5 institutions shared keys, the threshold is 4; missing: site-001, site-003"
    )


def test_abort_drops_the_running_total():
    federation = reach("sign")
    federation.machine.abort()
    assert federation.machine.phase is Phase.FAILED
    with pytest.raises(OutOfOrderError):
        _ = federation.machine.total
    assert not any(isinstance(v, np.ndarray) for v in vars(federation.machine).values())


def test_ring_of_forty_is_exact_and_each_deals_to_its_neighbours_only():
    parties = Parties(parameters(40, collusion=1, threshold=30, degree=8, neighbour_threshold=7))
    federation = Federation(parties, stays={7: 2, 20: 3, 31: 0}).run()
    survivors = tuple(i for i in range(40) if i not in (7, 31))
    assert federation.machine.survivors == survivors
    assert np.array_equal(federation.machine.total, parties.plain_sum(survivors))
    boxes = [decode(federation.heard["share", i, "reply"]).boxes for i in range(40) if i != 31]
    assert {len(found) for found in boxes} == {8}


def test_largest_values_of_all_do_not_wrap():
    parties = Parties(parameters(16, bits=16))
    largest = 2**11 - 1
    parties.vector = lambda index, length=2: np.array([largest, 2**16 - largest], np.uint32)
    total = Federation(parties, machine=parties.machine(length=2)).run().machine.total
    assert total.tolist() == [16 * largest, 2**16 - 16 * largest]
