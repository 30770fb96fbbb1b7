"""Resolve where and how a network computes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from shared.errors import InvalidRequest, ModelUnavailable

BF16_SINCE = (8, 0)
"""Compute capability from which CUDA devices compute in bfloat16."""
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True, slots=True)
class Placement:
    """A device and the arithmetic on it.

    Args:
        device: `cpu` or `cuda:N`.
        precision: `fp32` or `bf16`.
        runtime: `torch` or `openvino`.
        threads: threads for CPU arithmetic.
        decoder_threads: threads of the decoder; 0 leaves it to FFmpeg.
    """

    device: str = "cpu"
    precision: str = "fp32"
    runtime: str = "torch"
    threads: int = 1
    decoder_threads: int = 0


def resolve_placement(device: str, precision: str, runtime: str, threads: int) -> Placement:
    """Resolve `auto` device and precision, and 0 threads, to what this machine has.

    Raises:
        ModelUnavailable: a GPU was requested and is not there: never a silent fall back to the CPU.
        InvalidRequest: an unknown device, precision or runtime.
    """
    resolved_device = _resolve_device(device)
    if resolved_device != "cpu":
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32: convolutions would round to 10 bits otherwise
    if precision not in {"auto", "bf16", "fp32"} or runtime not in {"torch", "openvino"}:
        raise InvalidRequest(f"There is no precision {precision!r} or no runtime {runtime!r}.")
    if precision == "auto":
        precision = "bf16" if _has_bf16(resolved_device) else "fp32"
    return Placement(
        resolved_device, precision, runtime, threads or len(os.sched_getaffinity(0)), decoder_threads=threads
    )


def _resolve_device(name: str) -> str:
    if name == "auto":
        return "cuda:0" if torch.cuda.device_count() else "cpu"
    if name == "cpu":
        return name
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidRequest(f"There is no device {name!r}: auto, cpu, cuda or cuda:N.") from None
    index = device.index or 0
    if device.type != "cuda" or index >= torch.cuda.device_count():
        raise ModelUnavailable(f"The device {name!r} was requested, and this machine does not have it.")
    return f"cuda:{index}"


def _has_bf16(device: str) -> bool:
    if device != "cpu":
        return torch.cuda.get_device_capability(device) >= BF16_SINCE
    cpu_info = Path("/proc/cpuinfo")
    flags = cpu_info.read_text().split() if cpu_info.exists() else []
    return not BF16_FLAGS.isdisjoint(flags)
