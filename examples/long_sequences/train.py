"""A dilated TCN trained on sequences that are divided over ranks: each holds its own part, and makes it itself.

    torchrun --nproc_per_node 2 examples/long_sequences/train.py --samples 1000000

prints the loss of each step, the same for any number of ranks, and the memory that each rank took.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

import tapwise as tw

BLOCK = 1 << 14


class Block(nn.Module):
    """A residual block: a dilated causal convolution, and a mixture of its channels."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = tw.CausalConv1d(channels, channels, 3, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(torch.relu(self.conv(x)))


def tcn(channels: int = 16, blocks: int = 9) -> nn.Sequential:
    """Receptive field: 2 * (2 ** blocks - 1) + 3 samples."""
    parts = [Block(channels, 2**n) for n in range(blocks)]
    return nn.Sequential(tw.CausalConv1d(1, channels, 3), *parts, nn.Conv1d(channels, 1, 1))


def samples(start: int, stop: int) -> tuple[Tensor, Tensor]:
    """A tone whose pitch wanders, and the same in noise: any part of an endless sequence, made by itself."""
    t = torch.arange(start, stop, dtype=torch.float64)
    clean = torch.sin(0.05 * t + 20 * torch.sin(t / 3000)).float()
    first, last = start // BLOCK, -(-stop // BLOCK)
    noise = torch.cat(
        [torch.randn(BLOCK, generator=torch.Generator().manual_seed(n)) for n in range(first, last)] or [t[:0]]
    )
    noisy = clean + 0.5 * noise[start - first * BLOCK : stop - first * BLOCK].float()
    return noisy[None, None], clean[None, None]


def train(length: int, steps: int) -> list[float]:
    """Train on one sequence, divided over the ranks; the loss of each step."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    mesh = init_device_mesh("cpu", (ranks,))
    torch.manual_seed(0)
    model = tw.scale.parallelize(tcn(), mesh)
    trained = DistributedDataParallel(model) if ranks > 1 else model
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    x, target = samples(length * rank // ranks, length * (rank + 1) // ranks)
    losses = []
    for step in range(steps):
        started = time.perf_counter()
        summed = ((trained(x) - target) ** 2).sum(dtype=torch.float64)
        optimizer.zero_grad()
        (summed * ranks / length).backward()  # DDP takes the mean over ranks
        optimizer.step()
        loss = summed.detach().clone()
        dist.all_reduce(loss)
        losses.append(float(loss) / length)
        if rank == 0:
            print(f"step {step:3}  loss {losses[-1]:.9f}  {time.perf_counter() - started:.2f} s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"rank {rank}: {x.shape[-1]:,} samples, {peak:,.0f} MB at most, {model.sequence_ranks.sent_bytes:,} bytes sent"
    )
    return losses


def main() -> None:
    """Run under torchrun."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    if "RANK" not in os.environ:
        parser.error("start it by torchrun --nproc_per_node 2 examples/long_sequences/train.py")
    dist.init_process_group("gloo")
    try:
        train(options.samples, options.steps)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
