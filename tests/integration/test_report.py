"""The report of a run: each of its figures is looked up by a reader that has none of its code."""

import json
import re
import shutil
import statistics
from contextlib import suppress
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from scripts.cli import app
from scripts.kit_texts import DEMO
from scripts.reporting.charts import FILLS, svg
from scripts.reporting.drawing import COLOURS, INK
from scripts.reporting.figures import Figure, at
from scripts.reporting.page import Bar, Bars, Page, Plot, Presence, Section, Stack, Table
from scripts.reporting.render import _escaped, to_html, to_markdown
from scripts.reporting.run_report import build
from server.run_dir import RunDir
from tests.browser import PAGE, browsed, needs_chromium
from tests.contrast import contrast

NAMES = ("north", "east", "south")
PRIVACY = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 1, declared_units: 8, evaluation: {epsilon: 1, clip: 3}, "
    "settings_from: synthetic, spare_rounds: 1}"
)
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "s": 1, "min": 60, "h": 3600, "%": 0.01, "": 1}
WITHOUT_FIGURES = re.compile(r"F1|report\.\w+")
"""Words with a digit that are no figures."""


@pytest.fixture(scope="module")
def run(tiny_study, tmp_path_factory):
    """A simulated study with noise and secure sums, and a refusal."""
    folder = tmp_path_factory.mktemp("report")
    text = tiny_study(
        study="reported",
        privacy=PRIVACY,
        training="{rounds: 3, learning_rate: 1e-2, precision: float32}",
        federation=f"{{institutions: [{', '.join(NAMES)}], evaluate_every: 1}}",
        simulation="{synthetic: {patients_per_institution: 12, notes_per_patient: [1, 2]}}",
        secure_aggregation="{}",
        model="{train: head, dropout: 0}",
    )
    (folder / "study.yaml").write_text(text)
    done = CliRunner().invoke(
        app, ["simulate", str(folder / "study.yaml"), "--out", str(folder / "run")]
    )
    assert done.exit_code == 0, done.output
    found = RunDir.open(folder / "run")
    study = found.study()
    found.record("refusal", study, round=2, institution="east", asked="train", code="<b>x</b>")
    found.record("resume", study, round=2)
    return found


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    """The HTML that `fedner report` writes."""
    folder = tmp_path_factory.mktemp("pages")
    done = CliRunner().invoke(app, ["report", str(run.path), "--out", str(folder)])
    assert done.exit_code == 0, done.output
    return (folder / "report.html").read_text()


class Reader(HTMLParser):
    """Figures with their sources, words outside of figures, and all attributes."""

    APART = ("data", "style", "title", "pre", "svg")

    def __init__(self, text):
        super().__init__()
        self.figures, self.words, self.attributes, self.tags = [], [], [], []
        self._open = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self._open += [tag] if tag in self.APART else []
        if tag == "data":
            self.figures.append([dict(attrs), ""])

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data):
        if self._open and self._open[-1] == "data":
            self.figures[-1][1] += data
        elif not self._open:
            self.words.append(data)


def looked_up(run, source):
    """What stands at a source, by nothing of fedner's own."""
    if source == "roster.yaml note":
        return yaml.safe_load((run.path / "roster.yaml").read_text())["note"]
    if source.startswith("study.yaml"):
        study = yaml.safe_load((run.path / "study.yaml").read_text())
        path = source.partition(" ")[2]
        if path.startswith("len("):
            return len(dig(study, path[4:-1]))
        return dig(study, path)
    if " minus " in source:
        one, other = source.split(" minus ")
        return looked_up(run, one) - looked_up(run, other)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    if one := re.fullmatch(r"metrics\.jsonl:(\d+) (.+)", source):
        return dig(lines[int(one[1]) - 1], one[2])
    if one := re.fullmatch(r"metrics\.jsonl count\((\w+) (\w+)=([\w-]+)\)", source):
        event, key, name = one.groups()
        found = [line[key] for line in lines if line["event"] == event]
        return sum(name in value if isinstance(value, list) else name == value for value in found)
    does, event, path = re.fullmatch(
        r"metrics\.jsonl (\w+)\((\w+)(?: ([\w ]+))?\)", source
    ).groups()
    chosen = [line for line in lines if line["event"] == event]
    if does == "count":
        return len(chosen)
    values = []
    for line in chosen:
        with suppress(KeyError):
            values.append(dig(line, path))
    return {"sum": sum, "median": statistics.median}[does](values)


