"""Where annotated documents lie, in which form, and how they are split."""

from typing import Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Source:
    """One annotated corpus on disk.

    Attributes:
        format: how the annotations are written.
        path: a file, or for brat a folder of `.txt`/`.ann` pairs; relative to the YAML file.
        scheme: CoNLL tagging scheme.
        column: CoNLL column of the tag, counted from 0; negative counts from the right.
        delimiter: CoNLL column separator; any run of blanks if absent.
        documents: TSV of document id, first sentence index, number of sentences (CoNLL files
            that carry no document marks).
        patients: TSV of document id and patient id.
        patient_per_document: every document is about a patient of its own.
    """

    format: Literal["conll", "brat", "pubtator", "jsonl"]
    path: str = Field(min_length=1)
    scheme: Literal["iob1", "iob2", "iobes"] = "iob2"
    column: int = -1
    delimiter: str | None = None
    documents: str | None = None
    patients: str | None = None
    patient_per_document: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "Source":
        given = self.scheme != "iob2" or self.column != -1 or self.delimiter or self.documents
        if self.format != "conll" and given:
            raise ValueError("scheme, column, delimiter and documents belong to format: conll")
        if self.patients and self.patient_per_document:
            raise ValueError("give `patients` or `patient_per_document`, not both")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Split:
    """Sides of a split by keyed hash of the unit id (patient if known, else document).

    Attributes:
        test: expected fraction of units held out, in (0, 1).
        key: the HMAC key, never shown; the same key gives the same sides whatever else is in the
            corpus.
    """

    test: float = Field(gt=0, lt=1)
    key: str = Field(min_length=1, repr=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """Training and held-out documents: two sources, or one that is split.

    Attributes:
        train: training documents; with `test`.
        test: held-out documents; with `train`.
        all: documents of both kinds; with `split`.
        split: which of `all` are held out.
        label_map: source label to study label; labels that are neither mapped nor in the study
            follow `unmapped`.
        unmapped: `drop` counts them and reads them as outside; `refuse` is an error.
    """

    train: Source | None = None
    test: Source | None = None
    all: Source | None = None
    split: Split | None = None
    label_map: dict[str, str] = Field(default_factory=dict)
    unmapped: Literal["drop", "refuse"] = "drop"

    @model_validator(mode="after")
    def _two_sources_or_one_split(self) -> "Data":
        two = self.train is not None and self.test is not None
        one = self.all is not None and self.split is not None
        mixed = (self.train or self.test) and (self.all or self.split)
        if mixed or not (two or one):
            raise ValueError("give either `train` and `test`, or `all` and `split`")
        return self
