"""Tiny encoders and studies: everything as in a real run, in a hundredth of a second."""

from pathlib import Path

from common.config.load import parse_study
from common.config.study import Study
from scripts.benchmarks._stage_tiny import (
    INSTITUTIONS,
    POSITIONS,
    SIZES,
    bert_folder,
    notes_vocabulary,
    save_encoder,
    save_wordpiece,
    sha256,
    study_text,
    write_json,
)

__all__ = ["INSTITUTIONS", "bert_folder", "sha256", "study", "study_text"]

BYTE_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def distilbert_folder(folder: Path) -> Path:
    """A tiny DistilBERT: no token types, sizes under other names."""
    from transformers import DistilBertConfig, DistilBertModel

    vocabulary = notes_vocabulary()
    config = DistilBertConfig(
        vocab_size=len(vocabulary),
        dim=32,
        hidden_dim=64,
        n_layers=2,
        n_heads=2,
        max_position_embeddings=POSITIONS,
    )
    save_encoder(DistilBertModel(config), folder)
    save_wordpiece(folder, vocabulary, "DistilBertTokenizer")
    return folder


def roberta_folder(folder: Path) -> Path:
    """A tiny RoBERTa: byte-level pairs, positions counted from the padding index."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel

    folder.mkdir(parents=True, exist_ok=True)
    trained = ByteLevelBPETokenizer(add_prefix_space=True)
    words = [w for w in notes_vocabulary() if w.isalpha()]
    trained.train_from_iterator(
        [" ".join(words)], vocab_size=400, special_tokens=list(BYTE_SPECIAL), show_progress=False
    )
    trained.save_model(str(folder))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"})
    config = RobertaConfig(
        vocab_size=trained.get_vocab_size(),
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        **SIZES,
    )
    save_encoder(RobertaModel(config, add_pooling_layer=False), folder)
    return folder


def add_directions(folder: Path, rank: int) -> str:
    """Orthonormal directions for every layer's linear weights, both sides; the file's SHA-256."""
    import torch
    from safetensors.torch import load_file, save_file

    from common.model.directions import DIRECTIONS, left_name

    generator = torch.Generator().manual_seed(11)
    found = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if ".layer." in name and value.ndim == 2:
            layer = name.removesuffix(".weight")
            inner = [torch.randn(n, rank, generator=generator) for n in value.shape]
            left, right = (torch.linalg.qr(m)[0] for m in inner)
            found |= {layer: right.T.contiguous(), left_name(layer): left.contiguous()}
    save_file(found, folder / DIRECTIONS)
    return sha256(folder / DIRECTIONS)


FAMILIES = {"bert": bert_folder, "distilbert": distilbert_folder, "roberta": roberta_folder}


def study(encoder: Path, /, **changes: str) -> Study:
    """The study of `study_text`."""
    return parse_study(study_text(encoder, **changes), "tiny.yaml")
