import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch


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
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    "Products in `precision` for a block; on a GPU those that stay in fp32 in TF32."
    low, before = LOW[precision], torch.get_float32_matmul_precision()
    if device.type == 'cuda':
        torch.set_float32_matmul_precision('high')
    try:
        with torch.autocast(device.type, low) if low else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def torch_settings(threads: int) -> Iterator[None]:
    "So many CPU threads, and TF32 on GPUs that have it; afterwards all is as before."
    with ExitStack() as afterwards:
        afterwards.callback(torch.set_num_threads, torch.get_num_threads())
        afterwards.callback(torch.set_float32_matmul_precision,
                            torch.get_float32_matmul_precision())
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision('high')
        yield


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