def dig(value, path):
    for step in path.split():
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def says(text, value):
    """Whether a text is a value, as rounded as it is written."""
    if value is None:
        return text == "none"
    if isinstance(value, list):
        return text == ", ".join(value)
    if isinstance(value, str):
        return text == value.replace("`", "")
    number, unit = re.fullmatch(r"([+-]?[\d.,]+(?:e-?\d+)?) ?([a-zA-Z%]*)", text).groups()
    digits = number.replace(",", "")
    mantissa, _, exponent = digits.partition("e")
    last = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    shown = float(digits) * UNITS[unit]
    return abs(shown - value) <= 0.501 * last * UNITS[unit]


def test_every_figure_of_the_page_is_what_stands_at_its_source(run, page):
    figures = Reader(page).figures
    assert len(figures) > 100
    for attributes, text in figures:
        value = looked_up(run, attributes["data-source"])
        assert says(text, value), (attributes, text, value)
        if isinstance(value, int | float):
            assert float(attributes["value"]) == value
    sources = " ".join(attributes["data-source"] for attributes, _ in figures)
    for event in ("round", "refusal", "resume", "abort"):
        assert f"({event}" in sources
    assert re.search(r"metrics.jsonl:\d+ f1 minus metrics.jsonl:\d+ own f1", sources)
    for path in (
        "f1",
        "entities micro recall",
        "trained_by",
        "protection north epsilon_without_spare",
        "protection north adversaries 0 epsilon",
        "protection north divisor",
        "institutions east train documents",
        "own f1",
        "low",
        "epsilon",
        "sum bytes_down",
        "sum stage_seconds open",
    ):
        assert re.search(rf":\d+ {path}( |$)", sources), path


def test_no_figure_stands_on_the_page_without_its_source(page):
    for words in Reader(page).words:
        assert not re.search(r"\d", WITHOUT_FIGURES.sub("", words)), words


def test_the_check_of_figures_finds_a_wrong_one(run):
    assert says("0.1235", 0.12345) is True
    assert says("0.1234", 0.1236) is False
    assert says("1.5 MB", 1_540_000) is True
    assert says("1.5 MB", 1_560_000) is False
    assert says("+0.0100", 0.01) is True
    assert says("+0.0100", -0.01) is False
    assert says("95%", 0.95) is True
    assert looked_up(run, "metrics.jsonl count(refusal)") == 1
    assert looked_up(run, "metrics.jsonl count(refusal institution=east)") == 1
    assert looked_up(run, "metrics.jsonl count(refusal institution=north)") == 0


def test_the_page_asks_for_nothing_and_runs_nothing(page):
    read = Reader(page)
    assert not {"script", "iframe", "object", "embed", "img"} & set(read.tags)
    for tag, name, value in read.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"href", "src", "action", "srcset"}:
            assert value.startswith("#") or value == "data:,", (tag, value)
    assert ("meta", "http-equiv", "Content-Security-Policy") in read.attributes
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "@import" not in page


def test_a_run_of_a_server_is_not_called_a_simulation(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "origin.json").write_text("{}")
    real = to_html(build(RunDir.open(tmp_path / "run")))
    simulated = to_html(build(run))
    assert ("SIMULATION" in real, "SIMULATION" in simulated) == (False, True)
    assert ("--federation" in real, "simulation</code> section" in simulated) == (True, True)


def test_a_demonstration_is_called_one_with_the_rosters_words(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "roster.yaml").write_text(yaml.safe_dump({"note": DEMO}))
    shown = RunDir.open(tmp_path / "run")
    (demo,) = [f for f in Reader(to_html(build(shown))).figures if f[1] == DEMO]
    assert looked_up(shown, demo[0]["data-source"]) == DEMO
    assert DEMO not in to_html(build(run))


