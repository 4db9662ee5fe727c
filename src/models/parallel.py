"""Several processes, one batch: losses and batch norms that come out as if one process had seen it whole."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.plugins import LayerSync
from torch import Tensor, distributed, nn
from torch.autograd import Function


def processes() -> int:
    """How many processes train together; 1 outside a distributed run."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def global_mean(total: Tensor, weight: Tensor) -> Tensor:
    """Mean loss over the batch of all processes, from this one's ``total`` and ``weight`` (or count).

    Distributed training averages gradients over processes, which is the gradient of the batch's mean only
    where every process has the same weight. Here each process's share is divided by the weight of all, so
    that the average is exact for uneven shards and class weights. The value, averaged over processes, is
    the mean loss of the batch.
    """
    if processes() == 1:
        return total / weight
    everyone = weight.detach().clone()
    distributed.all_reduce(everyone)
    return total * processes() / everyone


class SumOverProcesses(Function):
    """A tensor summed over processes; its gradient is summed too, because every process depends on the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


def sum_over_processes(values: Tensor) -> Tensor:
    """See :class:`SumOverProcesses`."""
    total: Tensor = SumOverProcesses.apply(values)
    return total


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation (Ioffe & Szegedy 2015) by the statistics of all processes' examples.

    ``torch.nn.SyncBatchNorm`` does the same on GPUs alone. Shapes: ``(batch, feature, …)``; a process may
    have no example at all.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (batch, feature, ...), got {input.ndim} axes")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or processes() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        values = input if input.dtype == torch.double else input.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = sum_over_processes(torch.cat([values.sum(axes), count]))
        total, sums = sums[-1].detach(), sums[:-1]
        mean = sums / total
        centred = values - mean.view(shape)
        variance = sum_over_processes(centred.square().sum(axes)) / total
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), share)
            self.running_var.lerp_(variance.detach() * total / (total - 1).clamp_min(1), share)
        scaled = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(input.dtype)


class BatchNormAcrossProcesses(LayerSync):
    """Trainer plugin: batch norms count the examples of all processes, on GPUs and CPUs alike."""

    def apply(self, model: nn.Module) -> nn.Module:
        for name, child in model.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(model, name, _converted(child))
            else:
                self.apply(child)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        return model  # outside training the layer is an ordinary one


def _converted(layer: nn.modules.batchnorm._BatchNorm) -> GlobalBatchNorm:
    twin = GlobalBatchNorm(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    ).train(layer.training)
    for name, parameter in layer.named_parameters(recurse=False):
        setattr(twin, name, parameter)
    for name, buffer in layer.named_buffers(recurse=False):
        setattr(twin, name, buffer)
    return twin
