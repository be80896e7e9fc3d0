"""The workshop of page 24d: a script that is right, and ten mistakes. It gives the answers away."""

from pathlib import Path

RIGHT = '''\
"Train a network on digits, in any number of processes: ddp.py STEPS FILE"
import copy, json, os, signal, sys
import torch
import torch.distributed as dist
import torch.distributed.nn
from torch.nn.parallel import DistributedDataParallel
from ddpm_course.data.sets import load_digits, to_float
from ddpm_course.forward import q_sample
from ddpm_course.schedules import cosine
from ddpm_course.unet import UNet

BATCH, EVERY, STOPPED = 32, 10, 143
images, schedule = to_float(load_digits('train', 16).pixels), cosine(1000)
signals = []


def share_of(step, rank, world):
    "What a process computes of a step's batch: images, t, noise."
    draws = torch.Generator().manual_seed(step)
    rows = torch.randint(len(images), (BATCH,), generator=draws)
    t = torch.randint(1000, (BATCH,), generator=draws)
    noise = torch.randn(BATCH, 1, 16, 16, generator=draws)
    return images[rows][rank::world], t[rank::world], noise[rank::world]


def save(file, done, parts):
    "All that the run needs to go on."
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save(states | {'done': done}, file + '.new')
    os.replace(file + '.new', file)


def load(file, parts):
    "Go on from a file, if there is one. Out: how many steps are done."
    if not os.path.exists(file):
        return 0
    saved = torch.load(file)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return saved['done']


def train(steps, file):
    "Train until so many steps are done or a signal comes. Out: whether one came."
    rank, world, stop = dist.get_rank(), dist.get_world_size(), False
    net = UNet(image_channels=1, size=16, channels=16, multipliers=(1, 2), blocks=1, attention=(),
               dropout=0.0, seed=0)
    average = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    parts = {'network': net, 'average': average, 'optimizer': optimizer}
    done = load(file, parts)
    ddp = DistributedDataParallel(net)
    for step in range(done, steps):
        x0, t, noise = share_of(step, rank, world)
        each = (ddp(q_sample(x0, t, noise, schedule), t) - noise).square().mean((1, 2, 3))
        loss = each.sum() / BATCH
        optimizer.zero_grad()
        (loss * world).backward()
        optimizer.step()
        for a, w in zip(average.parameters(), net.parameters()):
            a.data.lerp_(w.data, 0.1)
        sums = torch.tensor([loss.item(), len(signals)])
        dist.all_reduce(sums)
        stop = sums[1] > 0
        if rank == 0:
            print(json.dumps({'loss': sums[0].item()}), flush=True)
        if rank == 0 and (stop or step + 1 == steps or (step + 1) % EVERY == 0):
            save(file, step + 1, parts)
        if stop:
            break
    dist.barrier()
    return stop


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: signals.append(1))
    dist.init_process_group('gloo')
    stopped = train(int(sys.argv[1]), sys.argv[2])
    dist.destroy_process_group()
    sys.exit(STOPPED if stopped else 0)
'''

MISTAKES: list[list[tuple[str, str]]] = [       # what stands in place of what, script by script
    [('(ddp(q_sample', '(net(q_sample')],
    [('each.sum() / BATCH', 'each.mean() / world')],
    [('signals = []\n', 'signals = []\ndraws = torch.Generator().manual_seed(0)\n'),
     ('    draws = torch.Generator().manual_seed(step)\n', '')],
    [(", 'optimizer': optimizer}", '}')],
    [('    for name, part in parts.items():\n        part.load_state_dict(saved[name])\n',
      "    for name in ('network', 'optimizer'):\n"
      '        parts[name].load_state_dict(saved[name])\n')],
    [('save(file, step + 1, parts)', 'save(file, step, parts)')],
    [('(stop or step + 1 == steps', '(step + 1 == steps')],
    [("file + '.new')\n    os.replace(file + '.new', file)\n", 'file)\n')],
    [('stop = sums[1] > 0', 'stop = len(signals) > 0')],
    [("    os.replace(file + '.new', file)\n",
      "    os.replace(file + '.new', file)\n    dist.barrier()\n")]]


def broken(number: int) -> str:
    "The text of broken script 1 to 10."
    text = RIGHT
    for old, new in MISTAKES[number - 1]:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def write(number: int, folder: str | Path = '.') -> Path:
    "Write broken script 1 to 10 into a folder, for a reader to repair; a file of theirs stays."
    path = Path(folder) / f'broken{number}.py'
    if not path.exists():
        path.write_text(broken(number))
    return path
