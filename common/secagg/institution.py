"""An institution's machine: `(state, message, random bytes) -> (state, reply)`.

    step = receive(state, message, random)      for each message of the coordinator
    step = submit(state, levels)                when the work of an instruction is done

Guarantees, for one institution that keeps what `Step.durable` says before it sends `Step.reply`:
    * Each stage is answered once. The same request gets the same bytes, another is refused.
    * No session is begun that is not newer than the newest of its purpose, so a restart, which
      loses the state, ends the session for this institution.
    * Nothing is computed, let alone trained, for a request that the coordinator's identity did not
      sign as it stands, for this very session.
    * Of one peer either the seed's share is given out or the key's, never both; and only after
      `t` institutions have signed exactly this institution's view (adversary `malicious`).
    * Over whom a sum may be opened is in `Step.durable`, and no other sum of the same vectors is
      signed for, or opened where nothing is signed (`Party.opened_over`). Any two sets of `t`
      institutions share an honest one, as `2 t > n + h`: so nobody learns two such sums. With all
      as neighbours, `t` open; on a ring fewer can, so there signing counts.
    * A message that is refused leaves the state as it was. Below threshold or cohort the session
      is over: `Step.aborted` says why, and the secrets are gone with the old state.
    * Where a box does not open, `complaint` has whose for the coordinator, and nothing else.

Random bytes come with the call: `random_bytes(state)` says how many.
"""

import hashlib

from common.errors import ConfigError
from common.privacy.keystream import SEED_BYTES
from common.secagg import checks, dealing, statements
from common.secagg.codec import adverts_digest, decode, encode, encode_masked
from common.secagg.errors import (
    Aborted,
    ChangedSetsError,
    MalformedError,
    OutOfOrderError,
    OwnAdvertError,
    SecaggError,
    WrongSenderError,
)
from common.secagg.graph import make_graph
from common.secagg.keys import SECRETS_BYTES, Secrets
from common.secagg.messages import (
    Adverts,
    Boxes,
    Consistent,
    Instruction,
    Invitation,
    Message,
    Opening,
    Survivors,
    Unmask,
)
from common.secagg.pipeline import Levels, mask_levels, require_levels
from common.secagg.requests import require_request
from common.secagg.session import Party, Session
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
    require_request(state, asked.session, message)
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


def complaint(state: State, error: SecaggError) -> bytes:
    """What to send for an error that `receive` raised; empty but for a box that does not open."""
    told = dealing.complaint(state, error)
    return b"" if told is None else statements.testified(state.party.signer, told)


def submit(state: State, levels: Levels, threads: int = 1) -> Step:
    """Mask the vector that an instruction asked for.

    Args:
        levels: uint32, of which the low `k` bits count, or a packed stream; only read.
        threads: how many parts of it are worked on at once.

    Raises:
        SecaggError: no instruction waits for one.
        DataError, ProtocolError: another kind of array; a stream of another length.
    """
    party = state.party
    after(state.stage, Local.VECTOR, party.context.parameters.adversary)
    if not isinstance(state, Instructed):
        raise OutOfOrderError("a vector that no instruction waits for")
    bits = party.context.parameters.bits
    require_levels(levels, bits)
    masks = dealing.masks(state)

    def write(room: memoryview) -> None:
        mask_levels(room, levels, bits, masks, threads=threads)

    reply = encode_masked(state.session, party.index, len(levels), bits, write)
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
    secrets = Secrets.of(random)
    advert = dealing.make_advert(party, session, secrets)
    answered = _answered(session, Stage.ADVERTISED, request, encode(advert))
    following = Advertised(
        party=party, session=session, answered=answered, secrets=secrets, advert=advert
    )
    return _step(following)


def _share(state: Advertised, told: Adverts, request: bytes, random: bytes) -> Step:
    party, session = state.party, state.session
    _require_adverts(state, told)
    adverts = {advert.sender: advert for advert in told.adverts}
    digest = adverts_digest(told)
    degree = party.context.parameters.degree
    neighbours = make_graph(tuple(adverts), degree, session.to_bytes(), digest).neighbours(
        party.index
    )
    dealt = dealing.deal_shares(state, neighbours, random)
    boxes = dealing.boxed(state, adverts, dealt)
    reply = statements.testified(
        party.signer, Boxes(session=session, sender=party.index, boxes=boxes)
    )
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


def _instruct(state: Shared, told: Instruction, request: bytes) -> Step:
    party, session = state.party, state.session
    if told.receiver != party.index:
        raise WrongSenderError("an instruction for another institution", peer="coordinator")
    shares = {box.peer: dealing.unboxed(state, box) for box in told.boxes} | {
        party.index: state.own
    }
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
    bound = () if party.context.parameters.degree is None else told.survivors
    following = Signed(
        party=party,
        session=session,
        answered=_answered(session, Stage.SIGNED, request, reply, bound),
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
    reply = statements.testified(party.signer, opening)
    answered = _answered(session, Stage.OPENED, request, reply, told.survivors)
    return _step(Opened(party=party, session=session, answered=answered))


def _answered(
    session: Session, stage: Stage, request: bytes, reply: bytes, survivors: tuple[int, ...] = ()
) -> Answered:
    digest = hashlib.sha256(reply).hexdigest()
    durable = Durable(session=session, stage=stage, reply_sha256=digest, survivors=survivors)
    return Answered(request=request, reply=reply, durable=durable)


def _step(
    state: Advertised | Shared | Instructed | Masked | Signed | Opened,
) -> Step:
    return Step(state=state, reply=state.answered.reply, durable=state.answered.durable)


def _failed(party: Party, session: Session, error: Aborted) -> Step:
    return Step(state=Failed(party=party, session=session, reason=error.message), aborted=error)
