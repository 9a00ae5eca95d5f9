"""Time and memory of a private step: ours, Opacus, and the same without privacy.

    scripts/bench dp-step [--quick] [--repeats 5] [--cases minilm/64/float32/full …] [--device cuda]
        [--opacus-logical] [--cpu-time --threads 1]

Interleaved in one process; each variant has its own copy of one random model, and all of them the
same units, batches, precision, attention kernel, optimiser and threads. No row is padded, and ours
alone has a mask nevertheless, as it always has. Ratios are medians, over repeats, of a repeat's
time divided by that of the non-private step beside it.
    logical     512 units expected: sampling, forward, backward, clipping, noise, AdamW
    physical    one batch of it: forward, backward, clipping and summing
    noise       on a finished sum
Peak memory is that of one logical step in a fresh process for each variant: resident memory of the
whole process (on a GPU: what torch has allocated), and how much of it came on top of the loaded
model. It is set by the physical batch, so that at most 128 units are taken for it.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from common.config.privacy import LocalPrivacy
from common.config.study import Lora, Training
from common.data.encode import Window
from common.io.processes import module_command
from common.model.inputs import Collator
from common.model.private import (
    PrivateData,
    Randomness,
    Recipe,
    noisy_gradient,
    physical_batches,
)
from common.model.running import attend_for, explicitly_masked
from common.model.train import Examples, autocast, token_losses
from common.privacy.clipping import UnitClipper
from common.privacy.keystream import Keystream, Seed
from common.privacy.noise import add_noise_
from common.privacy.plan import Mechanism
from common.privacy.sampling import poisson_sample
from common.privacy.units import Units
from scripts.console import quiet_libraries

VARIANTS = ("non-private", "ours", "hooks", "ghost")
_SHAPES = {
    "tiny": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    "minilm": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "bert-base": {},
    "bert-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}
_PEAK_UNITS = 128
_RATE = 1 / 8
_CLIP = 0.1


@dataclass(frozen=True, slots=True)
class Case:
    """`shape/tokens/precision/train`, for example `minilm/64/bfloat16/lora`."""

    shape: str
    tokens: int
    precision: str
    train: str

    @classmethod
    def parse(cls, text: str) -> "Case":
        shape, tokens, precision, train = text.split("/")
        return cls(shape, int(tokens), precision, train)

    def __str__(self) -> str:
        return f"{self.shape}/{self.tokens}/{self.precision}/{self.train}"


def default_cases(device: str) -> list[Case]:
    """MiniLM in full, and larger shapes."""
    small = [
        Case("minilm", tokens, precision, train)
        for tokens in (64, 128)
        for precision in ("float32", "bfloat16")
        for train in ("full", "lora")
    ]
    shapes = ("bert-base", "bert-large") if device == "cuda" else ("bert-base",)
    return small + [Case(s, 64, "bfloat16", t) for s in shapes for t in ("full", "lora")]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench dp-step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--units", type=int, default=512, help="expected units of a logical step")
    parser.add_argument("--cases", nargs="+", type=Case.parse)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="128 units, 3 repeats, two cases")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--opacus-logical", action="store_true", help="Opacus: whole steps too")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time: for one thread of a busy machine"
    )
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    quiet_libraries()
    for text in ("Full backward hook", "Secure RNG turned off", ".*is_gradient_checkpointing"):
        warnings.filterwarnings("ignore", text)  # advice of torch, Opacus, transformers
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.quick:
        options.units, options.repeats = 128, 3
    cases = options.cases or default_cases(options.device)
    cases = cases if options.cases or not options.quick else cases[2:4]
    if options.peak_of:
        print(json.dumps(asdict(_peak(cases[0], options.peak_of, options))))
        return 0
    _settings(options)
    for case in cases:
        _table(case, options)
    return 0


def _settings(options: argparse.Namespace) -> None:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True)
    where = torch.cuda.get_device_name() if options.device == "cuda" else _cpu_name()
    print(f"- {where}; {torch.get_num_threads()} threads; torch {torch.__version__}")
    print(f"- commit {commit.stdout.decode().strip()}; {options.repeats} repeats")
    malloc = {k: v for k, v in os.environ.items() if k.startswith("MALLOC_")}
    print(
        f"- {'processor time' if options.cpu_time else 'wall clock'}; malloc {malloc or 'default'}"
    )
    print(f"- {options.units} units expected in a logical step, 4096 padded sub-words in a batch")
    units = min(_PEAK_UNITS, options.units)
    print(f"- memory: a process for each variant, one logical step of {units} units expected\n")


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor()


class Bench:
    """One case: its data, and the steps of each variant."""

    def __init__(self, case: Case, units: int, device: str):
        self.case, self.units, self.device = case, units, torch.device(device)
        self.recipe = _recipe(case, units)
        self.data = _data(case, units * round(1 / _RATE))
        self.repeat = 0

    def randomness(self) -> Randomness:
        """The same for every variant of a repeat: so are then the units sampled."""
        seed = Seed.for_tests(self.repeat).value
        return Randomness(Keystream(seed, "sampling"), Keystream(seed, "noise"))

    def batches(self) -> Iterator[list[int]]:
        chosen = poisson_sample(len(self.data.units), _RATE, self.randomness().sampling).tolist()
        return physical_batches(self.data, chosen, self.recipe.privacy.physical_tokens)

    def losses(self, model: nn.Module, rows: list[int], masked: bool = False) -> torch.Tensor:
        """Summed over the words of each row, none of which is padded: `[rows]`."""
        windows = [self.data.examples.windows[i] for i in rows]
        batch = self.data.collate(windows, [self.data.examples.labels[i] for i in rows])
        inputs = {k: v.to(self.device) for k, v in batch.items()}
        labels = inputs.pop("labels")
        with autocast(self.case.precision, self.device):
            logits = model(**(explicitly_masked(model, inputs) if masked else inputs)).logits
        return token_losses(logits, labels)


Steps = dict[str, Callable[[], object]]


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-4, fused=True)


def _non_private(bench: Bench) -> Steps:
    model = _model(bench)
    optimizer = _optimizer(model)

    def physical() -> None:
        bench.losses(model, next(bench.batches())).sum().backward()  # type: ignore[no-untyped-call]

    def logical() -> None:
        optimizer.zero_grad()
        for batch in bench.batches():
            bench.losses(model, batch).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return {"physical": physical, "logical": logical}


def _ours(bench: Bench) -> Steps:
    model = _model(bench)
    optimizer = _optimizer(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    clipper = UnitClipper(model, _CLIP)

    def physical() -> None:
        batch = next(bench.batches())
        with clipper, clipper.rows(range(len(batch))):
            clipper.add(bench.losses(model, batch, masked=True))

    def noise() -> None:
        stddev = bench.recipe.mechanism.noise_stddev
        add_noise_(clipper.total, stddev, bench.randomness().noise)

    def logical() -> None:
        gradient = noisy_gradient(
            model, clipper, bench.data, bench.recipe, bench.randomness(), bench.device
        )
        parts = torch.split(gradient, [p.numel() for p in trained])
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        optimizer.step()
        optimizer.zero_grad()

    return {"physical": physical, "logical": logical, "noise": noise}


def _hooks(bench: Bench) -> Steps:
    from opacus import GradSampleModule  # type: ignore[import-untyped]
    from opacus.optimizers import DPOptimizer  # type: ignore[import-untyped]

    model = _model(bench)
    per_unit = max(len(batch) for batch in bench.batches())
    needed = 2 * 4 * per_unit * sum(p.numel() for p in model.parameters() if p.requires_grad)
    room = psutil.virtual_memory().available
    if bench.device.type == "cuda":
        room = torch.cuda.mem_get_info()[0]
    if needed > room:
        raise MemoryError(f"{needed >> 30} GiB")
    wrapped: Any = GradSampleModule(model, loss_reduction="sum")
    optimizer: Any = DPOptimizer(
        _optimizer(model),
        noise_multiplier=1.0,
        max_grad_norm=_CLIP,
        expected_batch_size=bench.units,
        loss_reduction="sum",
    )
    return _opacus(bench, wrapped, optimizer, lambda losses: losses.sum())


def _ghost(bench: Bench) -> Steps:
    from opacus.grad_sample import (  # type: ignore[import-untyped]
        GradSampleModuleFastGradientClipping,
    )
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import (  # type: ignore[import-untyped]
        DPTensorFastGradientClipping,
    )

    model = _model(bench)
    wrapped: Any = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=_CLIP, use_ghost_clipping=True, loss_reduction="sum"
    )
    optimizer: Any = DPOptimizerFastGradientClipping(
        _optimizer(model),
        noise_multiplier=1.0,
        max_grad_norm=_CLIP,
        expected_batch_size=bench.units,
        loss_reduction="sum",
    )
    pack = partial(DPTensorFastGradientClipping, wrapped, optimizer, loss_reduction="sum")
    return _opacus(bench, wrapped, optimizer, pack)


def _opacus(bench: Bench, wrapped: Any, optimizer: Any, pack: Callable[[Any], Any]) -> Steps:
    def add(batch: list[int], last: bool) -> None:
        optimizer.signal_skip_step(do_skip=not last)
        pack(bench.losses(wrapped, batch)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def physical() -> None:
        add(next(bench.batches()), last=False)

    def logical() -> None:
        for parameter in optimizer.params:
            parameter.summed_grad = None
        batches = list(bench.batches())
        for batch in batches:
            add(batch, last=batch is batches[-1])

    return {"physical": physical, "logical": logical}


_BUILD = {"non-private": _non_private, "ours": _ours, "hooks": _hooks, "ghost": _ghost}


def _table(case: Case, options: argparse.Namespace) -> None:
    bench = Bench(case, options.units, options.device)
    times: dict[tuple[str, str], list[float]] = {}
    failed: dict[str, str] = {}
    steps: dict[str, Steps] = {}
    for name in options.variants:
        try:
            steps[name] = _BUILD[name](bench)
            steps[name]["physical"]()  # a first time, apart
            if name in ("hooks", "ghost") and not options.opacus_logical:
                del steps[name]["logical"]
        except (RuntimeError, MemoryError, ValueError, NotImplementedError, TypeError) as error:
            steps.pop(name, None)
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
    for repeat in range(options.repeats):
        bench.repeat = repeat
        for kind in ("physical", "logical", "noise"):
            for name in steps:
                if kind in steps[name]:
                    taken = _timed(steps[name][kind], options.cpu_time)
                    times.setdefault((name, kind), []).append(taken)
    steps.clear()
    ran = list(dict.fromkeys(name for name, _ in times))
    peaks = {n: _peak_apart(case, n, options) for n in ran} if options.memory else {}
    print(f"**{case}**\n")
    print(
        "| | logical ms | ratio | physical ms | ratio | noise ms | whole MiB | ratio "
        "| above model MiB | ratio |"
    )
    print("|---|" + "---:|" * 9)
    for name in options.variants:
        print(_row(name, times, failed, peaks), flush=True)
    print(flush=True)


def _row(
    name: str,
    times: dict[tuple[str, str], list[float]],
    failed: dict[str, str],
    peaks: "dict[str, Peak | str]",
) -> str:
    if name in failed:
        return f"| {name} | {failed[name]} |" + " |" * 8
    cells = []
    for kind in ("logical", "physical"):
        own, plain = times.get((name, kind), []), times.get(("non-private", kind))
        cells.append(f"{1e3 * statistics.median(own):.0f}" if own else "not run")
        ratios = [a / b for a, b in zip(own, plain, strict=True)] if own and plain else []
        cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
    noise = times.get((name, "noise"))
    cells.append(f"{1e3 * statistics.median(noise):.0f}" if noise else "")
    cells += _memory(peaks.get(name, "not run"), peaks.get("non-private"))
    return f"| {name} | " + " | ".join(cells) + " |"


def _memory(own: "Peak | str", plain: "Peak | str | None") -> list[str]:
    """Whole and above the model, each with its ratio; or why there is no figure."""
    if isinstance(own, str):
        return [own, "", "", ""]
    cells = []
    for kind in ("whole", "above_model"):
        value = getattr(own, kind)
        cells.append(f"{value / 2**20:.0f}")
        cells.append(f"{value / getattr(plain, kind):.2f}" if isinstance(plain, Peak) else "")
    return cells


def _timed(step: Callable[[], object], cpu_time: bool) -> float:
    clock = time.process_time if cpu_time else time.perf_counter
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = clock()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes of one logical step at its peak, of the process and above the loaded model."""

    whole: int
    above_model: int