def test_a_label_may_have_a_dot():
    assert at({"entities": {"Drug.Dose": [{"f1": 1}]}}, "entities Drug.Dose 0 f1") == 1


def test_what_others_wrote_is_text_and_never_markup(page):
    assert "<b>" not in page
    assert "&lt;b&gt;x" in page


def drawn(drawing):
    """Figures of a drawing."""
    if isinstance(drawing, Bars):
        return [f for bar in drawing.bars for f in (bar.value, *(bar.ends or ()))]
    if isinstance(drawing, Presence):
        return list(drawing.rounds)
    return [figure for curve in drawing.curves.values() for point in curve for figure in point]


def test_each_plot_has_words_and_a_table_with_the_same_figures(run):
    report = build(run)
    plots = [(s, plot) for s in report.sections for plot in s.plots]
    assert {plot.title for _, plot in plots} == {
        "F1 by label", "F1 by who trained", "F1 by institution", "Epsilon charged so far",
        "Epsilon, and what adds to it", "Seconds a round, by stage",
        "Bytes a round, up to the coordinator and down to institutions",
    }  # fmt: skip
    html = to_html(report)
    for section, plot in plots:
        cells = [cell for table in section.tables for row in table.rows for cell in row]
        told = [part for s in report.sections for text in s.texts for part in text]
        sources = {f.source for f in (*cells, *told) if isinstance(f, Figure)}
        assert len(drawn(plot)) > 1
        assert {f.source for f in drawn(plot)} <= sources
        assert f'-t">{plot.title}</title>' in html
        assert f'role="group" aria-label="{plot.title}"' in html


def test_a_curve_lies_where_its_values_are():
    points = tuple((Figure(i, str(i), ""), Figure(v, str(v), "")) for i, v in ((1, 0.0), (3, 1.0)))
    drawn = svg(Plot(title="t", across="round", up="F1", curves={"a": points}, top=1.0), "p")
    assert 'points="64.0,256.0 524.0,20.0"' in drawn


def test_bars_begin_at_zero_and_show_the_ends_of_an_interval():
    low, value, high = (Figure(v, str(v), "") for v in (0.25, 0.5, 0.75))
    bar = Bar(name="<b>all</b>", value=value, kind="x", ends=(low, high))
    shown = svg(Bars(title="t", across="F1", bars=(bar,), top=1.0), "p")
    left, right = (float(n) for n in re.search(r'd="M(\d+) \d+V\d+H(\d+)"', shown).groups())
    rect = re.search(r'<rect class="bar" x="([\d.]+)" [^>]*width="([\d.]+)"', shown)
    assert [float(n) for n in rect.groups()] == [left, (right - left) / 2]
    assert f"M{left + (right - left) / 4:.1f}" in shown
    assert "0.5 (0.25 to 0.75)" in shown
    assert "<b>" not in shown


def test_columns_stand_one_upon_the_other():
    def curve(*values):
        return tuple((Figure(i, str(i), ""), Figure(v, str(v), "")) for i, v in enumerate(values))

    curves = {"a": curve(1.0, 2.0), "b": curve(3.0, 0.0)}
    shown = svg(Stack(title="t", across="round", up="s", curves=curves), "p")
    found = re.findall(r'class="bar" x="([\d.]+)" y="([\d.]+)" [^>]*height="([\d.]+)"', shown)
    a0, a1, b0, b1 = [tuple(map(float, one)) for one in found]
    assert (a0[0], a1[0]) == (b0[0], b1[0])
    assert b0[1] + b0[2] == pytest.approx(a0[1], abs=0.2)
    assert b0[2] == pytest.approx(3 * a0[2], abs=0.2)
    assert b1[2] == 0


def test_curves_and_their_names_stand_out_from_the_page_and_columns_from_their_neighbours():
    assert all(contrast(colour, "#ffffff") >= 4.5 for colour in COLOURS)
    assert all(contrast(one, other) >= 1.9 for one, other in pairwise(FILLS))
    assert contrast(INK, "#ffffff") >= 4.5


def test_what_is_folded_on_the_screen_is_printed(page):
    printed = page[page.index("@media print") :].partition("</style>")[0]
    assert "details::details-content { content-visibility: visible" in printed


