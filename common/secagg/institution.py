"""An institution's machine: `(state, message, random bytes) -> (state, reply)`.

    step = receive(state, message, random)      for each message of the coordinator
    step = submit(state, vector)                when the work of an instruction is done

Guarantees, for one institution that keeps what `Step.durable` says before it sends `Step.reply`:
    * Each stage is answered once. The same request gets the same bytes, another is refused.
    * No session is begun that is not newer than the newest of its purpose, so a restart, which
      loses the state, ends the session for this institution.
    * Nothing is computed, let alone trained, for an invitation or instruction that the
      coordinator's identity did not sign for this very session and model.
    * Of one peer either the seed's share is given out or the key's, never both; and only after
      `t` institutions have signed exactly this institution's view (adversary `malicious`).
    * A message that is refused leaves the state as it was. Below threshold or cohort the session
      is over: `Step.aborted` says why, and the secrets are gone with the old state.

Random bytes come with the call: `random_bytes(state)` says how many.
"""

import hashlib
from dataclasses import replace
from typing import Final

from common.errors import ConfigError
from common.privacy.keystream import SEED_BYTES, Keystream
from common.secagg import checks, keys, statements
from common.secagg.codec import adverts_digest, decode, encode, encode_masked
from common.secagg.errors import (
    Aborted,
    ChangedSetsError,
    MalformedError,
    OutOfOrderError,
    OwnAdvertError,
    StaleError,
    UnknownInstitutionError,
    UnsignedError,
    WrongRosterError,
    WrongSenderError,
    WrongSessionError,
    WrongStudyError,
)
from common.secagg.graph import make_graph
from common.secagg.keys import SECRETS_BYTES, Secrets, Shares
from common.secagg.masks import Mask, add_masks_
from common.secagg.messages import (
    Advert,
    Adverts,
    Box,
    Boxes,
    Consistent,
    Instruction,
    Invitation,
    Message,
    Opening,
    Survivors,
    Unmask,
)
from common.secagg.session import Party, Session
from common.secagg.shamir import deal
from common.secagg.states import (
    Advertised,
    Answered,
    Durable,
    Failed,
    Idle,
    Instructed,
    Masked,
    Opened,
    Shared,
    Signed,
    State,
    Step,
)
from common.secagg.transitions import Local, Stage, after
from common.secagg.vectors import Vector

_SHARES: Final = "fedner secagg shares v1"


def random_bytes(state: State) -> int:
    """How many secret uniform bytes the next message needs."""
    return {Stage.IDLE: SECRETS_BYTES, Stage.ADVERTISED: SEED_BYTES}.get(state.stage, 0)


def receive(state: State, message: bytes, random: bytes = b"") -> Step:
    """Answer a message of the coordinator.

    Args:
        message: as it came.
        random: `random_bytes(state)` bytes, never used before.

    Raises:
        SecaggError: the message breaks a rule; go on with the old state.
        ConfigError: another number of random bytes.
    """
    asked = decode(message)
    _require_session(state, asked.session)
    request = hashlib.sha256(message).digest()
    if not isinstance(state, Idle | Failed) and state.answered.request == request:
        return Step(state=state, reply=state.answered.reply, durable=state.answered.durable)
    after(state.stage, asked.kind, state.party.context.parameters.adversary)
    if len(random) != random_bytes(state):
        raise ConfigError(f"{len(random)} random bytes, expected {random_bytes(state)}")
    try:
        return _answer(state, asked, request, random)
    except Aborted as error:
        return _failed(state.party, asked.session, error)


def abort(state: State, reason: str) -> Step:
    """End a session for a reason of the institution's own; its secrets go with the old state."""
    if isinstance(state, Idle | Failed):
        return Step(state=state)
    return _failed(state.party, state.session, Aborted(reason))


def submit(state: State, vector: Vector, threads: int = 1) -> Step:
    """Mask the vector that an instruction asked for.

    Args:
        vector: uint32, values modulo `2^k`. It is overwritten: what is left is the masked one.
        threads: how many parts of it are worked on at once.

    Raises:
        SecaggError: no instruction waits for one.
        DataError: another kind of array.
    """
    party = state.party
    after(state.stage, Local.VECTOR, party.context.parameters.adversary)
    if not isinstance(state, Instructed):
        raise OutOfOrderError("a vector that no instruction waits for")
    bits = party.context.parameters.bits
    add_masks_(vector, _masks(state), bits, threads)
    reply = encode_masked(state.session, party.index, vector, bits, threads)
    return _step(
        Masked(
            party=party,
            session=state.session,
            answered=_answered(state.session, Stage.MASKED, state.answered.request, reply),
            members=frozenset(state.adverts),
            adverts_digest=state.adverts_digest,
            neighbours=state.neighbours,
            model=state.model,
            shares=state.shares,
        )
    )


