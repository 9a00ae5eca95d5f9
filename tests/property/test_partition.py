"""Partitions: complete, whole units, no empty institution, independent of order; and each kind."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.draws import Draws
from common.data.partition import Kind, PartitionOptions, partition
from common.data.records import Document, span
from common.errors import DataError

NAMES = ("a", "b", "c")
EQUAL = (0.5, 0.25, 0.25)
KINDS: tuple[Kind, ...] = ("document", "iid", "dirichlet", "size")


def _document(unit: int, note: int, labels: str, known: bool) -> Document:
    return Document(
        doc_id=f"d{unit}-{note}",
        text="x" * 20,
        entities=tuple(span(i, i + 1, label) for i, label in enumerate(labels)),
        patient_id=f"p{unit}" if known else None,
    )


@st.composite
def _corpora(draw: st.DrawFn) -> tuple[Document, ...]:
    """At least eight units, so that no proportion of `EQUAL` is too small for one."""
    units = draw(st.integers(8, 25))
    return tuple(
        _document(unit, note, draw(st.text("DSM", max_size=4)), known)
        for unit in range(units)
        for known in [draw(st.booleans())]
        for note in range(draw(st.integers(1, 4)))
    )


def _options(kind: Kind, seed: int = 1, alpha: float = 0.3) -> PartitionOptions:
    return PartitionOptions(
        kind=kind,
        seed=seed,
        alpha=alpha if kind == "dirichlet" else None,
        proportions=EQUAL if kind == "size" else None,
    )


_ALL = given(_corpora(), st.sampled_from(KINDS), st.integers(0, 2**64))


def _ids(parts: dict[str, tuple[Document, ...]]) -> dict[str, set[str]]:
    return {name: {d.doc_id for d in part} for name, part in parts.items()}


def _units(part: tuple[Document, ...]) -> set[str]:
    return {d.unit_id for d in part}


@_ALL
def test_every_document_lands_exactly_once_in_its_order(
    corpus: tuple[Document, ...], kind: Kind, seed: int
) -> None:
    parts = partition(corpus, NAMES, _options(kind, seed))
    assert tuple(parts) == NAMES
    landed = Counter(d.doc_id for part in parts.values() for d in part)
    assert landed == Counter(d.doc_id for d in corpus)
    place = {d.doc_id: i for i, d in enumerate(corpus)}
    for part in parts.values():
        assert [place[d.doc_id] for d in part] == sorted(place[d.doc_id] for d in part)


@_ALL
def test_no_unit_is_at_two_institutions_and_no_institution_is_empty(
    corpus: tuple[Document, ...], kind: Kind, seed: int
) -> None:
    parts = partition(corpus, NAMES, _options(kind, seed))
    homes = Counter(unit for part in parts.values() for unit in _units(part))
    assert set(homes.values()) == {1}
    assert all(parts.values())


@_ALL
def test_the_order_of_documents_does_not_matter(
    corpus: tuple[Document, ...], kind: Kind, seed: int
) -> None:
    options = _options(kind, seed)
    assert _ids(partition(corpus, NAMES, options)) == _ids(partition(corpus[::-1], NAMES, options))


@given(_corpora(), st.integers(0, 999))
def test_document_balances_units_to_within_one(corpus: tuple[Document, ...], seed: int) -> None:
    sizes = [len(_units(p)) for p in partition(corpus, NAMES, _options("document", seed)).values()]
    assert max(sizes) - min(sizes) <= 1


@given(_corpora(), st.integers(0, 999))
def test_iid_balances_documents_to_within_the_largest_unit(
    corpus: tuple[Document, ...], seed: int
) -> None:
    sizes = [len(p) for p in partition(corpus, NAMES, _options("iid", seed)).values()]
    assert max(sizes) - min(sizes) <= max(Counter(d.unit_id for d in corpus).values())


@given(_corpora(), st.integers(0, 999))
def test_size_is_within_one_unit_of_the_proportions(
    corpus: tuple[Document, ...], seed: int
) -> None:
    parts = partition(corpus, NAMES, _options("size", seed))
    total = len(_units(corpus))
    for part, proportion in zip(parts.values(), EQUAL, strict=True):
        assert abs(len(_units(part)) - proportion * total) < 1


def _labelled(units: int, labels: str) -> tuple[Document, ...]:
    return tuple(_document(u, 0, labels[u % len(labels)], True) for u in range(units))


def _skew(corpus: tuple[Document, ...], alpha: float, density: bool = False) -> float:
    """Mean total-variation distance of the institutions' label mix from the whole's."""

    def mix(part: tuple[Document, ...]) -> dict[str, float]:
        keys = [str(len(d.entities)) if density else d.entities[0].label for d in part]
        return {key: n / len(keys) for key, n in Counter(keys).items()}

    whole, distances = mix(corpus), []
    for seed in range(20):
        for part in partition(corpus, NAMES, _options("dirichlet", seed, alpha)).values():
            here = mix(part)
            distances.append(sum(abs(here.get(k, 0) - v) for k, v in whole.items()) / 2)
    return sum(distances) / len(distances)


def test_dirichlet_skews_labels_more_the_smaller_alpha_is() -> None:
    corpus = _labelled(120, "DSM")
    assert _skew(corpus, 0.05) > 0.4
    assert _skew(corpus, 1.0) < _skew(corpus, 0.05) - 0.1
    assert _skew(corpus, 1000.0) < 0.05


def test_dirichlet_skews_density_where_all_units_share_one_label() -> None:
    corpus = tuple(_document(u, 0, "D" * (1 + u % 3), True) for u in range(120))
    assert _skew(corpus, 0.05, density=True) > 0.4
    assert _skew(corpus, 1000.0, density=True) < 0.05


def test_dirichlet_fills_an_institution_that_would_be_empty() -> None:
    corpus = _labelled(5, "D")
    names = ("a", "b", "c", "d", "e")
    for seed in range(20):
        parts = partition(corpus, names, _options("dirichlet", seed, 0.001))
        assert [len(part) for part in parts.values()] == [1] * 5


def test_dirichlet_draws_have_the_mean_and_variance_of_the_distribution() -> None:
    for alpha in (0.1, 1.0, 5.0):
        draws = Draws(5, "test", str(alpha))
        sample = [draws.dirichlet(alpha, 4)[0] for _ in range(4000)]
        mean = sum(sample) / len(sample)
        variance = sum((x - mean) ** 2 for x in sample) / len(sample)
        expected = 0.25 * 0.75 / (4 * alpha + 1)
        assert abs(mean - 0.25) < 4 * math.sqrt(expected / 4000)
        assert abs(variance / expected - 1) < 0.12


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_gives_another_partition(kind: Kind) -> None:
    corpus = _labelled(60, "DSM")
    outcomes = [_ids(partition(corpus, NAMES, _options(kind, seed))) for seed in (1, 2)]
    assert outcomes[0] != outcomes[1]


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_units_than_institutions_are_refused(kind: Kind) -> None:
    corpus = tuple(_document(u, n, "D", True) for u in range(2) for n in range(5))
    with pytest.raises(DataError, match="cannot fill") as caught:
        partition(corpus, NAMES, _options(kind))
    assert caught.value.remedy


def test_a_proportion_too_small_for_one_unit_is_refused() -> None:
    options = PartitionOptions(kind="size", seed=1, proportions=(0.9, 0.09, 0.01))
    with pytest.raises(DataError, match="too small") as caught:
        partition(_labelled(10, "D"), NAMES, options)
    assert caught.value.place == "c"


def test_as_many_proportions_as_institutions_are_needed() -> None:
    options = PartitionOptions(kind="size", seed=1, proportions=(0.5, 0.5))
    with pytest.raises(DataError, match="2 proportions for 3"):
        partition(_labelled(10, "D"), NAMES, options)


@pytest.mark.parametrize("names", [(), ("a", "a"), ("a", "")])
def test_names_must_be_different_and_not_empty(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="names"):
        partition(_labelled(10, "D"), names, _options("iid"))


def test_a_repeated_document_id_is_refused() -> None:
    with pytest.raises(DataError, match="more than once"):
        partition(_labelled(10, "D") * 2, NAMES, _options("iid"))


@pytest.mark.parametrize("alpha", [None, 0.0, -1.0, math.nan, math.inf, 1e-9])
def test_a_bad_alpha_is_refused(alpha: float | None) -> None:
    with pytest.raises(DataError, match="alpha") as caught:
        PartitionOptions(kind="dirichlet", seed=1, alpha=alpha)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "proportions", [None, (), (0.5, 0.6), (1.0, 0.0), (1.5, -0.5), (math.nan, 1.0)]
)
def test_bad_proportions_are_refused(proportions: tuple[float, ...] | None) -> None:
    with pytest.raises(DataError, match="proportions") as caught:
        PartitionOptions(kind="size", seed=1, proportions=proportions)
    assert caught.value.remedy


def test_an_option_without_use_is_refused() -> None:
    with pytest.raises(DataError, match="alpha has no use"):
        PartitionOptions(kind="iid", seed=1, alpha=0.5)
    with pytest.raises(DataError, match="proportions has no use"):
        PartitionOptions(kind="document", seed=1, proportions=(1.0,))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(DataError, match="unknown partition"):
        PartitionOptions(kind="random", seed=1)  # type: ignore[arg-type]


def test_partitions_are_the_same_everywhere() -> None:
    corpus = _labelled(6, "DS")
    for kind in KINDS:
        parts = partition(corpus, NAMES, _options(kind))
        assert ["".join(d.doc_id[1] for d in part) for part in parts.values()] == GOLDEN[kind]


GOLDEN: dict[Kind, list[str]] = {
    "document": ["25", "03", "14"],
    "iid": ["04", "23", "15"],
    "dirichlet": ["3", "0124", "5"],
    "size": ["035", "24", "1"],
}
