"""Processes forked from one that has done the imports: real ones, each begun sooner by several seconds.

How processes are started in earnest is tested with `launch` and torchrun; here is what they do once they are there.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import forkserver
from unittest import mock

from ddpm_course.run.distributed import join
from helpers import free_port


@cache
def forks():
    "The way to start processes; the one that they are forked from has no threads, and ends with this one."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)), TORCH_CPP_LOG_LEVEL="ERROR"):
        forkserver.ensure_running()
    return context


def rank_of(rank, world, port, work, args):
    "What `launch.child` does."
    place = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with mock.patch.dict(os.environ, {name: str(value) for name, value in place.items()}), join("cpu") as group:
        return work(group, *args)


def together(work, world, *args):
    "What `launch(work, world, *args)` returns."
    with ProcessPoolExecutor(world, forks()) as pool:  # as many processes as tasks: each waits for all, and takes one
        return list(pool.map(partial(rank_of, world=world, port=free_port(), work=work, args=args), range(world)))
