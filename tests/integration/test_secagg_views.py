"""A coordinator that shows two groups two views opens nothing, though each group signs what it saw.

Each lie is told so that every institution takes it: only the others' signatures show that they saw
another. What remains to be lied about, survivors and model, is in `test_secagg_hostile`.
"""

from dataclasses import replace

import pytest

from common.secagg import errors, statements
from common.secagg.codec import decode
from common.secagg.messages import Unmask
from tests.secagg_parties import Federation, Parties, advance, parameters, seed

PARTIES = Parties(parameters(5))
COLLUDER = 4
GROUPS = ((0, 1), (2, 3))


def other_advert(message):
    """The colluder signs a second advert for the same session: its seed is another."""
    advert = replace(message.adverts[COLLUDER], commitment=seed("another"))
    text = statements.advert_text(advert)
    signature = statements.sign(PARTIES.signers[COLLUDER], statements.ADVERT, text)
    adverts = (*message.adverts[:COLLUDER], replace(advert, signature=signature))
    return replace(message, adverts=adverts)


def without_colluders_box(message):
    """As if it had shared no keys, so that it can't be a drop-out."""
    return replace(message, boxes=tuple(box for box in message.boxes if box.peer != COLLUDER))


def tell(federation, stage, rewrite):
    """The second group hears something else; all answer."""
    for index in GROUPS[1]:
        if index in federation.requests:
            other = rewrite(decode(federation.requests[index]))
            federation.requests[index] = PARTIES.signed(other)
    federation.stage(stage, federation.requests)
    federation.requests = federation.machine.close()
    return federation


def signatures(federation, survivors):
    """Of everybody, over what each saw."""
    replies = {i: federation.answer("sign", i, federation.requests[i]) for i in survivors}
    return tuple((i, decode(reply).signature) for i, reply in sorted(replies.items()))


def opens_nothing(federation, survivors, dropped, signed):
    """Neither group unmasks on the signatures of both, or on its own."""
    for group, other in (GROUPS, GROUPS[::-1]):
        index, sets = group[0], {"survivors": survivors, "dropped": dropped[group[0]]}
        unmask = Unmask(session=PARTIES.session(), signatures=signed, **sets)
        with pytest.raises(errors.StatementError) as caught:
            advance(federation.states[index], PARTIES.signed(unmask))
        assert caught.value.peer in {f"site-{i:03d}" for i in (*other, COLLUDER)}
        few = replace(unmask, signatures=tuple(s for s in signed if s[0] in group))
        with pytest.raises(errors.TooFewSignaturesError):
            advance(federation.states[index], PARTIES.signed(few))
    return True


def test_two_adverts_of_a_colluder_to_two_groups_are_refused():
    federation = tell(Federation(PARTIES).reach("share"), "share", other_advert)
    federation.requests = federation.machine.instruct(federation.model)
    federation.stage("mask", federation.requests)
    federation.requests = federation.machine.close()
    everybody = (0, 1, 2, 3, 4)
    signed = signatures(federation, everybody)
    assert opens_nothing(federation, everybody, {0: (), 2: ()}, signed)


def test_a_drop_out_that_only_one_group_hears_of_is_refused():
    federation = Federation(PARTIES, stays={COLLUDER: 2}).reach("mask")
    tell(federation, "mask", without_colluders_box)
    survivors = (0, 1, 2, 3)
    for index in GROUPS[1]:
        told = decode(federation.requests[index])
        assert (told.survivors, told.dropped) == (survivors, (COLLUDER,))
        federation.requests[index] = PARTIES.signed(replace(told, dropped=()))
    signed = signatures(federation, survivors)
    assert opens_nothing(federation, survivors, {0: (COLLUDER,), 2: ()}, signed)
