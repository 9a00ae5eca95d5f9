"""The report of a run: each of its figures is looked up by a reader that has none of its code."""

import json
import re
import shutil
import statistics
import subprocess
from contextlib import contextmanager, suppress
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from scripts.cli import app
from scripts.kit_texts import DEMO
from scripts.reporting.charts import svg
from scripts.reporting.figures import Figure, at
from scripts.reporting.page import Plot
from scripts.reporting.render import to_html
from scripts.reporting.run_report import build
from server.run_dir import RunDir

NAMES = ("north", "east", "south")
PRIVACY = (
    "{mechanism: local, unit: patient, epsilon: 6, delta: 1e-3, clip: 0.5, sampling_rate: 0.5, "
    "steps_per_round: 1, declared_units: 8, evaluation: {epsilon: 1, clip: 3}, "
    "settings_from: synthetic, spare_rounds: 1}"
)
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "s": 1, "min": 60, "h": 3600, "": 1}
WITHOUT_FIGURES = re.compile(r"F1|report\.\w+")
"""Words with a digit that are no figures."""
CHROMIUM = shutil.which("chromium")


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
    number, unit = re.fullmatch(r"(-?[\d.,]+(?:e-?\d+)?) ?([a-zA-Z]*)", text).groups()
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
    for path in (
        "f1",
        "entities micro recall",
        "trained_by",
        "protection north epsilon_without_spare",
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


def test_each_plot_has_words_and_a_table_with_the_same_figures(run):
    report = build(run)
    plots = [(s, plot) for s in report.sections for plot in s.plots]
    assert {plot.title for _, plot in plots} == {"F1 by label", "Seconds a round"}
    html = to_html(report)
    for section, plot in plots:
        cells = [cell for table in section.tables for row in table.rows for cell in row]
        sources = {cell.source for cell in cells if isinstance(cell, Figure)}
        for curve in plot.curves.values():
            assert len(curve) == 3
            assert {up.source for _, up in curve} <= sources
        assert f'<title id="{section.name}1-t">{plot.title}</title>' in html


def test_a_curve_lies_where_its_values_are():
    points = tuple((Figure(i, str(i), ""), Figure(v, str(v), "")) for i, v in ((1, 0.0), (3, 1.0)))
    drawn = svg(Plot(title="t", across="round", up="F1", curves={"a": points}, top=1.0), "p")
    assert 'points="64.0,256.0 540.0,20.0"' in drawn


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


@contextmanager
def served(page):
    """The page on loopback, and what was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/report.html", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt install chromium")
def test_a_browser_asks_for_the_page_alone_and_shows_it(page, tmp_path):
    quiet = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
    )  # fmt: skip
    with served(page) as (url, asked):
        done = subprocess.run(
            [CHROMIUM, *quiet, f"--user-data-dir={tmp_path}", "--dump-dom", url],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
    assert asked == ["/report.html"]
    assert "What the model finds" in done.stdout