def test_where_nothing_is_annotated_there_is_no_score_and_no_gap(run, tmp_path):
    """North has nothing at all, east nothing of the first label."""
    shutil.copytree(run.path, tmp_path / "run")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    label = run.study().task.labels[0]
    for line in (one for one in lines if one["event"] == "simulated_evaluation"):
        rows = {"north": list(line["entities"]), "east": [label], "south": []}
        for name in rows[line["institution"]]:
            line["entities"][name] = dict.fromkeys(("precision", "recall", "f1", "support"), 0)
        line["f1"] = {"north": 0, "east": 0.8, "south": 0.6}[line["institution"]]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "run" / "metrics.jsonl").write_text(text)
    report = build(RunDir.open(tmp_path / "run"))
    (section,) = [s for s in report.sections if s.name == "fairness"]
    shown = [part if isinstance(part, str) else part.text for part in section.texts[1]]
    assert (shown[1], shown[3], shown[5]) == ("east", "south", "0.2000")
    assert not any(bar.name.startswith("north") for bar in section.plots[0].bars)
    at_home, recalls = section.tables
    assert at_home.rows[0][2:] == ("nothing to find", "nothing to find", "none")
    of_label = next(row for row in recalls.rows if row[0] == label)
    assert (*of_label[1:3], of_label[4]) == ("nothing to find", "nothing to find", "none")
    assert isinstance(of_label[3], Figure)
    assert isinstance(recalls.rows[-1][4], Figure)


def test_who_was_missing_is_drawn_and_named_with_the_round(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    second = next(line for line in lines if line["event"] == "round" and line["round"] == 2)
    second["institutions"].remove("east")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "run" / "metrics.jsonl").write_text(text)
    report = build(RunDir.open(tmp_path / "run"))
    (section,) = [s for s in report.sections if s.name == "cooperation"]
    (presence,) = section.plots
    assert presence.present == {
        "north": (True,) * 3, "east": (True, False, True), "south": (True,) * 3,
    }  # fmt: skip
    assert svg(presence, "p").count('class="missing"') == 1
    (table,) = [t for t in section.tables if "missing" in t.caption]
    assert [(row[0].value, row[1], row[2].text) for row in table.rows] == [(2, "east", "<b>x</b>")]
    assert "Nobody was missing" in to_html(build(run))
    assert "Nobody was missing" not in to_html(report)


def test_a_run_with_rounds_to_come_is_called_unfinished(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    third = next(i for i, line in enumerate(lines) if json.loads(line).get("round") == 3)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines[:third]))
    assert "UNFINISHED" in to_html(build(RunDir.open(tmp_path / "run")))
    assert "UNFINISHED" not in to_html(build(run))


def test_a_real_federation_claims_nothing_that_only_a_simulation_knows(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    real = [line for line in lines if '"simulated_' not in line and '"baseline"' not in line]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(real))
    (tmp_path / "run" / "origin.json").write_text("{}")
    page = to_html(build(RunDir.open(tmp_path / "run")))
    assert "imulation only" not in page
    assert "neither scores nor sizes by institution" in page
    assert "How many documents an institution has is not known here" in page
    assert "what an institution would have got alone is its own" in page


def test_a_noised_federation_is_compared_by_exact_counts_or_said_to_be_noised(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    (exact,) = [n for n, line in enumerate(lines, 1) if line["event"] == "simulated_interval"]
    page = to_html(build(run))
    assert f'"metrics.jsonl:{exact} entities micro f1"' in page
    assert "no real coordinator has them" in page
    del lines[exact - 1]["entities"]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "run" / "metrics.jsonl").write_text(text)
    page = to_html(build(RunDir.open(tmp_path / "run")))
    assert f"metrics.jsonl:{exact} entities" not in page
    assert "row carries noise" in page


def test_plain_words_in_backquotes_are_code_in_markdown_and_all_else_is_text():
    assert _escaped("`min_cohort` of a_b") == "`min_cohort` of a\\_b"
    assert _escaped("`<b>|` and `") == "\\`\\<b\\>\\|\\` and \\`"


