"""What stands between an institution's data and what leaves it: plan, ledger, vault, fresh noise.

Guarantees:
    * Nothing is computed on the data before its charge is on disk; see `common.io.release`.
    * The same request again gets the same bytes and is charged once.
    * Noise and sampling are drawn anew for every computation, from the operating system, unless
      the study has an insecure seed.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from common.config.canonical import study_hash
from common.config.privacy import LocalPrivacy
from common.config.site import Policy
from common.config.study import Study
from common.errors import BudgetError, ConfigError, ProtocolError
from common.io.ledger_file import LedgerFile
from common.io.ledger_folder import Check
from common.io.release import release
from common.io.vault import Vault, VaultName
from common.metrics.evaluation import Evaluation
from common.privacy.events import GaussianSteps
from common.privacy.keystream import Keystream, Seed
from common.privacy.ledger import Charge, caps_of
from common.privacy.ledger_entries import Purpose, Receipt
from common.privacy.ledger_state import LedgerState, Reserved
from common.privacy.noise import check_truncation
from common.privacy.outlook import in_words, outlook
from common.privacy.plan import Plan, plan_of

log = logging.getLogger("fedner.worker")

_DATASET: Final = "all documents"
"""One ledger covers all that an institution holds: its data sets compose."""
_INSECURE: Final = " (insecure seed: not private)"

Keys = Callable[[str], Keystream]
"""Makes the keystream of one use. Each use once."""
Compute = Callable[[Keys], bytes]
"""Touches the data; gives the bytes that may leave."""


class Guard:
    """One institution's protection in one study with mechanism `local`.

    Args:
        ledger: open; this institution's.
        dimension: number of trained weights.
        random: source of random bytes.

    Raises:
        BudgetError: the noise's own error is not small against the study's delta.
    """

    def __init__(
        self,
        study: Study,
        institution: str,
        policy: Policy,
        ledger: LedgerFile,
        vault: Vault,
        dimension: int,
        random: Callable[[int], bytes] = os.urandom,
    ):
        self.plan: Plan = plan_of(study, institution)
        self.privacy: LocalPrivacy = _local(study)
        self._study = study
        self._hash = study_hash(study)
        self._institution = institution
        self._caps = caps_of(policy.budget)
        self._ledger = ledger
        self._vault = vault
        self._random = random
        self._bytes: dict[Purpose, int] = {
            "train": 4 * dimension, "evaluate": 8 * Evaluation.size(study.task.labels),
        }  # fmt: skip
        self._forget_others()
        check_truncation(dimension, self.plan.noise_draws, self.plan.delta, self.plan.epsilon)
        self._warn_of_what_no_longer_fits()

    @property
    def state(self) -> LedgerState:
        """What the ledger says."""
        return self._ledger.state

    @property
    def head(self) -> str:
        """How far the ledger goes, to be countersigned."""
        return str(self._ledger.head)

    def close(self) -> None:
        """Give the ledger's lock back."""
        self._ledger.close()

    def hear(self, receipts: Mapping[str, Mapping[str, Any]], *, vouched: bool = False) -> None:
        """Check and record what the coordinator has countersigned of this ledger.

        Args:
            vouched: whether the coordinator's identity has signed for them.

        Raises:
            BudgetError: it has seen more than this ledger holds: an old copy was restored.
            ProtocolError: not a receipt.
        """
        receipt = receipts.get(self._institution)
        if receipt is not None:
            self._ledger.anchor(_receipt(receipt), vouched=vouched)

    def train(self, round_: int, model: bytes, compute: Compute) -> bytes:
        """The update of a round, charged once: bytes that have been noised."""
        return self._release("train", round_, model, self.plan.training_event, compute)

    def evaluate(self, round_: int, model: bytes, compute: Compute) -> bytes:
        """The noised counts of a round, charged once.

        Raises:
            ConfigError: the study's counts are exact: they are not charged, and not for here.
        """
        event = self.plan.evaluation_event
        if event is None:
            raise ConfigError("exact counts have no event to charge")
        return self._release("evaluate", round_, model, event, compute)

    def _release(
        self, purpose: Purpose, round_: int, model: bytes, event: GaussianSteps, compute: Compute
    ) -> bytes:
        charge = self._charge(purpose, round_, model, (event,))

        def fresh(reserved: Reserved) -> bytes:
            return compute(self._keystreams(f"{purpose}/{round_}/{reserved.body.attempt}"))

        size = self._bytes[purpose]
        first = self._charge_search
        return release(self._ledger, self._vault, charge, self._caps, fresh, size, first)

    def _charge(
        self, purpose: Purpose, round_: int, model: bytes, events: tuple[GaussianSteps, ...]
    ) -> Charge:
        return Charge(
            study=self._hash,
            name=self._study.study + self._mark(),
            round=round_,
            purpose=purpose,
            request=hashlib.sha256(model).hexdigest(),
            unit=self.privacy.unit,
            dataset=_DATASET,
            events=events,
            delta=self.plan.delta,
            target=max(self.plan.epsilon, self.privacy.epsilon or 0.0),
        )

    def _charge_search(self) -> None:
        """The runs on private data that the study declares, once, before its own first charge."""
        if not self.plan.search_events:
            return
        charge = self._charge("search", 0, b"", self.plan.search_events)
        if not self._ledger.attempts(charge):
            self._ledger.reserve(charge, self._caps)

    def _mark(self) -> str:
        """In the ledger for ever: whoever knows the seed can take this study's noise off."""
        return _INSECURE if self.privacy.insecure_seed is not None else ""

    def _keystreams(self, use: str) -> Keys:
        number = self.privacy.insecure_seed
        seed = Seed(self._random(32), insecure=False) if number is None else Seed.for_tests(number)
        if seed.insecure:
            log.warning("INSECURE SEED: the noise of %s can be computed by anyone", use)
        label = f"fedner dp v1/{self._hash}/{self._institution}/{use}"
        return lambda purpose: Keystream(seed.value, f"{label}/{purpose}")

    def _warn_of_what_no_longer_fits(self) -> None:
        """In time, before more is spent on a study that can't be finished as it is."""
        kept = self._vault.stored()
        said = in_words(outlook(self._study, self.plan, self.state, self._caps, kept))
        if said:
            log.warning("study %s: %s", self._study.study, said)

    def _forget_others(self) -> None:
        """Drop the vectors of other studies and of ledgers that this one was recovered from; what
        is no reserve of these stays. This study's stay: a coordinator that starts it again gets
        the same bytes for the same requests, and nothing is charged twice.
        """
        state = self._ledger.state
        others = {VaultName.of(r) for r in state.reserves.values() if r.body.study != self._hash}
        self._vault.prune(others, state.recovered.ledgers if state.recovered else ())


def open_guard(
    study: Study,
    institution: str,
    policy: Policy,
    folder: Path,
    size: int,
    check: Check = lambda _state: None,
) -> Guard:
    """The guard over the ledger and the vault of one folder, which stays locked.

    Args:
        size: number of trained weights.
        check: as of `LedgerFile.open`: what is known of the ledger elsewhere.

    Raises:
        BudgetError: the ledger is in use or can't be trusted.
    """
    ledger = LedgerFile.open(folder, institution, check=check, counterpart=policy.coordinator_key)
    try:
        return Guard(study, institution, policy, ledger, Vault(folder), size)
    except BaseException:
        ledger.close()
        raise


def _local(study: Study) -> LocalPrivacy:
    if study.local_privacy is None:
        raise BudgetError(f"study {study.study} has no mechanism to guard")
    return study.local_privacy


def _receipt(content: Mapping[str, Any]) -> Receipt:
    try:
        return Receipt(**content)
    except (TypeError, ValueError):
        raise ProtocolError("a receipt has not exactly its keys, or a wrong value") from None
