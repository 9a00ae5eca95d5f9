"""A coordinator that dies with shares given, while one who had dropped out comes back.

Those who gave shares take part in that sum over the same institutions only. The run goes on over
these, and comes to the weights that it would have come to.
"""

import pytest

from tests.integration.test_resume import PRIVATE, PRIVATE_TRAINING, Interrupted, reserves
from tests.secure_runs import NAMES, bench_of

BACK = NAMES[3]
OLD = NAMES[:3]


class Four(Interrupted):
    """One of four may be missing."""

    names = NAMES


def drops_out(run, asked):
    """Of the first round's sum, as long as the coordinator has not died."""
    at = (asked.name, asked.stage, asked.purpose, asked.round)
    return "deaf" if at == (BACK, "mask", "train", 1) and not run.crashed else None


@pytest.fixture(scope="module")
def bench(tiny_study, tmp_path_factory):
    sections = {
        "privacy": PRIVATE,
        "training": PRIVATE_TRAINING,
        "model": "{train: head, dropout: 0}",
        "aggregation": "{average: 0.5}",
    }
    return bench_of(tiny_study, tmp_path_factory.mktemp("base"), **sections)


@pytest.fixture(scope="module")
def undisturbed(bench, tmp_path_factory):
    run = Four(bench, tmp_path_factory.mktemp("undisturbed"), drops_out)
    with run.institutions():
        run.coordinate()
    return run


@pytest.mark.parametrize("gave", [1, 2])
def test_a_run_whose_coordinator_dies_with_shares_given_goes_on_though_another_is_back(
    bench, undisturbed, tmp_path, gave
):
    opened = []

    def fault(run, asked):
        if (asked.stage, asked.purpose, asked.round) == ("open", "train", 1):
            if len(opened) == gave:
                run.crash_once()
            opened.append(asked.name)
        return drops_out(run, asked)

    run = Four(bench, tmp_path, fault).crash_and_resume()
    first, second = (event["sum"]["survivors"] for event in run.run.events("round"))
    assert (first, second) == (list(OLD), list(NAMES))
    assert run.run.events("refusal") == run.run.events("abort") == []
    assert run.delta.tobytes() == undisturbed.delta.tobytes()
    assert set(run.rounded.values()) == {1}
    for name in NAMES:
        assert reserves(run, name) == reserves(undisturbed, name)
    assert run.run.status()["state"] == "finished"