def test_a_label_that_is_markup_is_text_in_markdown_wherever_it_stands():
    label = "<img/src=x/onerror=alert(1)>|z"
    figure = Figure(1, label, "")
    table = Table(caption=label, head=("label", f"{label} F1"), rows=((label, figure),))
    plot = Plot(title=label, across=label, up=label, curves={label: ((figure, figure),)})
    section = Section(name="s", title=label, texts=((label, figure),), plots=(plot,),
                      tables=(table,), points=((label,),))  # fmt: skip
    marks = {"lead": (label,), "marks": ((label,),), "keys": ((label, (label,)),)}
    shown = to_markdown(Page(title=label, sections=(section,), **marks))
    assert not re.search(r"(?<!\\)[<>]|(?<!\\)\|z", shown.replace("> ", ""))
    rows = [line for line in shown.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {3}


def test_a_run_that_has_not_started_is_told_so(tmp_path, run):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert "has not started" in str(done.exception)


def test_markdown_has_the_same_figures(run, tmp_path):
    done = CliRunner().invoke(app, ["report", str(run.path), "--out", str(tmp_path)])
    assert done.exit_code == 0
    text = (tmp_path / "report.md").read_text()
    last = run.events("evaluation")[-1]
    row = next(line for line in text.splitlines() if line.startswith("| micro |"))
    scores = last["entities"]["micro"]
    assert [f"{scores[k]:.4f}" for k in ("precision", "recall", "f1")] == row.split(" | ")[1:4]
    assert "SIMULATION" in text
    assert "\\<b\\>x" in text


def scores_at_the_hub(path):
    """Micro scores and the data they are of, as the hub's own library reads a card."""
    results = ModelCard.load(path).data.eval_results
    micro = {r.metric_type: r.metric_value for r in results if r.metric_name.endswith(" micro")}
    return micro, results[0].dataset_name


def test_the_head_of_the_markdown_has_the_scores_for_model_hubs(run, tmp_path):
    CliRunner().invoke(app, ["report", str(run.path), "--out", str(tmp_path)])
    micro, on = scores_at_the_hub(tmp_path / "report.md")
    last = run.events("evaluation")[-1]["entities"]["micro"]
    assert micro == {k: round(last[k], 4) for k in ("f1", "precision", "recall")}
    assert on == "held-out documents of 3 simulated institutions, counts with noise"
    assert "differential-privacy" in ModelCard.load(tmp_path / "report.md").data.tags


def test_an_exported_model_has_the_report_of_its_run_as_its_card(run, tmp_path):
    model = str(run.path / "model")
    done = CliRunner().invoke(app, ["export", model, "--out", str(tmp_path / "out"), "--unsigned"])
    assert done.exit_code == 0, done.output
    card = tmp_path / "out" / "README.md"
    assert scores_at_the_hub(card)[0]["f1"] == round(run.events("evaluation")[-1]["f1"], 4)
    text = card.read_text()
    for words in ("\n# reported\n", "## How to use it", "## What the model finds", "## Privacy",
                  "NOT covered", "SIMULATION", "Not a medical device"):  # fmt: skip
        assert words in text, words


def test_a_model_of_another_round_has_no_scores_of_the_last_one(run, tmp_path):
    told = json.loads((run.path / "model" / "fedner.json").read_text())
    shutil.copytree(run.path, tmp_path / "run")
    partial = tmp_path / "run" / "model" / "fedner.json"
    partial.write_text(json.dumps({**told, "rounds": 9, "notices": ["UNFINISHED. x"]}))
    done = CliRunner().invoke(app, ["export", str(partial.parent), "--out", str(tmp_path / "out"),
                                    "--unsigned"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert ModelCard.load(tmp_path / "out" / "README.md").data.eval_results is None
    assert "UNFINISHED. x" in (tmp_path / "out" / "README.md").read_text()


@needs_chromium
def test_a_browser_asks_for_the_page_alone_and_shows_it(page, tmp_path):
    shown, asked = browsed(page, tmp_path)
    assert asked == [PAGE]
    assert "What the model finds" in shown
