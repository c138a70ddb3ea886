"""Several processes that train together (``torchrun``): who this one is, what its share of a batch is, how sums are taken over all."""

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share(batch: int) -> range:
    """This process's places in a batch.

    Raises:
        ValueError: fewer clips than processes.
    """
    if batch < processes():
        raise ValueError(f"a batch of {batch} clips is too small for {processes()} processes: give at least one clip to each")
    return range(batch * rank() // processes(), batch * (rank() + 1) // processes())


def agreed(number: float, device: torch.device) -> float:
    """What the first process says, in all of them."""
    if processes() == 1:
        return number
    said = torch.tensor([number], dtype=torch.float64, device=device)
    dist.broadcast(said, 0)
    return float(said)


def add_up(tensors: list[Tensor]) -> None:
    """Sum each tensor over all processes, in place; tensors of one type travel together."""
    by_type: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in by_type.values():
        flat = torch.cat([tensor.flatten() for tensor in group])
        dist.all_reduce(flat)
        for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))
