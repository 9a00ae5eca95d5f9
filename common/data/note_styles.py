"""House styles of synthetic notes: headings, sentence templates, casing.

A template is one sentence. `{d}`, `{s}`, `{m}` stand for the patient's own disease, symptom and
medication, `{od}`, `{os}`, `{om}` for one that the patient need not have; `<d:word>` is a fixed
entity. Every other `{slot}` is filled with words that are no entity (`common.data.distractors`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Casing = Literal["sentence", "lower", "upper_medication", "title_disease"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of a note.

    Attributes:
        heading: what stands before the first sentence, line break included.
        kinds: template kinds, one sentence each; more are drawn if the note is short.
        chance: how often a note has this section.
    """

    heading: str
    kinds: tuple[str, ...]
    chance: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """One institution's way of writing.

    Attributes:
        sections: in the order they are written.
        templates: template kind to templates.
        casing: how letters are set.
        short_forms: how often a term's shorter or other form is used.
        min_words: a note gets more sentences until it has this many words.
        separator: between the sentences of a section.
        full_stops: whether sentences end with one.
        frequencies: how a dose's frequency is written.
    """

    sections: tuple[Section, ...]
    templates: Mapping[str, tuple[str, ...]]
    casing: Casing
    short_forms: float
    min_words: tuple[int, int]
    separator: str
    full_stops: bool
    frequencies: tuple[str, ...]


def lines(text: str) -> tuple[str, ...]:
    """The lines of `text`, trimmed."""
    return tuple(line.strip() for line in text.strip().splitlines())


_TELEGRAPHIC = Style(
    sections=(
        Section(heading="", kinds=("open",)),
        Section(heading="PMH: ", kinds=("history",)),
        Section(heading="HPC: ", kinds=("complaint", "negative")),
        Section(heading="MEDS: ", kinds=("drug",)),
        Section(heading="FHx: ", kinds=("family",), chance=0.3),
        Section(heading="O/E: ", kinds=("exam",), chance=0.8),
        Section(heading="IMP: ", kinds=("impression",), chance=0.6),
        Section(heading="PLAN: ", kinds=("plan", "trap")),
    ),
    templates={
        "open": lines("""{age} y/o {sex} c/o {s} and {s} x {n}/7.
            {age}yo {sex} w/ known {d}, p/w {sev} {s} since {when}.
            {sex} {age}, adm via ED w/ {s}, bkgd {d}.
            {age} y/o {sex} ref by GP ?{d}, {s} on stairs."""),
        "again": lines("""RV in clinic {n}/52 post {procedure}; {d} unchanged.
            {age} y/o {sex} readmitted w/ {s}, bkgd {d} and {d}.
            Day {n} post {procedure}: {s} better, {s} persists.
            F/U {d}; still {s} but less than at last RV."""),
        "history": lines("""{d}, {d} ({year}), {procedure} {year}.
            {d} dx {year}, on {m}. S/p {procedure} {year}, ex-smoker {n} pack-yrs.
            {d} - under {unit}; nil other of note.
            {procedure} {year} for {d}. Also {d}."""),
        "complaint": lines("""{sev} {s} + {s}, worse lying flat.
            {s} on/off {n}/52, {s} since {when}.
            {n} episodes {s} in {n}/24, each lasting {n} min.
            {s} radiating to {site}; {s} at rest x {n}."""),
        "negative": lines("""No {os}, no {os}.
            Denies {os}/{os}. Nil {od} on prev {procedure}.
            {od} excluded {year}; no {os} o/n.
            -ve for {os}, {od} unlikely."""),
        "drug": lines("""{m} {dose} {freq}, {m} {dose} {freq}, {m} {dose} {freq}.
            {m} {dose} {freq}; {m} stopped {when} d/t {s}.
            {m} ↑ to {dose} {freq}, cont {m}. NKDA.
            {m} {dose} {freq}, {m} PRN. Intol {om} ({os})."""),
        "family": lines("""{relative} {od} at {relage}.
            {relative} d. {relage}, {od}; {relative} well.
            Nil FHx {od}."""),
        "exam": lines("""BP {bp}, HR {hr}, {site} NAD. {lab}, {lab}.
            {s} ++, {site} normal, sats {sats}% RA.
            {site} and {site} NAD; {s} noted. {lab}.
            HR {hr} reg, BP {bp}, {lab}, {os} absent."""),
        "impression": lines("""?{d} 2° to {d}.
            Likely {d}; ddx {od}, {od}.
            Decomp {d}, {s} prob d/t {m}.
            {d} - stable. {s} ?cause."""),
        "plan": lines("""{procedure}, rpt {test} mane, start {m} {dose} {freq}.
            Stop {m}, {procedure} +/- {procedure}. RV {n}/52.
            D/w Dr. {dr} re {d}; for {procedure}. {m} {dose} {freq}.
            ↓ {m}, TTO {m} {n}/7, {unit} ref, {device} supplied."""),
    },
    casing="upper_medication",
    short_forms=0.65,
    min_words=(60, 90),
    separator=" ",
    full_stops=True,
    frequencies=("OD", "BD", "TDS", "QDS", "nocte", "mane"),
)

