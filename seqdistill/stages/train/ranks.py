"""One training in several processes: which of them this is, and what they send one another.

A launcher (ours, torchrun, accelerate launch) starts the processes and numbers them. The first one owns the run's files. TRL's
config, when it is made, lets them find one another; what follows here works from then on.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def rank() -> int:
    """The number of this process, from 0; 0 when there is only one."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ and processes() > 1


def wait() -> None:
    """Returns when every process has come here."""
    if processes() > 1:
        import torch

        torch.distributed.barrier()


def shared(make: Callable[[], T]) -> T:
    """What `make` returns in the first process, which alone calls it, in every process."""
    if processes() == 1:
        return make()
    import torch
    from accelerate import PartialState

    device = PartialState().device
    value: list[Any] = [make() if rank() == 0 else None]
    torch.distributed.broadcast_object_list(value, device=device)
    made: T = value[0]
    return made


def anywhere(flag: bool) -> bool:
    """Whether the flag is set in any of the processes."""
    if processes() == 1:
        return flag
    import torch
    from accelerate import PartialState

    number = torch.tensor([int(flag)], device=PartialState().device)
    torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
    return bool(number.item())
