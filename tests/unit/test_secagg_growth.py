"""The growth bench: a whole session adds up or fails, and its drawing holds what it says."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmarks import secagg_growth
from scripts.benchmarks._secagg_plot import bound, svg
from scripts.benchmarks._secagg_whole import STAGES, Whole, WrongSumError, table

POINTS = [(10, 10), (32, 32), (100, 55), (316, 89), (1000, 167), (100_000, 247)]
SVG = "{http://www.w3.org/2000/svg}"


def whole(n: int = 20, **changes: object) -> Whole:
    study = secagg_growth._study(n, 0.05, 0.2)
    return Whole(study, 20, 0.05, progress=lambda _: None, **changes)


def test_whole_session_gives_the_survivors_sum_though_some_vanish_before_each_stage():
    session = whole()
    session.run()
    assert {stage: len(who) for stage, who in session.leaving.items()} == dict.fromkeys(
        STAGES[1:], 1
    )
    answered = [len(session.times[stage].institutions) for stage in STAGES]
    assert answered == [20, 19, 18, 17, 16]
    assert all(timed.sent and timed.received for timed in session.times.values())
    assert table(session).count("\n") == len(STAGES) + 2


def test_a_large_whole_session_has_a_graph_and_a_small_one_has_all_neighbours():
    assert secagg_growth._study(200, 0.05, 4 * 0.0125).degree == 70
    assert secagg_growth._study(60, 0.05, 4 * 0.05).degree is None


def test_a_wrong_sum_or_another_survivor_is_noticed():
    session = whole()
    session.run()
    there = next(i for i in range(20) if i not in session.leaving["boxes"])
    session.leaving["boxes"] |= {there}
    with pytest.raises(WrongSumError, match="survivors are not"):
        session._check()
    session.leaving["boxes"] -= {there}
    session._check()
    if there in session.leaving["vectors"]:
        there = min(set(range(20)) - session.leaving["boxes"] - session.leaving["vectors"])
    session.vectors[there, 7] += 1
    with pytest.raises(WrongSumError, match="1 of 20 values"):
        session._check()


def test_whole_session_is_told_of_by_the_bench(capsys):
    assert secagg_growth.main(["--whole", "12", "--values", "8"]) == 0
    said = capsys.readouterr()
    assert "to the bit" in said.out
    assert "12 institutions, 8 values" in said.out
    assert "keys: 12 of 12" in said.err


def test_drawing_is_labelled_and_every_point_lies_inside():
    drawing = ElementTree.fromstring(svg(POINTS))
    assert drawing.get("role") == "img"
    assert drawing.findtext(f"{SVG}title").startswith("Secure sum")
    assert "1,000 institutions: 167 masks, 334 shares" in drawing.findtext(f"{SVG}desc")
    texts = [element.text for element in drawing.iter(f"{SVG}text")]
    for wanted in ("1,000", "100,000", "167", "494", "masks added", "shares dealt"):
        assert wanted in texts
    assert any("logarithmic" in text for text in texts)
    marks = [*drawing.iter(f"{SVG}circle")]
    assert len(marks) == len(POINTS)
    xs = [float(mark.get("cx")) for mark in marks]
    assert xs == sorted(xs)
    lines = " ".join(line.get("points") for line in drawing.iter(f"{SVG}polyline"))
    for x, y in (pair.split(",") for pair in lines.split()):
        assert 69 <= float(x) <= 621
        assert 59 <= float(y) <= 391


def test_reference_touches_the_highest_point_and_lies_below_none():
    c = bound(POINTS)
    ratios = [masks / (c * np.log10(n)) for n, masks in POINTS]
    assert max(ratios) == pytest.approx(1)


def test_drawing_in_the_docs_is_that_of_the_rules_as_they_are():
    sizes = (*secagg_growth.SIZES, *secagg_growth.BEYOND)
    points = [(n, secagg_growth._ring(n, 0.05, 0.05)) for n in sizes]
    kept = Path(__file__).parents[2] / "docs/images/secagg-growth.svg"
    assert kept.read_bytes() == svg(points).encode()


def test_the_bench_writes_the_drawing_of_what_it_measured(tmp_path, capsys):
    file = tmp_path / "growth.svg"
    arguments = ["--institutions", "5", "8", "--beyond", "100", "--values", "8", "--svg", file]
    assert secagg_growth.main([*map(str, arguments)]) == 0
    assert file.read_text() == svg([(5, 5), (8, 8), (100, 55)])
    assert "| 8 | " in capsys.readouterr().out


def test_text_and_lines_stand_out_from_white_and_series_differ_in_shape_too():
    drawing = ElementTree.fromstring(svg(POINTS))
    coloured = {element.get("fill") for element in drawing.iter(f"{SVG}text")} - {None, "black"}
    coloured |= {line.get("stroke") for line in drawing.iter(f"{SVG}polyline")}
    assert len(coloured) == 3
    assert all(1.05 / (luminance(colour) + 0.05) >= 4.5 for colour in coloured)  # WCAG 2.2, 1.4.3
    assert len([*drawing.iter(f"{SVG}circle")]) == len(POINTS)
    squares = [mark for mark in drawing.iter(f"{SVG}rect") if mark.get("fill") in coloured]
    assert len(squares) == len(POINTS)


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of `#rrggbb`."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