_LETTER = Style(
    sections=(
        Section(heading="Dear colleague,\n\n", kinds=("open",)),
        Section(heading="\nDiagnosis and background\n", kinds=("history",)),
        Section(heading="\nProgress\n", kinds=("complaint", "negative")),
        Section(heading="", kinds=("family",), chance=0.3),
        Section(heading="\nTreatment\n", kinds=("drug", "plan")),
        Section(heading="\nExamination\n", kinds=("exam",), chance=0.6),
        Section(heading="", kinds=("impression",), chance=0.4),
        Section(heading="", kinds=("trap",)),
    ),
    templates={
        "open": lines("""
            Thank you for referring this {age}-year-old {person}, in whom {d} was confirmed {when}.
            I saw this pleasant {age}-year-old {person} in the {unit} because of {sev} {s}.
            This {age}-year-old {person} was referred urgently with {s} and unexplained {s}.
            We discussed this {person}, aged {age}, at the tumour board about {d}."""),
        "again": lines("""
            I reviewed this {person} in the {unit} {when} after {procedure} for {d}.
            {he} returned today to discuss {procedure}, which showed no progression of {d}.
            Since {his} last visit {he} has been troubled by {s}, although {s} improved a little.
            It is now {n} months since {he} completed treatment for {d}."""),
        "history": lines("""
            {he} was found to have {d} in {year} and underwent {procedure} at that time.
            {his} past history includes {d}, which has been controlled with {m}.
            The {procedure} in {year} demonstrated {d} involving the {site}.
            In addition to {d}, {he} lives with {d}.
            Of note, {d} was diagnosed incidentally during {procedure}."""),
        "complaint": lines("""
            Over the past {n} weeks {he} has noticed {s}, accompanied by {sev} {s}.
            {he} describes {s} after each cycle, lasting for about {n} days.
            {his} main concern remains {s}, which interferes with work and sleep.
            Unfortunately the second cycle was complicated by {s} and, later, by {d}."""),
        "negative": lines("""There has been no {os} and {he} specifically denies {os}.
            I could find nothing to suggest {od} and there was no {os}.
            The scan of the {site} did not show {od}.
            {he} has not experienced {os} since starting {m}."""),
        "drug": lines("""{he} has completed {n} cycles of {m} and continues {m} {dose} {freq}.
            Treatment with {m} was withheld because of {s}, and {m} {dose} was substituted.
            {his} current medication consists of {m} {dose} {freq}, {m} and {m}.
            {he} tolerates {m} well, but {om} had to be discontinued {when}."""),
        "family": lines("""{his} {relative} died of {od} at the age of {relage}.
            There is a family history of {od} in {his} {relative}.
            Neither {his} {relative} nor {his} {relative} has had {od}."""),
        "exam": lines("""On examination the {site} felt normal and there was no {os}.
            Blood tests today showed {lab} and {lab}, and blood pressure was {bp}.
            Clinically there was evidence of {s}, but the {site} was unremarkable.
            The {device} was in good position and {lab} was noted."""),
        "impression": lines("""In summary, this is {d} with a good response to {m}.
            I believe that {his} {s} can be explained by {d} rather than by {od}.
            The differential diagnosis lies between {d} and {od}.
            We regard the {s} as a side effect of {m}."""),
        "plan": lines("""
            We have arranged {procedure} and will start {m} at {dose} {freq} thereafter.
            I would be grateful if you could prescribe {m} {dose} {freq} for {his} {s}.
            Dr. {dr} will repeat {procedure} in {n} weeks, before we consider {om}.
            {he} has agreed to {procedure}, to be followed by {m} in the {unit}."""),
    },
    casing="sentence",
    short_forms=0.2,
    min_words=(76, 102),
    separator=" ",
    full_stops=True,
    frequencies=("once daily", "twice daily", "at night", "every three weeks", "weekly"),
)