def _peak_apart(case: Case, name: str, options: argparse.Namespace) -> Peak | str:
    """In a process of its own, or why it gave none."""
    command = module_command(
        "scripts.benchmarks", "dp-step", "--peak-of", name, "--cases", str(case),
        "--units", str(min(_PEAK_UNITS, options.units)), "--device", options.device,
        "--threads", str(torch.get_num_threads()),
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return f"failed: {said[-1][:60]}"
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _peak(case: Case, name: str, options: argparse.Namespace) -> Peak:
    bench = Bench(case, options.units, options.device)
    step = _BUILD[name](bench)["logical"]
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        whole = torch.cuda.max_memory_allocated()
    else:
        before = _settled()
        step()
        whole = _high_water()
    return Peak(whole=whole, above_model=whole - before)


def _settled() -> int:
    """Resident bytes now; the kernel's high-water mark starts from them again.

    What building has freed goes back to the system first, or the step would find it there and seem
    to need less. The mark is not `ru_maxrss`, which a process inherits from the one that starts it.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss


def _high_water() -> int:
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024


def _recipe(case: Case, units: int) -> Recipe:
    declared = units * round(1 / _RATE)
    privacy = LocalPrivacy(
        mechanism="local",
        unit="record",
        noise_multiplier=1.0,
        delta=1e-6,
        clip=_CLIP,
        sampling_rate=_RATE,
        steps_per_round=1,
        declared_units=declared,
        evaluation="exact",
        settings_from="synthetic",
    )
    mechanism = Mechanism(
        unit="record",
        sampling_rate=_RATE,
        clip=_CLIP,
        noise_multiplier=1.0,
        divisor=_RATE * declared,
        steps_per_round=1,
    )
    training: Any = Training(rounds=1, learning_rate=1e-4, precision=case.precision)  # type: ignore[arg-type]
    return Recipe(mechanism, privacy, training)


def _data(case: Case, n: int) -> PrivateData:
    """Random units of one row each, all of the same length."""
    ids = np.random.Generator(np.random.PCG64(0)).integers(1000, 30000, (n, case.tokens)).tolist()
    words = tuple(range(1, case.tokens - 1))
    windows = tuple(Window(i, tuple(row), words, words) for i, row in enumerate(ids))
    labels = tuple(tuple(x % 3 for x in row[1:-1]) for row in ids)
    units = Units(tuple(map(str, range(n))), tuple((i,) for i in range(n)))
    collate = Collator(pad_id=0, takes_token_types=True, first_position=0, n_positions=512)
    return PrivateData(
        examples=Examples(windows=windows, labels=labels), units=units, collate=collate
    )


def _model(bench: Bench) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    config = BertConfig(
        **_SHAPES[bench.case.shape],
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model: Any = BertForTokenClassification(config)
    if bench.case.train == "lora":
        lora = Lora()
        model = get_peft_model(
            model,
            LoraConfig(
                task_type=TaskType.TOKEN_CLS,
                r=lora.rank,
                lora_alpha=int(lora.alpha),
                target_modules="all-linear",
                modules_to_save=["classifier"],
            ),
        )
    elif bench.case.train == "frozen_embeddings":
        model.base_model.embeddings.requires_grad_(False)
    attend_for(model, bench.device)
    return model.to(bench.device).train()
