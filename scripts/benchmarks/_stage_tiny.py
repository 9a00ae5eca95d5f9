"""A tiny BERT with random weights, and studies on it: a whole run in seconds. Tests use it, too."""

import hashlib
import json
import string
from collections import Counter
from pathlib import Path
from typing import Any, Final

from common.data.synthetic import SyntheticOptions, generate_notes

INSTITUTIONS: Final = ("cardiac-centre", "cancer-centre")
SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
POSITIONS: Final = 80
SIZES: Final = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def notes_vocabulary(size: int = 480) -> list[str]:
    """WordPiece vocabulary: special tokens, characters, frequent words of synthetic notes."""
    options = SyntheticOptions(
        institutions=INSTITUTIONS, patients_per_institution=12, notes_per_patient=(1, 2), seed=1
    )
    text = " ".join(d.text for docs in generate_notes(options).values() for d in docs).lower()
    for mark in string.punctuation:
        text = text.replace(mark, " ")
    characters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL, *string.punctuation, *characters, *(f"##{c}" for c in characters)]
    counted = Counter(word for word in text.split() if len(word) > 1 and word.isalpha())
    words = sorted(counted, key=lambda word: (-counted[word], word))
    return (pieces + words)[:size]


def save_encoder(model: Any, folder: Path) -> None:
    """Weights and configuration of a model with freshly drawn, reproducible weights."""
    import torch

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.08, generator=generator)
    model.save_pretrained(folder)


def bert_folder(folder: Path) -> Path:
    """A tiny BERT with a WordPiece tokenizer."""
    from transformers import BertConfig, BertModel

    vocabulary = notes_vocabulary()
    config = BertConfig(
        vocab_size=len(vocabulary),
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        type_vocab_size=2,
        **SIZES,
    )
    save_encoder(BertModel(config, add_pooling_layer=False), folder)
    save_wordpiece(folder, vocabulary, "BertTokenizer")
    return folder


def study_text(encoder: Path, /, **changes: str) -> str:
    """A small study as YAML.

    Args:
        changes: sections by name, each one line of YAML flow style, that replace the defaults.
    """
    sections = {
        "study": "tiny",
        "task": "{labels: [Disease, Symptom, Medication]}",
        "encoder": f"{{name: {encoder}, weights_sha256: {sha256(encoder / 'model.safetensors')}}}",
        "text": "{max_tokens: 48, overlap_tokens: 8}",
        "model": "{train: full}",
        "training": "{rounds: 2, local_epochs: 4, batch_size: 4, learning_rate: 5e-3, "
        "precision: float32}",
        "federation": f"{{institutions: [{', '.join(INSTITUTIONS)}], deadline_s: 120}}",
        "privacy": "none",
        "secure_aggregation": "none",
        "simulation": "{synthetic: {patients_per_institution: 8, notes_per_patient: [1, 2]}}",
    }
    return "".join(f"{key}: {value}\n" for key, value in (sections | changes).items())


def save_wordpiece(folder: Path, vocabulary: list[str], tokenizer_class: str) -> None:
    """The tokenizer of a vocabulary, as transformers reads it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    settings = {"tokenizer_class": tokenizer_class, "do_lower_case": True}
    write_json(folder / "tokenizer_config.json", settings | dict(zip(names, SPECIAL, strict=True)))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """As transformers has its settings."""
    path.write_text(json.dumps(value), "utf-8")