_NARRATIVE = Style(
    sections=(
        Section(heading="REASON FOR REVIEW\n", kinds=("open",)),
        Section(heading="\nPresenting Complaint - ", kinds=("complaint",)),
        Section(heading="\nBackground - ", kinds=("history", "negative"), chance=0.75),
        Section(heading="\nFamily - ", kinds=("family",), chance=0.3),
        Section(heading="\nCurrent Treatment - ", kinds=("drug",)),
        Section(heading="\nFindings - ", kinds=("exam",), chance=0.6),
        Section(heading="\nOpinion - ", kinds=("impression", "trap")),
        Section(heading="\nNext Steps - ", kinds=("plan",)),
    ),
    templates={
        "open": lines("""{person} of {age}, brought in by {his} {companion} who reported {s}.
            Self-referral of a {age} year old {person} worried about {s} and {s}.
            Second opinion requested on {d} in a {age} year old {person}.
            Known to the {unit} with {d}; crisis call {when}."""),
        "again": lines("""Routine review of {d} after {n} weeks.
            Attended with {his} {companion}; things are worse, with more {s}.
            Home visit because {his} {companion} noticed {s} again.
            Telephone review, {d} said to be "much the same"."""),
        "history": lines("""{d} since {year}, {n} admissions, last one for {s}.
            Previously seen for {d}; had {procedure} in {year}.
            {he} carries a diagnosis of {d} and was told of {d} {when}.
            Never fully recovered from {d} {when}."""),
        "complaint": lines("""{he} told us that {s} comes on in the evening and that {s} follows.
            "I can't live with the {s}", {he} says; {his} {companion} mentions {s} too.
            Sleep and work suffer from {sev} {s} on most days.
            {his} {companion} has seen {s} twice, once with {s} for {n} minutes."""),
        "negative": lines("""Asked directly, {he} has had neither {os} nor {os}.
            {od} was considered by Dr. {dr} and ruled out by {procedure}.
            Not known to have {od}; no {os} on this occasion.
            {os} is denied, and so is {os}."""),
        "drug": lines("""Takes {m} {dose} {freq} (forgets it on weekends) and {m}.
            {m} helped {his} {s} a little; {m} {dose} {freq} was added {when}.
            Could not get on with {om} because of {os}, so now {m} {dose}.
            Compliance with {m} is doubtful, {m} {dose} {freq} is taken."""),
        "family": lines("""{relative} with {od}, otherwise unremarkable.
            {his} {relative} was treated with {om} for {od}.
            {relative} and {relative} both well, no {od} known."""),
        "exam": lines("""{s} was obvious throughout; {site} normal.
            {site} and {site} intact, {lab}, no {os}.
            Bloods: {lab}, {lab}. BP {bp}.
            Good rapport, eye contact fair, {s} evident when walking in."""),
        "impression": lines("""{d} is the likeliest account of {his} {s}.
            This looks like {d}, complicated by {d}; {od} less so.
            {s} may be caused by {m} and not by {d}.
            Partial response of {d} to {m}."""),
        "plan": lines("""Cross-taper from {m} to {m} {dose} {freq} over {n} weeks.
            {procedure} first, then decide on {om} for the {s}.
            {his} {companion} will supervise {m}; {unit} to call in {n} days.
            Keep {m} at {dose}, refer for {procedure} and for {device}."""),
    },
    casing="title_disease",
    short_forms=0.4,
    min_words=(64, 88),
    separator=" ",
    full_stops=True,
    frequencies=("in the morning", "at bedtime", "bd", "three times a day", "when needed"),
)

