"""The site: one institution's own file. It never leaves the institution."""

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator
from pydantic.dataclasses import dataclass

from common.config.data import STRICT, Data
from common.config.hours import Window
from common.config.privacy import refusal
from common.config.study import NAME_PATTERN, SHA256_PATTERN
from common.privacy.events import Unit

START_LIMIT_S = 3600.0
"""For which a worker may read before it is ready: a large corpus, a long audit log, a slow disk."""
ADDRESS_PATTERN = r"^[A-Za-z0-9.\-\[\]:]+:[0-9]{1,5}$"
GROUP_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"
ROLE_PATTERN = r"^[^\x00-\x1f\x7f]+$"
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN)]


def _number(value: object) -> str:
    """Tag of a key that is one hash or a list of them: each has its own errors."""
    return "many" if isinstance(value, list | tuple) else "one"


Sha256s = Annotated[
    Annotated[Sha256, Tag("one")] | Annotated[tuple[Sha256, ...], Field(min_length=1), Tag("many")],
    Discriminator(_number),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Budget:
    """How much privacy loss this institution allows for one kind of unit.

    Attributes:
        unit: caps hold for studies on this unit, and refuse studies on a finer one: many
            records' losses would add up to a patient's unseen.
        delta: at which both caps are read.
        epsilon_lifetime: cap on all studies together, by the institution's ledger.
        epsilon_per_study: cap on each study by itself, with the search for its settings.
    """

    unit: Unit
    delta: float = Field(gt=0, lt=1)
    epsilon_lifetime: float | None = Field(default=None, gt=0)
    epsilon_per_study: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _caps_something(self) -> "Budget":
        if self.epsilon_lifetime is None and self.epsilon_per_study is None:
            raise refusal(
                "a budget needs `epsilon_lifetime`, `epsilon_per_study` or both",
                "give a cap, or leave the budget out",
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Signatory:
    """Somebody whose sign-off a study needs here.

    Attributes:
        role: as whom they sign: `ethics committee`.
        public_key: their Ed25519 key, in hexadecimal, learnt from themselves.
    """

    role: str = Field(min_length=1, max_length=80, pattern=ROLE_PATTERN)
    public_key: Sha256


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Policy:
    """What this institution refuses, whatever a study asks.

    Attributes:
        study_sha256: the study hashes this site takes part in, one or a list; that of its own
            study file if absent.
        sign_offs: who must have signed for a study, all of them.
        code_sha256: hash of the installed code of the worker, as it was reviewed; any if absent.
        tasks: kinds of task that a study may have.
        labels: all entity types that a study may predict; whatever it names if absent.
        max_rounds: most rounds of a study.
        min_noise_multiplier: least standard deviation of the noise on whatever leaves, in `clip`s.
        hours: when this site trains and evaluates; always if absent.
        accept_unknown_exclusions: whether the list of the withdrawn may name ids that no document
            here has.
        accept_privacy_none: whether updates may leave without differential privacy.
        accept_secure_aggregation_none: whether the coordinator may see this site's own update.
        accept_one_user: whether worker and relay may run as one OS user: development only.
        budget: caps on the privacy loss, at most one entry per unit. Where there is any, a study
            that none of them can measure is refused.
        minimum_unit: the finest unit that a study with privacy may protect here.
        accept_exact_evaluation: whether a study with privacy may still have exact counts from
            the held-out documents.
        coordinator_key: public key with which the coordinator countersigns this site's privacy
            ledger, in hexadecimal; that of the first receipt is kept if absent.
        accept_insecure_seed: whether noise may follow from a seed in the study: tests only.
        roster_sha256: hash of the one roster that counts here, compared out of band. A study with
            secure aggregation is refused without it.
        accept_semi_honest: whether a study may assume that the coordinator follows the protocol.
        min_cohort: fewest institutions, this one included, whose vectors may be summed and shown.
    """

    study_sha256: Sha256s | None = None
    sign_offs: tuple[Signatory, ...] = ()
    code_sha256: Sha256 | None = None
    tasks: tuple[Literal["ner"], ...] = Field(default=("ner",), min_length=1)
    labels: tuple[str, ...] | None = Field(default=None, min_length=1)
    max_rounds: int | None = Field(default=None, ge=1)
    min_noise_multiplier: float | None = Field(default=None, gt=0)
    hours: tuple[Window, ...] = ()
    accept_unknown_exclusions: bool = False
    accept_privacy_none: bool = False
    accept_secure_aggregation_none: bool = False
    accept_one_user: bool = False
    budget: tuple[Budget, ...] = ()
    minimum_unit: Unit = "record"
    accept_exact_evaluation: bool = False
    accept_insecure_seed: bool = False
    coordinator_key: Sha256 | None = None
    roster_sha256: Sha256 | None = None
    accept_semi_honest: bool = False
    min_cohort: int = Field(default=3, ge=3)

    @model_validator(mode="after")
    def _one_budget_per_unit(self) -> "Policy":
        units = [budget.unit for budget in self.budget]
        if len(set(units)) != len(units):
            raise refusal("two budgets for one unit", "put both caps into one entry")
        return self

    @field_validator("sign_offs")
    @classmethod
    def _each_by_somebody_else(cls, needed: tuple[Signatory, ...]) -> tuple[Signatory, ...]:
        for values in ([one.role for one in needed], [one.public_key for one in needed]):
            if len(set(values)) != len(values):
                raise refusal(
                    "two sign-offs in one role or with one key",
                    "each role has a key of its own, held by somebody else",
                )
        return needed

    @property
    def studies(self) -> tuple[str, ...] | None:
        """The pinned study hashes; `None` if none is pinned."""
        pinned = self.study_sha256
        return (pinned,) if isinstance(pinned, str) else pinned


def require_both_or_neither(authority: str | None, node: str | None) -> None:
    """TLS without node authentication is refused, and the other way round."""
    if (authority is None) != (node is None):
        missing = "authority" if authority is None else "node"
        raise refusal(
            f"TLS and node authentication go together, and `{missing}` is missing",
            "give `authority: ca.crt` and `node: node`, or leave both out to stay on this machine",
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Site:
    """One institution.

    Attributes:
        institution: its name on the study's roster.
        study: path of the site's own, approved copy of the study file.
        data: its documents.
        coordinator: `host:port` of the coordinator. Without `authority` and `node` only a
            loopback address is accepted.
        state: folder for socket, logs and Flower's own state; made with mode 0700.
        device: `auto` takes CUDA when there is one.
        threads: CPU threads of the worker; all cores if absent.
        identity: folder of this institution's long-term key, as `fedner identity new` made it.
        passphrase_file: a file of mode 0600 with the key's passphrase; absent for a key without.
        roster: path of the roster; it counts if `policy.roster_sha256` is its hash.
        sign_offs: folder of the sign-offs that `policy.sign_offs` needs, a file each.
        relay_group: the OS group through which the relay's user, who is another than the worker's,
            reaches the worker's socket; one user if absent, see `policy.accept_one_user`.
        socket: the worker's socket, in a folder of its own; below `state` if absent. With a
            `relay_group` it lies elsewhere, since nobody else may walk through `state`.
        exclude: file of the patients and documents that have withdrawn; read anew for each round.
        authority: certificate of the authority that vouches for the server: TLS, and nothing else.
        node: folder of the node key that the coordinator has registered. Both, or neither.
        start_limit_s: seconds for which `fedner client` waits, when it starts, until the worker is
            ready; it says each minute that it waits.
        policy: what it refuses.
    """

    institution: str = Field(pattern=NAME_PATTERN)
    study: str = Field(min_length=1)
    data: Data
    coordinator: str = Field(pattern=ADDRESS_PATTERN)
    state: str = Field(min_length=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    identity: str | None = Field(default=None, min_length=1)
    passphrase_file: str | None = Field(default=None, min_length=1)
    roster: str | None = Field(default=None, min_length=1)
    sign_offs: str | None = Field(default=None, min_length=1)
    relay_group: str | None = Field(default=None, pattern=GROUP_PATTERN)
    socket: str | None = Field(default=None, min_length=1)
    exclude: str | None = Field(default=None, min_length=1)
    authority: str | None = Field(default=None, min_length=1)
    node: str | None = Field(default=None, min_length=1)
    start_limit_s: float = Field(default=START_LIMIT_S, gt=0)
    policy: Policy = Field(default_factory=Policy)

    @model_validator(mode="after")
    def _both_or_neither(self) -> "Site":
        require_both_or_neither(self.authority, self.node)
        return self

    @model_validator(mode="after")
    def _sign_offs_have_a_folder(self) -> "Site":
        if self.policy.sign_offs and self.sign_offs is None:
            raise refusal(
                "the policy needs sign-offs, and the site names no folder that holds them",
                "add `sign_offs: sign-offs`, a folder for what `fedner policy sign` makes",
            )
        return self

    @model_validator(mode="after")
    def _the_relay_can_get_there(self) -> "Site":
        inside = self.socket is None or PurePath(self.socket).is_relative_to(self.state)
        if self.relay_group is not None and inside:
            raise refusal(
                "with a `relay_group` the socket must not lie in `state`, through which the "
                "relay's user can't walk",
                "add `socket: /run/fedner/NAME/socket`, with /run/fedner of mode 0711",
            )
        return self
