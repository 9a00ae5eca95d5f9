"""Batches hold every window once, tensors have a batch axis, the rate rises and falls."""

import inspect
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.data.encode import Window
from common.errors import EncoderError
from common.model.inputs import IGNORED, Collator, Tokenizer, shuffled_batches, sorted_batches
from common.model.train import labels_for, token_losses
from common.schedule import rate_factor

_LENGTHS = st.lists(st.integers(3, 64), max_size=400)


@given(_LENGTHS, st.integers(1, 17), st.text(max_size=5))
def test_shuffled_batches_hold_every_index_once(lengths: list[int], size: int, seed: str) -> None:
    batches = list(shuffled_batches(lengths, size, seed))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(type(i) is int for batch in batches for i in batch)
    # one optimiser step per `size` windows: as many steps as the schedule counts on
    assert len(batches) == -(-len(lengths) // size)
    assert sorted({len(batch) for batch in batches} - {size}) in ([], [len(lengths) % size])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shuffled_batches_hold_every_index_once_beyond_one_bucket(size: int) -> None:
    batches = list(shuffled_batches([3 + i % 60 for i in range(1001)], size, "seed"))
    assert sorted(i for batch in batches for i in batch) == list(range(1001))
    assert len(batches) == -(-1001 // size)


@given(_LENGTHS, st.integers(1, 17), st.text(max_size=5))
def test_shuffled_batches_follow_from_the_seed_alone(
    lengths: list[int], size: int, seed: str
) -> None:
    np.random.seed(3)
    first = list(shuffled_batches(lengths, size, seed))
    np.random.seed(4)
    assert list(shuffled_batches(lengths, size, seed)) == first


def test_another_seed_gives_another_order() -> None:
    lengths = [5] * 100
    orders = {str(list(shuffled_batches(lengths, 4, f"epoch {n}"))) for n in range(20)}
    assert len(orders) == 20


def test_shuffled_batches_are_of_like_length_and_not_sorted_themselves() -> None:
    lengths = [3 + i % 60 for i in range(600)]
    batches = list(shuffled_batches(lengths, 10, "seed"))
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert np.mean(spread) < 5
    longest = [max(lengths[i] for i in b) for b in batches]
    assert longest != sorted(longest)


def test_the_order_of_a_fixed_seed_is_this_on_every_machine() -> None:
    batches = list(shuffled_batches([5, 9, 4, 7, 6, 8, 3], 3, "fedner train v1/1/north/1/epoch 0"))
    assert batches == [[1], [4, 3, 5], [6, 2, 0]]


@given(_LENGTHS, st.integers(64, 1000))
def test_sorted_batches_keep_within_the_budget_and_hold_every_index_once(
    lengths: list[int], budget: int
) -> None:
    batches = list(sorted_batches(lengths, budget))
    order = [i for batch in batches for i in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[i] for i in order] == sorted(lengths)
    for batch in batches:
        assert batch
        assert len({lengths[i] for i in batch}) == 1
        assert lengths[batch[0]] * len(batch) <= budget


@given(_LENGTHS, st.integers(64, 1000))
def test_sorted_batches_are_as_large_as_the_budget_lets_them(
    lengths: list[int], budget: int
) -> None:
    batches = list(sorted_batches(lengths, budget))
    for batch, following in pairwise(batches):
        full = lengths[batch[0]] * (len(batch) + 1) > budget
        assert full or lengths[following[0]] > lengths[batch[0]]


def test_a_window_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    assert list(sorted_batches([3, 90, 91], 64)) == [[0], [1], [2]]


@pytest.mark.parametrize("warmup", [0.05, 0.2, 0.5, 0.9])
def test_the_rate_rises_from_zero_to_one_at_the_end_of_warmup_and_falls_to_zero(
    warmup: float,
) -> None:
    assert rate_factor(0.0, warmup) == 0.0
    assert rate_factor(warmup, warmup) == 1.0
    assert rate_factor(1.0, warmup) == 0.0
    assert rate_factor(warmup / 2, warmup) == pytest.approx(0.5)
    assert rate_factor((1 + warmup) / 2, warmup) == pytest.approx(0.5)


@given(st.floats(0, 1), st.floats(0, 0.99))
def test_the_rate_is_piecewise_linear_and_stays_between_zero_and_one(
    done: float, warmup: float
) -> None:
    expected = np.interp(done, [0.0, warmup, 1.0], [0.0, 1.0, 0.0]) if warmup else 1.0 - done
    assert rate_factor(done, warmup) == pytest.approx(float(expected), abs=1e-9)
    assert 0.0 <= rate_factor(done, warmup) <= 1.0


def test_without_warmup_the_rate_only_falls() -> None:
    assert [rate_factor(x, 0.0) for x in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]


WINDOWS = [
    Window(0, (101, 7, 8, 9, 102), (0, 1), (1, 3)),
    Window(0, (101, 9, 102), (), ()),
    Window(1, (101, 5, 6, 7, 8, 9, 102), (0, 2), (1, 5)),
]
LABELS = [(1, 2), (), (3, 0)]


def collator(*, first_position: int = 0, types: bool = True, pad_id: int = 0) -> Collator:
    return Collator(pad_id, types, first_position, 512)


@pytest.mark.parametrize("first_position", [0, 2])
@pytest.mark.parametrize("labels", [None, LABELS], ids=["unlabelled", "labelled"])
def test_every_input_is_a_contiguous_int64_tensor_with_a_batch_axis(
    first_position: int, labels: list[tuple[int, ...]] | None
) -> None:
    batch = collator(first_position=first_position)(WINDOWS, labels)
    names = {"input_ids", "attention_mask", "position_ids", "token_type_ids"}
    assert set(batch) == names | ({"labels"} if labels else set())
    for tensor in batch.values():
        assert tensor.shape == (3, 7)
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
        # rows of their own: a broadcast axis would have stride 0
        assert tensor.stride() == (7, 1)


def test_windows_are_padded_to_the_longest_and_padding_is_masked() -> None:
    batch = collator(pad_id=55)(WINDOWS, None)
    assert batch["input_ids"].tolist() == [
        [101, 7, 8, 9, 102, 55, 55],
        [101, 9, 102, 55, 55, 55, 55],
        [101, 5, 6, 7, 8, 9, 102],
    ]
    assert batch["attention_mask"].tolist() == [[1] * 5 + [0] * 2, [1] * 3 + [0] * 4, [1] * 7]
    assert not batch["token_type_ids"].any()


def test_labels_stand_at_the_first_sub_word_of_owned_words_and_nowhere_else() -> None:
    labels = collator()(WINDOWS, LABELS)["labels"]
    n = IGNORED
    assert labels.tolist() == [[n, 1, n, 2, n, n, n], [n] * 7, [n, 3, n, n, n, 0, n]]


def test_bert_counts_positions_from_zero_through_the_padding() -> None:
    positions = collator()(WINDOWS, None)["position_ids"]
    assert positions.tolist() == [list(range(7))] * 3


def test_roberta_counts_positions_from_its_padding_index_and_pads_with_it() -> None:
    positions = collator(first_position=2, pad_id=1)(WINDOWS, None)["position_ids"]
    assert positions.tolist() == [
        [2, 3, 4, 5, 6, 1, 1],
        [2, 3, 4, 1, 1, 1, 1],
        [2, 3, 4, 5, 6, 7, 8],
    ]


def test_token_types_are_given_only_to_an_encoder_that_takes_them() -> None:
    assert "token_type_ids" not in collator(types=False)(WINDOWS, None)


class _Classifier(nn.Module):
    """As much of a token classifier as a collator looks at."""

    def __init__(self, padding_idx: int | None) -> None:
        super().__init__()
        table = nn.Embedding(8, 2, padding_idx=padding_idx)
        self.base_model = SimpleNamespace(embeddings=SimpleNamespace(position_embeddings=table))
        self.config = SimpleNamespace(model_type="bert")


class _Bert(_Classifier):
    def forward(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, token_type_ids: torch.Tensor
    ) -> None: ...


class _Roberta(_Classifier):
    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> None: ...


class _Rotary(_Classifier):
    def forward(self, input_ids: torch.Tensor) -> None: ...


def test_the_collator_refuses_an_encoder_without_position_ids() -> None:
    with pytest.raises(EncoderError, match="positions"):
        Collator.of(_Rotary(None), Tokenizer(SimpleNamespace(pad_token_id=0)))


def test_the_collator_refuses_a_family_with_masks_or_positions_of_its_own() -> None:
    model = _Bert(None)
    model.config.model_type = "deberta-v2"
    with pytest.raises(EncoderError, match=r"'deberta-v2'.*\n.*distilbert"):
        Collator.of(model, Tokenizer(SimpleNamespace(pad_token_id=0)))


def test_the_collator_refuses_a_decoder() -> None:
    model = _Bert(None)
    model.config.is_decoder = True
    with pytest.raises(EncoderError, match="is_decoder"):
        Collator.of(model, Tokenizer(SimpleNamespace(pad_token_id=0)))


def test_the_collator_reads_positions_and_token_types_off_the_model() -> None:
    tokenizer = Tokenizer(SimpleNamespace(pad_token_id=9))
    assert Collator.of(_Bert(None), tokenizer) == Collator(9, True, 0, 8)
    assert Collator.of(_Roberta(1), tokenizer) == Collator(9, False, 2, 8)
    assert "token_type_ids" not in inspect.signature(_Roberta(1).forward).parameters


def test_the_collator_looks_through_adapters() -> None:
    class Adapted(nn.Module):
        def get_base_model(self) -> nn.Module:
            return _Bert(None)

    tokenizer = Tokenizer(SimpleNamespace(pad_token_id=0))
    assert Collator.of(Adapted(), tokenizer).takes_token_types


def test_a_word_that_the_tokenizer_erases_becomes_the_unknown_token() -> None:
    asked: list[list[str]] = []

    class Fast:
        unk_token_id = 77

        def __call__(self, words: list[str], **options: bool) -> dict[str, list[list[int]]]:
            assert options["add_special_tokens"] is False
            assert options["truncation"] is False
            asked.append(words)
            return {"input_ids": [[ord(c) for c in word if c.isalnum()] for word in words]}

    tokenizer = Tokenizer(Fast())
    assert tokenizer.encode_words(["ab", "?", "ab", "c"]) == [[97, 98], [77], [97, 98], [99]]
    assert asked == [["ab", "?", "c"]]
    assert tokenizer.encode_words([]) == []


def test_the_loss_is_summed_per_example_over_its_labelled_words_alone() -> None:
    logits = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1))
    labels = collator()(WINDOWS, LABELS)["labels"]
    losses = token_losses(logits, labels)
    assert losses.shape == (3,)
    log_probs = torch.log_softmax(logits, -1)
    expected = -(log_probs[0, 1, 1] + log_probs[0, 3, 2])
    assert losses[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses[1].item() == 0.0
    # each example's loss is its own: the others may be anything
    alone = token_losses(logits[2:], labels[2:])
    assert losses[2].item() == pytest.approx(alone[0].item(), rel=1e-6)


def test_examples_carry_the_tags_of_the_words_each_window_owns() -> None:
    examples = labels_for(WINDOWS, [[4, 3], [2, 1, 0]])
    assert examples.windows == tuple(WINDOWS)
    assert examples.labels == ((4, 3), (), (2, 0))
