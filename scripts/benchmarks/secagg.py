"""Secure aggregation's numbers: ours, Flower's SecAgg+, the plain sum, and the physical limit.

    scripts/bench secagg [--sizes 1000000 22713216 110000000] [--institutions 3 10 32]
        [--repeats 5] [--threads N] [--value-bits 16] [--flower-values 1500000000] [--cpu-time]

Interleaved in one process; seconds are medians over repeats, ratios medians of the ratios within a
repeat. An institution of a cohort of n adds n masks: n - 1 pairwise ones and its own.
    limit       for each mask the AES-256-CTR keystream of 4 bytes a value, added in 128 KiB pieces;
                and one quantisation, the ratios' reference. `by wire` is the same with no more
                keystream than travels, k bits a value: less than modulo 2^32 can do with
    ours        what a worker runs. Under `quantise` its rounding: weighted, on the grid, packed to
                be kept. Under `masks` the message: what was kept read, masks added, packed again.
                "N threads" is the most it may use; rounding has one
    Flower      its client's functions on one flat array: parameters_multiply and quantize;
                pseudo_rand_gen and addition for each mask, modulus; ndarray_to_bytes
    plain sum   one float32 vector added to another
What is packed goes into new memory, whose pages the times hold: those of this machine, not of a
host that takes back what a guest has freed and is slow to give it again, which is why as much as a
step takes is touched before it. The coordinator adds one vector
to its packed total; and, once a round, unpacks that, takes n self-masks off and scales the sum
back. Where n masks would be more than --flower-values values, Flower's are extrapolated from fewer,
and the row says so. Peak extra memory (resident) is that of an institution with 3 masks, in a
process of its own, beside the float vector and one packed stream: while it rounds, the levels that
are kept; while it masks, the message, and the vector, which is gone by then, has left its place to
those levels.
"""

import argparse
import mmap
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from flwr.common import bytes_to_ndarray, ndarray_to_bytes
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    factor_extract,
    parameters_addition,
    parameters_mod,
    parameters_multiply,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

from client.rounding import Rounding
from common.config.load import parse_study
from common.config.study import Study
from common.io.processes import module_command
from common.privacy.keystream import Keystream, Seed, counter_mode, write_keystream
from common.secagg.adding import RunningTotal
from common.secagg.codec import encode_masked
from common.secagg.masks import Mask
from common.secagg.packing import packed_size
from common.secagg.pipeline import Packed, mask_levels, unmask
from common.secagg.quantise import dequantise_sum, quantise
from common.secagg.session import Session
from common.sums import grid_of
from scripts.benchmarks.dp_step import _cpu_name

_CLIP, _TARGET, _MODULUS = 8.0, 1 << 22, 1 << 32  # Flower's defaults
_PIECE = 1 << 15
_TOUCHED, _TOUCHED_BY_FLOWER = 12, 48
"""Bytes a value that are touched before a step."""
_PEAKS = ("ours", "flower")
_BY_WIRE = "limit by wire"
_SESSION = Session(study="1a" * 32, roster="2b" * 32, purpose="train", round=1, attempt=1)
_SIZES = (1_000_000, 22_713_216, 110_000_000)

Times = dict[str, float]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench secagg")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_SIZES))
    parser.add_argument("--institutions", type=int, nargs="+", default=[3, 10, 32])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--value-bits", type=int, default=16)
    parser.add_argument("--flower-values", type=int, default=1_500_000_000)
    parser.add_argument("--flower", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time, one thread: for a busy machine"
    )
    parser.add_argument("--peak-of", choices=_PEAKS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.peak_of:
        print(_peak(options.peak_of, options.sizes[0], options))
        return 0
    _settings(options)
    for size in options.sizes:
        peaks = _peaks(size, options) if options.memory else {}
        for institutions in options.institutions:
            _tables(Case(size, institutions, options), peaks)
    return 0


def _settings(options: argparse.Namespace) -> None:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True)
    print(f"- {_cpu_name()}; {options.threads} threads; numpy {np.__version__}")
    print(f"- commit {commit.stdout.decode().strip()}; {options.repeats} repeats")
    print(f"- {'processor time' if options.cpu_time else 'wall clock'}; load {os.getloadavg()[0]}")
    tunables = os.environ.get("GLIBC_TUNABLES", "none")
    print(f"- {options.value_bits} bits a value; GLIBC_TUNABLES {tunables}\n")


