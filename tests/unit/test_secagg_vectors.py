"""Work in parts: all of it, by as many threads as it is worth, each busy while there is some."""

import threading

import numpy as np
import pytest

from common.errors import ConfigError, DataError
from common.secagg import vectors
from common.secagg.adding import RunningTotal
from common.secagg.masks import Mask, add_masks_
from common.secagg.packing import pack, packed_size, unpack
from common.secagg.pipeline import Packed, mask_levels, unmask
from common.secagg.quantise import Grid, quantise
from common.secagg.vectors import (
    MAX_THREADS,
    PART_UNIT,
    PASSES_A_THREAD,
    in_parts,
    threads_for,
    threads_here,
)

N = 5 * PART_UNIT + 7


@pytest.fixture
def worth_all(monkeypatch):
    """Even small vectors are worth all threads."""
    monkeypatch.setattr(vectors, "PASSES_A_THREAD", 1)


def masks(n: int) -> list[Mask]:
    return [Mask(key=bytes([i]) * 32, sign=1) for i in range(n)]


def test_small_work_has_one_thread_and_more_with_masks_and_values():
    assert threads_for(1_000_000, 16, 3) == 1
    assert threads_for(PASSES_A_THREAD, 16, 1) == 1
    assert threads_for(2 * PASSES_A_THREAD, 16, 1) == 2
    assert threads_for(PASSES_A_THREAD, 16, 2) == 2
    assert threads_for(1_000_000, 16, 10 * PASSES_A_THREAD // 1_000_000 + 1) == 10


def test_threads_are_never_more_than_asked_for_or_than_parts():
    assert threads_for(1 << 30, 3, 100) == 3
    assert threads_for(PART_UNIT + 1, 16, 1 << 30) == 2
    assert threads_for(0, 16, 100) == 1


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, None])
def test_fewer_threads_than_one_are_refused_even_of_nothing(threads):
    with pytest.raises(ConfigError, match="threads"):
        in_parts(0, threads, 1, list)


@pytest.mark.usefixtures("worth_all")
@pytest.mark.parametrize("threads", [1, 2, 3, 50])
@pytest.mark.parametrize("n", [0, 1, PART_UNIT, PART_UNIT + 1, N, 100 * PART_UNIT])
def test_parts_cover_the_vector_once_and_begin_at_units(n, threads):
    parts = sorted(part for own in in_parts(n, threads, 1, list) for part in own)
    bounds = [0, *(stop for _, stop in parts)]
    assert [start for start, _ in parts] == bounds[:-1]
    assert bounds[-1] == n
    assert all(start % PART_UNIT == 0 for start, _ in parts)


def test_small_vectors_are_worked_on_by_the_caller_alone(monkeypatch):
    def refuse(*_):
        raise AssertionError("a thread was started")

    monkeypatch.setattr(vectors, "ThreadPoolExecutor", refuse)
    k, grid = 20, Grid(clip=1.0, value_bits=16)
    values = quantise(np.zeros(N, np.float32), grid, k, lambda _: None, threads=8).values
    stream = pack(values, k, threads=8)
    RunningTotal(N, k).add(stream, threads=8)
    unmask(Packed(stream=stream, length=N), k, masks(10), threads=8)
    add_masks_(values, masks(10), k, threads=8)
    for levels in (unpack(stream, N, k, threads=8), Packed(stream=stream, length=N)):
        mask_levels(bytearray(packed_size(N, k)), levels, k, masks(10), threads=8)


@pytest.mark.parametrize(
    "work",
    [
        lambda values, stream: add_masks_(values, masks(3), 20, 2),
        lambda values, stream: RunningTotal(N, 20).add(stream, threads=2),
        lambda values, stream: unmask(Packed(stream=stream, length=N), 20, [], threads=2),
        lambda values, stream: unpack(stream, N, 20, threads=2),
        lambda values, stream: pack(values, 20, threads=2),
        lambda values, stream: mask_levels(bytearray(len(stream)), values, 20, [], threads=2),
        lambda values, stream: quantise(
            values.view(np.float32), Grid(clip=1.0, value_bits=16), 20, lambda _: None, threads=2
        ),
    ],
)
def test_work_that_is_worth_threads_has_them(work, monkeypatch):
    values = np.zeros(N, np.uint32)
    stream, started = pack(values, 20), []

    class Noting(vectors.ThreadPoolExecutor):
        def __init__(self, threads: int):
            started.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(vectors, "PASSES_A_THREAD", 1)
    monkeypatch.setattr(vectors, "ThreadPoolExecutor", Noting)
    work(values, stream)
    assert started == [1]  # beside the caller


@pytest.mark.usefixtures("worth_all")
def test_what_a_slow_thread_does_not_take_the_others_do():
    rest_done, slow = threading.Event(), threading.Barrier(2)

    def work(parts):
        first = next(parts)
        if slow.wait(10) == 0:  # one of the two, with a part in its hands
            assert rest_done.wait(10)
            return [first, *parts]
        taken = [first, *parts]
        rest_done.set()
        return taken

    shares = sorted(in_parts(16 * PART_UNIT, 2, 1, work), key=len)
    assert [len(share) for share in shares] == [1, 15]


@pytest.mark.usefixtures("worth_all")
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_an_error_of_any_thread_is_raised_after_the_others_have_ended(failing):
    ended, numbers = [], iter(range(1, 4))
    together = threading.Barrier(3)

    def work(parts):
        number = next(numbers)
        together.wait(10)
        if number == failing:
            raise DataError(f"thread {number}")
        ended.extend(parts)

    with pytest.raises(DataError, match=f"thread {failing}"):
        in_parts(N, 3, 1, work)
    assert len(ended) == 6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros(8, np.int32), "a vector of int32"),
        ([1, 2], "a vector of list"),
        (np.zeros((2, 4), np.uint32), "flat contiguous"),
        (np.zeros(8, np.uint32)[::2], "flat contiguous"),
        (np.frombuffer(bytes(33), np.uint8)[1:].view(np.uint32), "flat contiguous"),
    ],
)
def test_another_kind_of_array_is_refused_and_named(wrong, said):
    with pytest.raises(DataError, match=said):
        vectors.require_vector(wrong, np.uint32)


def test_a_read_only_vector_is_refused_only_where_it_is_written():
    fixed = np.zeros(8, np.uint32)
    fixed.flags.writeable = False
    vectors.require_vector(fixed, np.uint32)
    with pytest.raises(DataError, match="read-only"):
        vectors.require_vector(fixed, np.uint32, writable=True)


def test_threads_are_those_of_the_process_and_at_most_as_many_as_the_site_says(monkeypatch):
    for cores, found in ((1, 1), (3, 3), (64, MAX_THREADS)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert threads_here() == found
        assert threads_here(2) == min(2, cores)
        assert threads_here(1) == 1
