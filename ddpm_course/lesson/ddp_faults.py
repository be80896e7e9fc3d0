"""The fault clinic of page 24: its script, right and broken in six ways. It gives the answers away.

    python -m ddpm_course.lesson.ddp_faults SCRIPT FOLDER SEEDS STEPS [BATCH]   in one process: the right script
    the same in two processes, afterwards               every letter, compared with it

Each run stops half-way and goes on. A line of JSON a run; FOLDER keeps what one process found.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..data.sets import load_digits, to_float
from ..forward import q_sample
from ..schedules import cosine

SHARE = 'every in (images[rows], t, noise)'
FAULTS = {                              # of each letter: its cause, what stands in place of what
    'A': (4, SHARE, SHARE.replace('noise', 'noise[:1 + (batch - 1) // world]'
                                  '.repeat_interleave(world, 0)')),
    'B': (2, '(loss * world).backward()', 'loss.backward()'),
    'C': (6, 'manual_seed(seed + step)', 'manual_seed(seed + step - start)'),
    'D': (0, '', ''),
    'E': (1, 'ddp(q_sample', 'net(q_sample'),
    'F': (5, 'w.data, 0.1)', 'w.data, 0.1 * (rank == 0))'),
    'G': (3, 'every[rank::world]', 'every[:batch // world]')}
SEED = 10**6                            # apart, so that no two seeds share a step
CLIP = 'torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)'


def flat(network: nn.Module) -> Tensor:
    "All weights as one vector."
    return torch.cat([p.detach().double().flatten() for p in network.parameters()])


@torch.no_grad()
def test_loss(network: nn.Module) -> float:
    "The loss on 500 test digits with the same noise for everybody."
    images, draws = to_float(load_digits('test', 16).pixels), torch.Generator().manual_seed(0)
    t = torch.arange(len(images)) * 1000 // len(images)
    noise = torch.randn(images.shape, generator=draws)
    return (network(q_sample(images, t, noise, cosine(1000)), t) - noise).square().mean().item()


def train(script: str, path: Path, seed: int, steps: int, batch: int = 32) -> dict[str, Any]:
    "Train, stop, go on: what this process has seen."
    seen: list[dict[str, Any]] = []

    def look(names: dict[str, Any], norm: Tensor) -> None:
        seen.append({'images': names['x0'].sum().item(), 'noise': names['noise'].sum().item(),
                     'gradient': norm.item(), 'net': names['net'], 'average': names['average']})
    space: dict[str, Any] = {'__name__': 'broken', 'look': look, 'print': lambda *_, **__: None}
    assert script.count(CLIP) == 1
    exec(script.replace(CLIP, f'look(locals(), {CLIP})'), space)
    for until in (steps // 2, steps):
        space['main'](until, str(path), batch=batch, seed=seed)
    wanted = dist.get_rank() == 0 and steps >= 100      # of a short run it says little
    first, after, last = seen[0], seen[steps // 2], seen[-1]
    return {'images': first['images'], 'noise': first['noise'], 'noise after': after['noise'],
            'gradient': first['gradient'], 'net': flat(last['net']),
            'average': flat(last['average']),
            'loss': test_loss(last['average']) if wanted else None}


def apart(a: Tensor, b: Tensor) -> float:
    "Relative difference of two vectors."
    return ((a - b).norm() / b.norm()).item()


def gathered(value: object) -> list[Any]:
    "The values of all processes, by rank."
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, value)
    return every


def numbers(seen: dict[str, Any]) -> dict[str, Any]:
    "Without the weights themselves: sums of their absolute values."
    return seen | {name: seen[name].abs().sum().item() for name in ('net', 'average')}


def reference(script: str, folder: Path, seeds: int, steps: int, batch: int = 32) -> None:
    "The right script in one process."
    found = [train(script, folder / f'one{batch}-{seed}.pt', SEED * seed, steps, batch)
             for seed in range(seeds)]
    torch.save(found, folder / 'right.pt')
    far = [apart(one['average'], found[0]['average']) for one in found[1:]]
    print(json.dumps({'seen': [numbers(found[0])], 'apart': far,
                      'losses': [one['loss'] for one in found]}))


def clinic(script: str, folder: Path, seeds: int, steps: int) -> None:
    "Every letter and seed in two processes: how far is an average from that of one process?"
    known = torch.load(folder / 'right.pt')
    for letter, (_, before, after) in FAULTS.items():
        assert not before or script.count(before) == 1, letter
        broken = script.replace(before, after) if before else script
        for seed in range(seeds):
            both = gathered(train(broken, folder / f'{letter}{seed}.pt', SEED * seed, steps))
            far = max(apart(own['average'], known[seed]['average']) for own in both)
            if dist.get_rank() == 0:
                print(json.dumps({'letter': letter, 'seed': seed, 'loss': both[0]['loss'],
                                  'apart': far, 'seen': [numbers(own) for own in both]}))


def main(script: Path, folder: Path, *sizes: int) -> None:
    "What this process does, alone or as one of two."
    dist.init_process_group('gloo')
    work = reference if dist.get_world_size() == 1 else clinic
    work(script.read_text(), folder, *sizes)
    dist.destroy_process_group()


if __name__ == '__main__':
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