def _require_session(state: State, session: Session) -> None:
    context = state.party.context
    if session.study != context.study:
        raise WrongStudyError("a message of another study", peer="coordinator")
    if session.roster != context.roster:
        raise WrongRosterError("a message under another roster", peer="coordinator")
    if isinstance(state, Idle):
        _require_newer(state, session)
    elif session != state.session:
        raise WrongSessionError(
            f"{_called(session)}, this session is {_called(state.session)}", peer="coordinator"
        )


def _require_newer(idle: Idle, session: Session) -> None:
    newest = idle.newest.get(session.purpose)
    if newest is not None and session.order <= newest:
        raise StaleError(
            f"{_called(session)}, but {newest[0]}.{newest[1]} was begun already",
            peer="coordinator",
        )


def _called(session: Session) -> str:
    return f"{session.purpose} {session.round}.{session.attempt}"


def _answer(state: State, asked: Message, request: bytes, random: bytes) -> Step:
    """What each row of the transition table does."""
    match state, asked:
        case Idle() as idle, Invitation() as invitation:
            return _advertise(idle, invitation, request, random)
        case Advertised() as advertised, Adverts() as adverts:
            return _share(advertised, adverts, request, random)
        case Shared() as shared, Instruction() as instruction:
            return _instruct(shared, instruction, request)
        case Masked() as masked, Survivors() as survivors:
            return _sign(masked, survivors, request)
        case Signed() as signed, Unmask() as unmask:
            return _open(signed, unmask, request)
        case Masked() as masked, Unmask() as unmask:
            return _open_unsigned(masked, unmask, request)
    raise OutOfOrderError(f"{asked.kind.name.lower()} to a session that is {state.stage}")


def _advertise(idle: Idle, invitation: Invitation, request: bytes, random: bytes) -> Step:
    party, session = idle.party, invitation.session
    text = statements.invitation_text(session)
    _require_coordinator(party, statements.INVITATION, text, invitation.signature)
    secrets = Secrets.of(random)
    advert = _advert(party, session, secrets)
    answered = _answered(session, Stage.ADVERTISED, request, encode(advert))
    following = Advertised(
        party=party, session=session, answered=answered, secrets=secrets, advert=advert
    )
    return _step(following)


def _require_coordinator(party: Party, label: bytes, text: bytes, signature: bytes) -> None:
    if not statements.verified(party.context.coordinator, label, text, signature):
        raise UnsignedError("the coordinator did not sign this", peer="coordinator")


def _advert(party: Party, session: Session, secrets: Secrets) -> Advert:
    unsigned = Advert(
        session=session,
        sender=party.index,
        box_key=keys.public_key(secrets.box_key),
        mask_key=keys.public_key(secrets.mask_key),
        commitment=keys.commitment(session, party.index, secrets.seed),
        signature=b"",
    )
    text = statements.advert_text(unsigned)
    return replace(unsigned, signature=statements.sign(party.signer, statements.ADVERT, text))


def _share(state: Advertised, told: Adverts, request: bytes, random: bytes) -> Step:
    party, session = state.party, state.session
    _require_adverts(state, told)
    adverts = {advert.sender: advert for advert in told.adverts}
    digest = adverts_digest(told)
    degree = party.context.parameters.degree
    neighbours = make_graph(tuple(adverts), degree, session.to_bytes(), digest).neighbours(
        party.index
    )
    dealt = _deal(state, neighbours, random)
    boxes = tuple(_box(state, adverts[peer], dealt[peer]) for peer in sorted(neighbours))
    reply = encode(Boxes(session=session, sender=party.index, boxes=boxes))
    following = Shared(
        party=party,
        session=session,
        answered=_answered(session, Stage.SHARED, request, reply),
        secrets=state.secrets,
        adverts=adverts,
        adverts_digest=digest,
        neighbours=neighbours,
        own=dealt[party.index],
    )
    return _step(following)


def _require_adverts(state: Advertised, told: Adverts) -> None:
    party = state.party
    for advert in told.adverts:
        checks.require_listed(party.context, advert.sender)
        if advert.sender != party.index:
            checks.require_advert(party.context, advert)
    if state.advert not in told.adverts:
        raise OwnAdvertError("this institution's keys are not those it sent", peer="coordinator")
    checks.require_distinct(party.context, told.adverts)
    senders = [advert.sender for advert in told.adverts]
    checks.require_enough(party.context, senders, party.cohort, "sent keys")


def _deal(state: Advertised, neighbours: frozenset[int], random: bytes) -> dict[int, Shares]:
    """Shares of the mask key and of the seed, by holder; this institution is one of them."""
    threshold = state.party.context.parameters.share_threshold
    holders = sorted(neighbours | {state.party.index})
    draw = Keystream(random, _SHARES).bytes
    of_key = deal(state.secrets.mask_key, threshold, holders, draw)
    of_seed = deal(state.secrets.seed, threshold, holders, draw)
    return {holder: Shares(key=of_key[holder], seed=of_seed[holder]) for holder in holders}


