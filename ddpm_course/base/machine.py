import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn


def cores() -> int:
    "CPU cores that this process may use; a cluster's scheduler may give it fewer than there are."
    known = hasattr(os, 'sched_getaffinity')                    # not on macOS
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def pick_device(name: str = 'auto') -> torch.device:
    "`'auto'`, `'cpu'`, `'cuda'` or `'mps'` to a device. Raises ValueError where there is none."
    found = (torch.cuda.is_available(), torch.backends.mps.is_available(), True)
    here = [kind for kind, there in zip(('cuda', 'mps', 'cpu'), found) if there]
    if name != 'auto' and name not in here:
        raise ValueError(f'no device {name!r} on this machine: it has {", ".join(here)}')
    return torch.device(here[0] if name == 'auto' else name)


def pick_precision(name: str, device: torch.device) -> str:
    "`'auto'` becomes `'bf16'` where the hardware has it, else `'fp16'` on a GPU, or `'fp32'`."
    if name != 'auto':
        return name
    if device.type == 'cuda':
        return 'bf16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'fp16'
    has = lambda kind: getattr(torch.cpu, f'_is_{kind}_supported', bool)()      # bool(): False
    return 'bf16' if device.type == 'cpu' and (has('avx512_bf16') or has('amx_tile')) else 'fp32'


LOW = {'fp32': None, 'auto': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """What a GPU makes of products of float32 numbers for a block, matrices and convolutions alike.

    'fp32' means float32, all 24 bits. With 'bf16' and 'fp16', where few products stay in float32,
    those may be TF32 (11 bits, as fp16 has), which is several times as fast.
    """
    exact, cudnn = LOW[precision] is None, torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    torch.set_float32_matmul_precision('highest' if exact else 'high')
    cudnn.allow_tf32 = not exact
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    "Products in `precision` for a block; see `float32_products` for those that stay in float32."
    low = LOW[precision]
    with float32_products(precision), torch.autocast(device.type, low) if low else nullcontext():
        yield


@contextmanager
def torch_settings(threads: int, precision: str = 'auto') -> Iterator[None]:
    """For training: so many CPU threads, products of float32 as `float32_products` says, and on a
    GPU the convolutions that cuDNN finds quickest on the spot. Afterwards all is as before."""
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True       # the CPU has nothing of it
    try:
        with float32_products(precision):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.benchmark = before[1]


def to_device(network: nn.Module, device: torch.device | str) -> nn.Module:
    "A network, moved; on a GPU with channels last, as convolutions there like it."
    if torch.device(device).type in ('cpu', 'mps'):             # on a CPU it would change bits
        return network.to(device)
    return network.to(device, memory_format=torch.channels_last)    # type: ignore[call-overload]


def prefetch(make: Callable[[int], Any], steps: range, device: torch.device) -> Iterator[Any]:
    "`make` for each step, in order; for a device that computes by itself one ahead, in a thread."
    if device.type in ('cpu', 'mps'):                           # mps dislikes threads
        yield from map(make, steps)
        return
    here = partial(torch.cuda.set_device, device) if device.type == 'cuda' else None
    with ThreadPoolExecutor(1, initializer=here) as thread:
        coming = [thread.submit(make, step) for step in steps[:1]]
        for step in steps:
            done = coming.pop().result()
            coming += [thread.submit(make, later) for later in range(step + 1, steps.stop)[:1]]
            yield done


def keep_memory() -> None:
    "Keep freed buffers for the next evaluation of a network, in this process, where glibc can."
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
    if mallopt:
        mallopt(-3, 32 << 20)           # M_MMAP_THRESHOLD: smaller ones come from the heap,
        mallopt(-1, 1 << 30)            # M_TRIM_THRESHOLD: of which so much may lie idle
