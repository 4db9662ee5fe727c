"""Several processes, one batch: a loss that comes out as if one process had seen it whole."""

from torch import Tensor, distributed


def processes() -> int:
    """How many processes train together; 1 outside a distributed run."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def global_mean(total: Tensor, weight: Tensor) -> Tensor:
    """Mean loss over the batch of all processes, from this one's ``total`` and ``weight`` (or count).

    Distributed training averages gradients over processes, which is the gradient of the batch's mean only
    where every process has the same weight. Here each process's share is divided by the weight of all, so
    that the average is exact for uneven class weights. The value, averaged over processes, is the mean loss
    of the batch.
    """
    if processes() == 1:
        return total / weight
    everyone = weight.detach().clone()
    distributed.all_reduce(everyone)
    return total * processes() / everyone
