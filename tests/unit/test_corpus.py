"""Loading and saving: all or an error, and the old file or the new one."""

from pathlib import Path

import pytest

from common.data.conll import ConllOptions
from common.errors import ConfigError, DataError
from common.io.corpus import load_documents, save_documents
from tests.unit.test_readers_damage import ANN, JSONL, PUBTATOR, TEXT, check_message
from tests.unit.test_readers_refusals import document


def folder_of(tmp_path: Path, **files: str) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8", newline="")
    return folder


def test_a_missing_path_is_refused_with_a_remedy(tmp_path: Path) -> None:
    for format in ("conll", "brat", "pubtator", "jsonl"):
        with pytest.raises(DataError) as caught:
            load_documents(tmp_path / "nowhere", format)
        assert caught.value.place == str(tmp_path / "nowhere")
        assert caught.value.remedy


def test_invalid_utf8_is_refused_with_line_and_byte_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(PUBTATOR.encode().replace(b"vextol", b"vext\xf6l"))
    with pytest.raises(DataError, match="byte offset 46") as caught:
        load_documents(path, "pubtator")
    assert caught.value.place == f"{path}:2"
    check_message(caught.value)


def test_files_for_folders_and_folders_for_files_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_txt=TEXT, a_ann=ANN)
    for format in ("conll", "pubtator", "jsonl"):
        with pytest.raises(DataError, match="expected a file"):
            load_documents(folder, format)
    with pytest.raises(DataError, match="expected a folder"):
        load_documents(folder / "a.txt", "brat")


def test_a_missing_partner_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_txt=TEXT, a_ann=ANN, b_txt=TEXT)
    with pytest.raises(DataError, match="without their partner") as caught:
        load_documents(folder, "brat")
    assert caught.value.place == str(folder / "b.txt")


def test_a_folder_in_a_folder_is_refused_and_other_files_are_counted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_txt=TEXT, a_ann=ANN, annotation_conf="", _hidden="")
    assert load_documents(folder, "brat").notes["ignored_files"] == 2
    (folder / "more").mkdir()
    with pytest.raises(DataError, match="folder within"):
        load_documents(folder, "brat")


def test_one_bad_file_refuses_the_whole_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_txt=TEXT, a_ann=ANN, b_txt=TEXT, b_ann="T1\tK 1 8\tZorblax\n")
    with pytest.raises(DataError) as caught:
        load_documents(folder, "brat")
    assert caught.value.place == f"{folder / 'b.ann'}:1"


@pytest.mark.parametrize("format", ["conll", "pubtator", "jsonl"])
def test_a_file_without_documents_is_refused(tmp_path: Path, format: str) -> None:
    path = tmp_path / "empty"
    path.write_text("")
    with pytest.raises(DataError, match="no documents"):
        load_documents(path, format)
    with pytest.raises(DataError, match="no documents"):
        save_documents([], path, format)


def test_every_document_needs_its_patient_and_unused_rows_are_counted(tmp_path: Path) -> None:
    path, table = tmp_path / "a.jsonl", tmp_path / "patients.tsv"
    path.write_text(JSONL)
    table.write_text("d1\tp1\n")
    with pytest.raises(DataError, match="no row for document d2"):
        load_documents(path, "jsonl", patients_table=table)
    table.write_text("d1\tp1\nd2\tp2\n")
    with pytest.raises(DataError, match="another patient"):
        load_documents(path, "jsonl", patients_table=table)
    table.write_text("d1\tp1\nd2\tp1\nd3\tp3\n")
    result = load_documents(path, "jsonl", patients_table=table)
    assert result.notes == {"unused_patients": 1}


def test_arguments_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(JSONL)
    table = (("d1", 0, 1),)
    for arguments in (
        {"format": "xml"},
        {"format": "jsonl", "conll": ConllOptions()},
        {"format": "jsonl", "documents_table": path},
    ):
        with pytest.raises(ConfigError):
            load_documents(path, **arguments)
    with pytest.raises(ConfigError, match="twice"):
        load_documents(path, "conll", conll=ConllOptions(documents=table), documents_table=path)


def test_nothing_is_written_when_a_document_cannot_be(tmp_path: Path) -> None:
    good, bad = document(), document(doc_id="../d2")
    patients = document(patient_id="p")
    for documents in ([good, bad], [patients]):
        with pytest.raises(DataError):
            save_documents(documents, tmp_path / "corpus", "brat")
    with pytest.raises(DataError, match="patient id"):
        save_documents([good], tmp_path / "c", "jsonl", patients_table=tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_and_a_missing_parent_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_txt=TEXT)
    with pytest.raises(DataError, match="empty"):
        save_documents([document()], folder, "brat")
    with pytest.raises(DataError, match="no such"):
        save_documents([document()], tmp_path / "nowhere" / "a.jsonl", "jsonl")
    assert [entry.name for entry in folder.iterdir()] == ["a.txt"]


def test_a_failed_replacement_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(DataError, match="No space"):
        save_documents([document()], path, "jsonl")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]
