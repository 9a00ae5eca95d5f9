"""The head of a run's card: metadata with the scores of its last evaluation, for model hubs."""

from dataclasses import dataclass

from common.card import UNKNOWN_LICENCE, Evaluated, front_matter
from server.origin import ORIGIN
from server.run_dir import RunDir


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What no study says of a model; see `common.card.front_matter`."""

    licence: str = UNKNOWN_LICENCE
    language: str | None = None


def head_of(run: RunDir, facts: Facts | None = None, after: int | None = None) -> str:
    """Metadata of a run's model, with the scores of its last evaluation.

    Args:
        after: the round after which the model is; its own evaluation, or none, is then taken.
    """
    facts = facts or Facts()
    evaluated = _evaluated(run, after)
    return front_matter(run.study(), evaluated, licence=facts.licence, language=facts.language)


def _evaluated(run: RunDir, after: int | None) -> Evaluated | None:
    found = [e for e in run.events("evaluation") if after is None or e["round"] == after]
    if not found:
        return None
    last = found[-1]
    simulated = "" if (run.path / ORIGIN).exists() else "simulated "
    noise = ", counts with noise" if last["noised"] else ""
    on = f"held-out documents of {len(last['institutions'])} {simulated}institutions{noise}"
    return Evaluated(on=on, entities=last["entities"])
