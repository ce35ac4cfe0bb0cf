"""Times the Local Linear Attention kernels on a CUDA device beside SDPA and the torch paths.

python -m benchmarks.lla.gpu [--quick] [--dims 64 128] [--out results/reference/lla-gpu.parquet]

Causal self attention of one sequence in bfloat16, H = 8; forward, forward+backward and one decode
step. Time is device time between CUDA events with a cold L2 cache, autotuning and compilation left
out; memory is the allocator's peak above the inputs. Every mechanism is compared with its
definition in float64 before its time counts. What is expected to take longer than --longest a call,
and what is not reached within --minutes, is recorded as not tried. The numbers go to --out, which
keeps those of other head dims, and to the terminal as Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.lla.gpu_markdown import markdown
from benchmarks.lla.gpu_measure import Measurement, Plan
from benchmarks.lla.gpu_rows import Result, write
from runners.environment import device_name

_OUT = Path("results/reference/lla-gpu.parquet")
_LENGTHS = tuple(1024 * 2**i for i in range(7))
_QUICK_LENGTHS = (1024, 4096, 16384)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, store and print; 2 where there is no CUDA device."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(words)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.lla.gpu needs a CUDA device, and torch finds none here", file=sys.stderr)
        return 2
    plan = _plan(options)
    out = options.out or (_OUT if options.device == "cuda" else None)
    source = shlex.join(["python", "-m", "benchmarks.lla.gpu", *words])
    results: list[Result] = []
    # Other backends of SDPA would take over, silently, where flash attention cannot serve.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        measurement = Measurement(plan)
        for comparison in measurement.run():
            results += comparison
            # As soon as they are there: a run that is cut off has not been for nothing.
            if out is not None:
                write(results, out, options.device, source)
            _say(comparison)
    name = device_name(options.device)
    rate = measurement.rate * 1e-12
    print(
        f"\n{name}; bfloat16 matrix product of size {plan.gemm_size}: {rate:.3g} TFLOP/s; {source}"
    )
    print(markdown(results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lla.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="three lengths, head dim 64")
    parser.add_argument("--dims", type=int, nargs="+", help="head dims (64 128)")
    parser.add_argument("--lengths", type=int, nargs="+", help="powers of two (1024 .. 65536)")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (8)")
    parser.add_argument("--longest", type=float, default=2.0, help="seconds that a call may take")
    parser.add_argument("--out", type=Path, help=f"Parquet file ({_OUT}; on a CPU none)")
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu: tiny sizes in Triton's interpreter (TRITON_INTERPRET=1), to try the script",
    )
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    device = torch.device(options.device)
    if device.type == "cpu":
        return Plan(
            device, options.dims or (16,), options.lengths or (32, 64), options.minutes,
            longest=1e3, heads=2, gemm_size=256, rounds=(2, 2),
        )  # fmt: skip
    dims = options.dims or ((64,) if options.quick else (64, 128))
    lengths = options.lengths or (_QUICK_LENGTHS if options.quick else _LENGTHS)
    return Plan(device, dims, sorted(lengths), options.minutes, options.longest)


def _say(comparison: Sequence[Result]) -> None:
    first = comparison[0]
    times = ", ".join(
        f"{r.entry.name} {1e3 * min(r.seconds):.3g} ms" if r.seconds else f"{r.entry.name} -"
        for r in comparison
    )
    print(f"D={first.dim} L={first.length} {first.phase}: {times}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