def _box(state: Advertised, receiver: Advert, shares: Shares) -> Box:
    session, own = state.session, state.party.index
    key = keys.box_key(state.secrets.box_key, receiver.box_key, session, own, receiver.sender, own)
    return keys.seal(key, session, own, receiver.sender, shares)


def _instruct(state: Shared, told: Instruction, request: bytes) -> Step:
    party, session = state.party, state.session
    text = statements.instruction_text(session, told.model)
    _require_coordinator(party, statements.INSTRUCTION, text, told.signature)
    if told.receiver != party.index:
        raise WrongSenderError("an instruction for another institution", peer="coordinator")
    shares = {box.peer: _unboxed(state, box) for box in told.boxes} | {party.index: state.own}
    checks.require_neighbours(party.context, party.index, len(shares), "shared keys")
    following = Instructed(
        party=party,
        session=session,
        answered=Answered(request=request, reply=b"", durable=None),
        secrets=state.secrets,
        adverts=state.adverts,
        adverts_digest=state.adverts_digest,
        neighbours=state.neighbours,
        model=told.model,
        shares=shares,
    )
    return _step(following)


def _unboxed(state: Shared, box: Box) -> Shares:
    context, own = state.party.context, state.party.index
    if box.peer not in state.neighbours:
        raise UnknownInstitutionError(
            f"a box of {context.name(box.peer)}, no neighbour", peer="coordinator"
        )
    public = state.adverts[box.peer].box_key
    key = keys.box_key(state.secrets.box_key, public, state.session, box.peer, own, own)
    return keys.unseal(key, state.session, box, own, context.name(box.peer))


def _masks(state: Instructed) -> list[Mask]:
    session, own, secrets = state.session, state.party.index, state.secrets
    pairs = [
        keys.pair_mask(secrets.mask_key, state.adverts[peer].mask_key, session, own, peer)
        for peer in state.shares
        if peer != own
    ]
    return [keys.self_mask(secrets.seed, session, own), *pairs]


def _require_told(state: Masked, told: Survivors | Unmask) -> None:
    holders = state.neighbours | {state.party.index}
    checks.require_sets(state.party, state.members, holders, state.shares, told)


def _sign(state: Masked, told: Survivors, request: bytes) -> Step:
    party, session = state.party, state.session
    _require_told(state, told)
    view = statements.view_text(
        session, state.adverts_digest, state.model, told.survivors, told.dropped
    )
    signature = statements.sign(party.signer, statements.VIEW, view)
    reply = encode(Consistent(session=session, sender=party.index, signature=signature))
    following = Signed(
        party=party,
        session=session,
        answered=_answered(session, Stage.SIGNED, request, reply),
        survivors=told.survivors,
        dropped=told.dropped,
        view=view,
        shares=state.shares,
    )
    return _step(following)


def _open(state: Signed, told: Unmask, request: bytes) -> Step:
    if (told.survivors, told.dropped) != (state.survivors, state.dropped):
        raise ChangedSetsError("other sets than were signed", peer="coordinator")
    checks.require_signatures(state.party, state.view, told)
    return _opened(state, told, request)


def _open_unsigned(state: Masked, told: Unmask, request: bytes) -> Step:
    """Where the study trusts the coordinator's view: adversary `semi_honest`."""
    _require_told(state, told)
    if told.signatures:
        raise MalformedError("signatures in a study without a consistency stage")
    return _opened(state, told, request)


def _opened(state: Masked | Signed, told: Unmask, request: bytes) -> Step:
    """One share of each dealer: of the seed if it survived, of the key if it did not."""
    party, session, shares = state.party, state.session, state.shares
    opening = Opening(
        session=session,
        sender=party.index,
        seeds=tuple((i, shares[i].seed) for i in told.survivors if i in shares),
        keys=tuple((i, shares[i].key) for i in told.dropped if i in shares),
    )
    answered = _answered(session, Stage.OPENED, request, encode(opening))
    return _step(Opened(party=party, session=session, answered=answered))


def _answered(session: Session, stage: Stage, request: bytes, reply: bytes) -> Answered:
    digest = hashlib.sha256(reply).hexdigest()
    durable = Durable(session=session, stage=stage, reply_sha256=digest)
    return Answered(request=request, reply=reply, durable=durable)


def _step(
    state: Advertised | Shared | Instructed | Masked | Signed | Opened,
) -> Step:
    return Step(state=state, reply=state.answered.reply, durable=state.answered.durable)


def _failed(party: Party, session: Session, error: Aborted) -> Step:
    return Step(state=Failed(party=party, session=session, reason=error.message), aborted=error)
