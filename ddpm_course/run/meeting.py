import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from ..base.group import Group
from ..base.machine import cores
from ..base.machine import pick_device
from .distributed import DDPGroup

TIMEOUT = 600               # seconds to wait for others, in each collective
PLACE = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT',
         'DDPM_TIMEOUT')    # what the environment says: the last is ours, the others torchrun's


def meet(kind: str, timeout: float | None = None) -> tuple[torch.device, int]:
    """Wait for the processes that the environment tells of; own device, and how many are here.

    Raises ConnectionError where that cannot be, or not all come in time.
    """
    e = os.environ
    try:
        rank, world = int(e['RANK']), int(e['WORLD_SIZE'])
        local_rank, here = int(e.get('LOCAL_RANK', rank)), int(e.get('LOCAL_WORLD_SIZE', world))
        seconds = timeout or float(e.get('DDPM_TIMEOUT', TIMEOUT))
        if not (0 <= rank < world and 0 <= local_rank < here):
            raise ValueError('a rank is below the number of processes, there and on its machine')
        if kind != 'cpu' and here > torch.cuda.device_count():
            raise ValueError(f'{here} processes need as many GPUs of CUDA; this machine has '
                             f'{torch.cuda.device_count()}')
        device = torch.device('cuda', local_rank) if kind != 'cpu' else torch.device('cpu')
        if kind != 'cpu':
            torch.cuda.set_device(device)
        dist.init_process_group('gloo' if kind == 'cpu' else 'cpu:gloo,cuda:nccl',
                                rank=rank, world_size=world, timeout=timedelta(seconds=seconds))
        dist.all_reduce(torch.zeros(1))                     # nobody leaves before all have met
    except (KeyError, ValueError, RuntimeError) as error:
        told = ' '.join(f'{name}={e[name]}' for name in PLACE if name in e)
        raise ConnectionError('this process could not meet the others that it was told of '
                              f'({told}): {str(error).splitlines()[0]}') from error
    return device, here


def check_srun() -> None:
    "Raise ValueError where Slurm's srun has started several of this that know of nobody."
    tasks = os.environ.get('SLURM_STEP_NUM_TASKS', '1')
    if 'RANK' not in os.environ and tasks != '1':
        raise ValueError(f'srun has started {tasks} of these, and none knows of the others: let it '
                         'start one torchrun on each machine (--ntasks-per-node=1)')


def check_restart() -> None:
    "Raise ValueError in a worker that torchrun restarts, or could, where that would be in vain."
    e = os.environ
    shared = e.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
    if shared and e.get('TORCHELASTIC_MAX_RESTARTS', '0') != '0':
        raise ValueError('restarted workers would find only old addresses in the store that they '
                         'share with torchrun: start it with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, '
                         'and with --rdzv-backend=c10d or --standalone')
    own = Path(e.get('TORCHELASTIC_ERROR_FILE') or '-/-/-/-')           # RUN/attempt_1/0/error.json
    earlier = set(own.parents[2].glob('attempt_*/*/error.json')) - set(own.parents[1].glob('*/*'))
    for path in earlier:
        kind, _, sentence = json.loads(path.read_text())['message']['message'].partition(': ')
        if kind == 'ValueError':
            raise ValueError(sentence)


@contextmanager
def join(
    device: str = 'auto',               # 'auto', 'cpu' or 'cuda'
    timeout: float | None = None,       # seconds to wait for others; None: DDPM_TIMEOUT, or 600
) -> Iterator[Group]:
    """This process alone or, as a worker of torchrun, among the others, while a block runs.

    Raises ConnectionError where they cannot meet. A ValueError of the block is final: a worker that
    torchrun starts again raises it at once.
    """
    check_srun()
    kind, threads, failed = pick_device(device).type, torch.get_num_threads(), True
    if 'RANK' not in os.environ:
        yield Group(kind)
        return
    check_restart()
    try:
        own, here = meet(kind, timeout)
        torch.set_num_threads(max(1, cores() // here))          # torchrun: one
        yield DDPGroup(here, own)
        failed = False
    except ValueError as error:
        if 'TORCHELASTIC_ERROR_FILE' in os.environ:
            get_error_handler().record_exception(ValueError(str(error)))
        raise
    finally:
        torch.set_num_threads(threads)
        if dist.is_initialized() and not (failed and kind == 'cuda'):
            dist.destroy_process_group()        # NCCL's farewell would wait for all the others