_BULLETS = Style(
    sections=(
        Section(heading="triage\n- ", kinds=("open",)),
        Section(heading="story\n- ", kinds=("complaint", "negative")),
        Section(heading="past + drugs\n- ", kinds=("history", "drug")),
        Section(heading="family\n- ", kinds=("family",), chance=0.25),
        Section(heading="looks / bloods\n- ", kinds=("exam",)),
        Section(heading="problem list\n- ", kinds=("impression",), chance=0.7),
        Section(heading="to do\n- ", kinds=("plan", "trap")),
    ),
    templates={
        "open": lines("""{age} {sexletter}, {s} since {when}, looks unwell
            walk-in, {age} {sexletter}: {s}, {s}, temp {temp}
            {age} {sexletter} sent by {unit} with ?{d}
            ambulance, {age} {sexletter}, {s} for {n} days, known {d}"""),
        "again": lines("""back after {n} days, {s} no better on {m}
            wound check post {procedure}, {d} resolving
            recheck {d}: afebrile {n} h, {s} gone
            third visit this month, again {s} and {s}"""),
        "history": lines("""{d}, {d}, {procedure} {year}
            had {d} in {year} -> {m} at that time
            lives alone, {d} + {d}, smoker, no travel
            {d} twice this winter, flu vaccination done"""),
        "complaint": lines("""started with {s}, now {sev} {s} as well
            {s} day {n}, {relative} has the same
            {s} > {s}, worse at night, fluids ok
            after {procedure} developed {s} within {n} h"""),
        "negative": lines("""no {os}, no {os}, no {os}
            nothing to suggest {od}; {os} neg
            {od} swab neg, contact with {od} not known
            without {os} or {os}"""),
        "drug": lines("""{m} {dose} {freq}, {m} {dose} {freq}
            {m} from gp {when}, {m} otc, no effect
            allergic to {om} ({os}); takes {m} {dose} {freq}
            usual {m}, last dose {m} {n} h ago"""),
        "family": lines("""{relative}: {od}
            {relative} had {od} last week, {relative} fine
            no {od} in household"""),
        "exam": lines("""{temp} C, hr {hr}, {bp}, {lab}, {lab}
            {site} clear, {s} present, {lab}
            {site} inflamed, {os} none, sats {sats}
            {s} visible, {site} + {site} ok, {lab}"""),
        "impression": lines("""{d} (likely), {s}, {d} in background
            {d} -> {d}?
            {s}: {d} vs {od}
            {d} day {n} of {m}"""),
        "plan": lines("""{m} {dose} {freq} for {n} days, then {procedure}
            switch {m} to {m}, repeat {test} tomorrow
            {procedure}; if {os} come back, dr. {dr} aware
            stop {m}, send {procedure}, {unit} to ring, {device} given"""),
    },
    casing="lower",
    short_forms=0.5,
    min_words=(60, 92),
    separator="\n- ",
    full_stops=False,
    frequencies=("od", "bd", "tds", "qds", "stat", "q8h"),
)

STYLES = {
    "cardiac": _TELEGRAPHIC,
    "oncology": _LETTER,
    "neuro": _NARRATIVE,
    "infectious": _BULLETS,
}
"""The style that goes with each specialty."""