class Case:
    """One size and cohort: its arrays, and what is timed on them."""

    def __init__(self, size: int, institutions: int, options: argparse.Namespace):
        self.size, self.institutions, self.options = size, institutions, options
        study = _study(institutions, options.value_bits)
        self.k, self.grid = study.secure_parameters.bits, grid_of(study)
        name = study.federation.institutions[0]
        self.rounding = Rounding(study, name, self.k, lambda _kind, _figures: None)
        self.update = _update(size)
        self.values = np.empty(size, np.uint32)
        self.message = b""
        self.total = RunningTotal(size, self.k)
        self.keystream = Keystream(Seed.for_tests(1).value, "bench")
        self.masks = [
            Mask(key=self.keystream.bytes(32), sign=1 - 2 * (i % 2)) for i in range(institutions)
        ]
        wanted = options.flower_values // size
        self.flower_masks = max(1, min(institutions, wanted))
        self.flower_message: list[bytes] = []

    @contextmanager
    def timed(self, times: Times, name: str) -> Iterator[None]:
        clock = time.process_time if self.options.cpu_time else time.perf_counter
        started = clock()
        yield
        times[name] = clock() - started

    def touch(self, name: str) -> None:
        """Have the host give what a step is to take: freed here, it is taken by the step."""
        each = _TOUCHED_BY_FLOWER if name == "Flower" else _TOUCHED
        np.empty(self.size * each, np.uint8)[:: mmap.PAGESIZE] = 0

    def plain(self) -> Times:
        times: Times = {}
        total = self.values.view(np.float32)
        with self.timed(times, "add"):
            np.add(total, self.update, out=total)
        return times

    def limit(self, bits: int = 32) -> Times:
        """Keystream of so many bits a value and mask, added; and one quantisation."""
        times: Times = {}
        with self.timed(times, "masks"):
            streams = [counter_mode(mask.key, bytes(16)) for mask in self.masks]
            words = np.empty(_PIECE, np.uint32)
            values = self.values[: self.size * bits // 32]
            for first in range(0, len(values), _PIECE):
                piece = values[first : first + _PIECE]
                for stream in streams:
                    write_keystream(stream, words[: len(piece)].data.cast("B"))
                    np.add(piece, words[: len(piece)], out=piece)
        with self.timed(times, "quantise"):
            quantise(self.update, self.grid, self.k, self.keystream.fill, out=self.values)
        return times

    def ours(self, threads: int) -> Times:
        times: Times = {}
        self.message = b""
        with self.timed(times, "quantise"):
            levels = self.rounded()
        with self.timed(times, "masks"):
            self.message = self.masked(levels, threads)
        return times

    def rounded(self) -> Packed:
        """As `client.session` has it."""
        return Packed(stream=self.rounding.round(1, self.update, None), length=self.size)

    def masked(self, levels: Packed, threads: int) -> bytes:
        """As the institution's machine writes it."""
        return encode_masked(
            _SESSION, 0, self.size, self.k,
            lambda room: mask_levels(room, levels, self.k, self.masks, threads=threads),
        )  # fmt: skip

    def coordinator(self, threads: int) -> Times:
        times: Times = {}
        with self.timed(times, "add"):
            self.total.add(self._stream(), threads=threads)
        with self.timed(times, "unmask"):
            self.opened(threads)
        return times

    def opened(self, threads: int) -> np.ndarray:
        """As the coordinator's machine and `server.collect` have it."""
        total = Packed(stream=self.total.stream, length=self.size)
        levels = unmask(total, self.k, self.masks, threads=threads)
        return dequantise_sum(levels, self.grid, self.k, out=levels.view(np.float32))

    def _stream(self) -> memoryview:
        """The message without its header."""
        return memoryview(self.message)[-packed_size(self.size, self.k) :]

    def flower(self) -> Times:
        times: Times = {}
        self.flower_message = []
        with self.timed(times, "quantise"):
            values = quantize(parameters_multiply([self.update], 1.0), _CLIP, _TARGET)
        values = factor_combine(_TARGET, values)
        shapes = [array.shape for array in values]
        with self.timed(times, "masks"):
            for mask in self.masks[: self.flower_masks]:
                words = pseudo_rand_gen(mask.key, _MODULUS, shapes)
                change = parameters_addition if mask.sign == 1 else parameters_subtraction
                values = change(values, words)
        with self.timed(times, "pack"):
            values = parameters_mod(values, _MODULUS)
            self.flower_message = [ndarray_to_bytes(array) for array in values]
        times["masks"] *= self.institutions / self.flower_masks
        return times

    def flower_coordinator(self) -> Times:
        times: Times = {}
        total = [bytes_to_ndarray(data) for data in self.flower_message]
        shapes = [array.shape for array in total]
        with self.timed(times, "add"):
            vector = [bytes_to_ndarray(data) for data in self.flower_message]
            total = parameters_addition(total, vector)
        del vector
        with self.timed(times, "masks"):
            for mask in self.masks[: self.flower_masks]:
                words = pseudo_rand_gen(mask.key, _MODULUS, shapes)
                total = parameters_subtraction(total, words)
        with self.timed(times, "scale"):
            _, values = factor_extract(parameters_mod(total, _MODULUS))
            dequantize(values, _CLIP, _TARGET)
        times["masks"] *= self.institutions / self.flower_masks
        return {"add": times["add"], "unmask": times["masks"] + times["scale"]}


def _study(institutions: int, value_bits: int) -> Study:
    """The smallest with a secure sum of so many."""
    return parse_study(
        f"""\
study: bench
encoder: {{name: none, weights_sha256: {"ab" * 32}}}
training: {{rounds: 1, learning_rate: 1e-3}}
federation: {{institutions: {[f"site-{i}" for i in range(institutions)]}}}
privacy: none
secure_aggregation: {{clip: 0.05, value_bits: {value_bits}}}
""",
        "bench",
    )


def _update(size: int) -> np.ndarray:
    random = np.random.Generator(np.random.PCG64(0))
    update = random.standard_normal(size, np.float32)
    update *= 0.01
    return update


def _tables(case: Case, peaks: dict[str, int]) -> None:
    options = case.options
    all_threads = "" if options.cpu_time else f"ours, {options.threads} threads"
    sending: dict[str, Callable[[], Times]] = {
        "limit": case.limit,
        _BY_WIRE: lambda: case.limit(case.k),
        "ours, 1 thread": lambda: case.ours(1),
    }
    receiving: dict[str, Callable[[], Times]] = {
        "plain sum": case.plain,
        "ours, 1 thread": lambda: case.coordinator(1),
    }
    if all_threads:
        sending[all_threads] = lambda: case.ours(options.threads)
        receiving[all_threads] = lambda: case.coordinator(options.threads)
    if options.flower:
        sending["Flower"], receiving["Flower"] = case.flower, case.flower_coordinator
    sent: dict[str, list[Times]] = {name: [] for name in sending}
    received: dict[str, list[Times]] = {name: [] for name in receiving}
    case.ours(1)  # a first time, apart
    for _ in range(options.repeats):
        for name, step in sending.items():
            case.touch(name)
            sent[name].append(step())
        for name, step in receiving.items():
            case.touch(name)
            received[name].append(step())
    print(f"**{case.size:,} parameters, {case.institutions} institutions, k = {case.k}**\n")
    _sending_table(case, sent, peaks)
    _receiving_table(case, received)


def _sending_table(case: Case, sent: dict[str, list[Times]], peaks: dict[str, int]) -> None:
    totals = {name: [sum(t.values()) for t in times] for name, times in sent.items()}
    goal, by_wire = totals["limit"], totals[_BY_WIRE]
    sizes = {"Flower": sum(map(len, case.flower_message)) / case.size}
    print("| institution | s | quantise | masks | pack | / limit | / by wire | Flower / this "
          "| bytes a parameter | extra MiB |")  # fmt: skip
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, own in totals.items():
        parts = [_median([t[p] for t in sent.get(name, []) if p in t]) for p in _PARTS]
        cells = [_seconds(statistics.median(own)), *map(_seconds, parts)]
        cells += [_ratio(own, goal), _ratio(own, by_wire)]
        cells.append(_ratio(totals.get("Flower", []), own))
        ours = name.startswith("ours")
        size = len(case.message) / case.size if ours else sizes.get(name, 0.0)
        cells.append(f"{size:.3f}" if size else "")
        peak = peaks.get(name, -1)
        cells.append("" if peak < 0 else f"{peak / 2**20:.1f}")
        print(f"| {_label(case, name)} | " + " | ".join(cells) + " |", flush=True)
    print()


_PARTS = ("quantise", "masks", "pack")


def _receiving_table(case: Case, received: dict[str, list[Times]]) -> None:
    print("| coordinator | add one, s | Flower / this | unmask, s | Flower / this |")
    print("|---|---:|---:|---:|---:|")
    for name, times in received.items():
        cells = []
        for part in ("add", "unmask"):
            own = [t[part] for t in times if part in t]
            other = [t[part] for t in received.get("Flower", [])]
            cells += [_seconds(_median(own)), _ratio(other, own)]
        print(f"| {_label(case, name)} | " + " | ".join(cells) + " |", flush=True)
    print(flush=True)


def _label(case: Case, name: str) -> str:
    if name == "Flower" and case.flower_masks < case.institutions:
        return f"Flower (masks EXTRAPOLATED from {case.flower_masks} to {case.institutions})"
    return name


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ratio(over: list[float], under: list[float]) -> str:
    if not over or not under:
        return ""
    return f"{statistics.median(a / b for a, b in zip(over, under, strict=True)):.2f}"


def _peaks(size: int, options: argparse.Namespace) -> dict[str, int]:
    kinds = {"ours, 1 thread": ("ours", 1), "Flower": ("flower", 1)}
    kinds |= {f"ours, {options.threads} threads": ("ours", options.threads)}
    found = {}
    for name, (kind, threads) in kinds.items():
        if kind == "flower" and not options.flower:
            continue
        command = module_command(
            "scripts.benchmarks", "secagg", "--peak-of", kind, "--sizes", str(size),
            "--threads", str(threads), "--value-bits", str(options.value_bits),
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = int(done.stdout.split()[-1])
    return found


def _peak(name: str, size: int, options: argparse.Namespace) -> int:
    """Bytes at the peak of one institution's work, less its vector and its message."""
    small = Case(4 * _PIECE, 3, options)
    _once(small, name, options.threads)  # libraries are loaded
    case = Case(size, 3, options)
    case.values = case.update.view(np.uint32)
    before = psutil.Process().memory_info().rss
    # not ru_maxrss, which a process inherits from the one that starts it
    Path("/proc/self/clear_refs").write_text("5")
    _once(case, name, options.threads)
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    message = len(case.message) + sum(map(len, case.flower_message))
    return max(0, int(peak.split()[1]) * 1024 - before - message)


def _once(case: Case, name: str, threads: int) -> None:
    if name == "flower":
        case.flower()
        return
    levels = case.rounded()
    case.update = case.values = np.empty(0, np.float32)  # a worker's is gone by then
    case.message = case.masked(levels, threads)
