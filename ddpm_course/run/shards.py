"""Weights, gradients and the optimizer's memory in parts, one for each process (ZeRO; PyTorch's
fully_shard), for networks that do not fit otherwise. The average stays whole, to sample with."""
from typing import Any

import torch
from torch import Tensor, nn

# PyTorch's modules for this take a second to import: only where weights are cut


def cut(network: nn.Module) -> None:
    "Cut a network's weights, in place: each item of a list of modules is whole while it computes."
    from torch.distributed.fsdp import fully_shard
    for parts in [m for m in network.modules() if isinstance(m, nn.ModuleList)]:
        for part in parts:
            fully_shard(part)
    fully_shard(network)


def in_parts(x: Any) -> bool:
    "Whether this is a tensor in parts, PyTorch's DTensor."
    return hasattr(x, 'full_tensor')


def is_cut(network: nn.Module) -> bool:
    "Whether a network's weights are in parts."
    return any(in_parts(weight) for weight in network.parameters())


def whole(x: Tensor) -> Tensor:
    "The tensor that parts make, in all processes, which all ask for it; any other as it is."
    return x.full_tensor() if in_parts(x) else x        # type: ignore[attr-defined]


def like(x: Tensor, other: Any) -> Tensor:
    "A tensor in parts as another of its shape; as it is where that is whole."
    if in_parts(other) and x.shape == other.shape:
        from torch.distributed.tensor import distribute_tensor
        return distribute_tensor(x.to(other.device), other.device_mesh, other.placements,
                                 src_data_rank=None)        # each process has all of it
    return x


def load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    "Give a network these whole weights. Raises RuntimeError for those of another network."
    there = network.state_dict()
    network.load_state_dict({name: like(weight, there.get(name)) for name, weight in weights.items()})


def whole_memory(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    "An optimizer's state_dict with whole tensors."
    kept = optimizer.state_dict()
    memory = {k: {name: whole(x) for name, x in of.items()} for k, of in kept['state'].items()}
    return kept | {'state': memory}
