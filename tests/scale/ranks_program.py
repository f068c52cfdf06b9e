"""What several ranks compute, held against one process: run by torchrun, one case after the other.

torchrun --nproc_per_node 3 tests/scale/ranks_program.py layers 100 0
"""

import datetime
import os
import random
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

sys.path.insert(0, str(Path(__file__).parent.parent))

import tapwise as tw
from tapwise.geometry import Geometry
from tapwise.scale import costs, parallelize
from tapwise.scale.shards import Shards, transfer


def total(tensor):
    """The sum over all ranks."""
    result = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(result)
    return result


def random_bounds(chance, length, ranks):
    """Shards of any lengths, often empty."""
    if chance.random() < 0.3:
        return [length * n // ranks for n in range(ranks + 1)]
    cuts = sorted(chance.choice([0, length, chance.randint(0, length)]) for _ in range(ranks - 1))
    return [0, *cuts, length]


def random_layer(chance):
    """Any layer, the channels of its input, and the fewest samples that it takes."""
    groups = chance.choice([1, 1, 2, 3])
    fan_in, fan_out = groups * chance.randint(1, 2), groups * chance.randint(1, 2)
    taps, stride, dilation = chance.randint(1, 9), chance.randint(1, 4), chance.randint(1, 4)
    effective = dilation * (taps - 1) + 1
    kind = chance.randrange(10)
    if kind >= 8:  # depthwise, by windows longer than a shard
        taps, channels = chance.randint(60, 90), chance.randint(2, 5)
        of = chance.choice([tw.Conv1d, tw.ConvTranspose1d])
        arguments = {"padding": chance.randint(0, taps // 2)}
        made = of(channels, channels * chance.randint(1, 2), taps, stride=stride, groups=channels, **arguments)
        return made, channels, taps
    if kind == 0:
        padding = chance.randint(0, taps // 2)
        return nn.MaxPool1d(taps, stride, padding, dilation), fan_in, effective
    if kind == 1:
        return nn.AvgPool1d(taps, stride, chance.randint(0, taps // 2)), fan_in, taps
    if kind == 2:
        pads = (chance.randint(0, 5), chance.randint(0, 5))
        of = chance.choice([nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d, nn.ZeroPad1d])
        return of(pads), fan_in, 6
    if kind in (3, 4):
        left, right = chance.randint(0, effective - 1), 0
        output_padding = chance.randint(0, max(stride, dilation) - 1) if chance.random() < 0.5 else 0
        padding = left if chance.random() < 0.5 else "causal"
        layer = tw.ConvTranspose1d if padding != "causal" else tw.CausalConvTranspose1d
        arguments = {} if padding == "causal" else {"padding": padding, "output_padding": output_padding}
        made = layer(
            fan_in,
            fan_out,
            taps,
            stride=stride,
            dilation=dilation,
            groups=groups,
            bias=chance.random() < 0.7,
            **arguments,
        )
        return made, fan_in, effective + right
    padding = chance.choice(["same", "causal", "valid", "full", (chance.randint(0, 9), chance.randint(0, 9))])
    mode = chance.choice(["zeros", "zeros", "reflect", "replicate", "circular"])
    made = tw.Conv1d(
        fan_in, fan_out, taps, stride, padding, dilation, groups, bias=chance.random() < 0.7, padding_mode=mode
    )
    return made, fan_in, max(effective, 34 if mode != "zeros" else 1)


def same(found, expected, what):
    found, expected = found.detach(), expected.detach()
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    if expected.numel():
        error = float((found - expected).abs().max() / (1 + expected.abs().max()))
        assert error < 1e-10, (what, error)


def compare(make, x_full, bounds, mesh, what, double=False):
    """A model's outputs and gradients over shards, against one process."""
    rank = dist.get_rank()
    torch.manual_seed(5)
    alone = make()
    torch.manual_seed(5)
    together = parallelize(make(), mesh)
    a, b = bounds[rank], bounds[rank + 1]
    x_full = x_full.clone().requires_grad_()
    x = x_full.detach()[..., a:b].clone().requires_grad_()
    y_full, y = alone(x_full), together(x)
    gathered = tw.scale.gather(y, mesh)
    same(gathered, y_full, (what, "outputs"))
    seed = torch.randn(y_full.shape, generator=torch.Generator().manual_seed(1), dtype=y_full.dtype)
    own = seed[..., sum(lengths_before(y, mesh)) :][..., : y.shape[-1]]
    wanted = torch.autograd.grad((y_full * seed).sum(), [x_full, *alone.parameters()], create_graph=double)
    found = torch.autograd.grad((y * own).sum(), [x, *together.parameters()], create_graph=double)
    same(found[0], wanted[0][..., a:b], (what, "grad_input"))
    for mine, theirs in zip(found[1:], wanted[1:], strict=True):
        same(total(mine), theirs, (what, "grad_weight"))
    if double and list(alone.parameters()):
        wanted = torch.autograd.grad((wanted[0] ** 2).sum(), list(alone.parameters()), allow_unused=True)
        found = torch.autograd.grad((found[0] ** 2).sum(), list(together.parameters()), allow_unused=True)
        for mine, theirs in zip(found, wanted, strict=True):
            if theirs is not None:
                same(total(torch.zeros_like(theirs) if mine is None else mine), theirs, (what, "double"))
    return together


def lengths_before(y, mesh):
    lengths = [torch.zeros((), dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, torch.tensor(y.shape[-1]))
    return [int(n) for n in lengths[: dist.get_rank()]]


def layers(mesh, cases, seed):
    """Random layers over random shards."""
    chance = random.Random(seed)
    ranks, halo, swaps = dist.get_world_size(), 0, 0
    for case in range(cases):
        torch.manual_seed(case)
        layer, channels, fewest = random_layer(chance)
        length = fewest + chance.randint(0, 60)
        bounds = random_bounds(chance, length, ranks)
        batch = chance.choice([1, 2, 3])
        x = torch.randn(batch, channels, length, generator=torch.Generator().manual_seed(case), dtype=torch.float64)
        state = layer.double().state_dict()

        def make(layer=layer, state=state):
            import copy

            return copy.deepcopy(layer)

        double = case % 3 == 0 and not isinstance(layer, nn.MaxPool1d)
        made = compare(make, x, bounds, mesh, (case, layer, length, bounds), double)
        halo += made.sequence_ranks.exchanges
        swaps += made.sequence_ranks.swaps
    assert (halo > cases // 2 and (swaps or ranks < 3 or cases < 100)) or ranks == 1, (halo, swaps)


class Residual(nn.Module):
    """A TCN's block."""

    def __init__(self, channels, dilation):
        super().__init__()
        self.conv = tw.CausalConv1d(channels, channels, 3, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        return x + self.mix(torch.tanh(self.conv(x)))


class Gated(nn.Module):
    """A WaveNet of dilated gates and skips."""

    def __init__(self):
        super().__init__()
        self.first = tw.CausalConv1d(1, 6, 2)
        self.filters = nn.ModuleList(tw.CausalConv1d(6, 6, 2, dilation=2**n) for n in range(5))
        self.gates = nn.ModuleList(tw.CausalConv1d(6, 6, 2, dilation=2**n) for n in range(5))
        self.skips = nn.ModuleList(nn.Conv1d(6, 3, 1) for _ in range(5))
        self.last = nn.Conv1d(3, 1, 1)

    def forward(self, x):
        h, skipped = self.first(x), 0
        for filter, gate, skip in zip(self.filters, self.gates, self.skips, strict=True):
            h = h + torch.tanh(filter(h)) * torch.sigmoid(gate(h))
            skipped = skipped + skip(h)
        return self.last(torch.relu(skipped))


class UNet(nn.Module):
    """Down by strides and pooling, up by transposed convolutions and repetition, skips between."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(1, 4, 5, padding=2, padding_mode="reflect")
        self.down, self.pool = nn.Conv1d(4, 6, 4, stride=2, padding=1), nn.MaxPool1d(2)
        self.middle = nn.Conv1d(6, 6, 3, padding=2, dilation=2)
        self.up, self.repeat = nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1), nn.Upsample(scale_factor=2)
        self.norm = nn.BatchNorm1d(6).eval()
        self.last = nn.Conv1d(8, 1, 1)

    def forward(self, x):
        first = self.first(x)
        down = nn.functional.gelu(self.norm(self.down(first)))
        middle = self.repeat(self.middle(self.pool(down))) + down
        return self.last(torch.cat((self.up(middle), first), 1))


def tcn():
    return nn.Sequential(tw.CausalConv1d(1, 5, 3), *(Residual(5, 2**n) for n in range(6)), nn.Conv1d(5, 1, 1))


MODELS = {"tcn": tcn, "wavenet": Gated, "unet": UNet}


def models(mesh, cases, seed):
    """Whole models over random shards."""
    chance = random.Random(seed)
    for case in range(cases):
        for name, of in MODELS.items():
            length = 4 * chance.randint(20, 60)
            step = 4 if name == "unet" else 1  # skips are joined: shards begin at multiples of the strides
            bounds = [step * n for n in random_bounds(chance, length // step, dist.get_world_size())]
            x = torch.randn(2, 1, length, generator=torch.Generator().manual_seed(case), dtype=torch.float64)
            compare(lambda of=of: of().double(), x, bounds, mesh, (name, length, bounds), double=case % 2 == 0)


def wrapped(mesh, steps, seed):
    """DDP and FSDP2 on top: the same losses and weights as one process."""
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    rank, ranks, length = dist.get_rank(), dist.get_world_size(), 300
    bounds = [0, *sorted(random.Random(seed).sample(range(1, length), ranks - 1)), length]
    for kind in ("ddp", "fsdp"):
        torch.manual_seed(seed)
        alone = tcn().double()
        torch.manual_seed(seed)
        model = parallelize(tcn().double(), mesh)
        if kind == "ddp":
            together = DistributedDataParallel(model)
        else:
            for block in model:
                if isinstance(block, Residual):
                    fully_shard(block, mesh=mesh)
            together = fully_shard(model, mesh=mesh)
        one, other = (torch.optim.SGD(m.parameters(), 0.05) for m in (alone, together))
        for step in range(steps):
            x = torch.randn(2, 1, length, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            target = x.roll(3, -1)
            wanted = ((alone(x) - target) ** 2).mean()
            a, b = bounds[rank], bounds[rank + 1]
            share = ((together(x[..., a:b]) - target[..., a:b]) ** 2).sum() * ranks / target.numel()
            same(total(share) / ranks, wanted.detach(), (kind, step))
            for optimizer, loss in ((one, wanted), (other, share)):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def dead(mesh, _, __):
    """The last rank ends in mid-step: the others raise in time."""
    x = torch.randn(1, 1, 50)
    model = parallelize(tcn(), mesh, timeout=5)
    model(x).sum().backward()
    if dist.get_rank() == dist.get_world_size() - 1:
        time.sleep(0.5)
        os._exit(0)
    started = time.monotonic()
    try:
        for _ in range(1000):
            model(x).sum().backward()
            time.sleep(0.01)
    except tw.scale.RankError as error:
        assert time.monotonic() - started < 20
        print("ended:", str(error).replace("\n", " "), flush=True)
        os._exit(0)
    os._exit(1)


def traffic(mesh, _, __):
    """Bytes on the wire are the cost model's, forward and backward."""
    ranks, rank, batch = dist.get_world_size(), dist.get_rank(), 2
    chance = random.Random(0)
    for case in range(20):
        length = 200
        bounds = random_bounds(chance, length, ranks)
        channels, taps = chance.choice([1, 4]), chance.choice([3, 90])
        groups = chance.choice([1, channels])
        torch.manual_seed(case)
        layer = parallelize(tw.CausalConv1d(channels, channels, taps, groups=groups), mesh)
        x = torch.randn(batch, channels, bounds[rank + 1] - bounds[rank], requires_grad=True)
        layer(x).sum().backward()
        sent = int(total(torch.tensor(layer.sequence_ranks.sent_bytes)))
        shards = Shards(tuple(bounds))
        plan = transfer(Geometry.of(layer), shards, shards, rank)
        halo = costs.halo_bytes(plan, batch, channels, 4)
        swap = costs.swap_bytes(shards, shards, batch, channels, channels, 4) if groups == channels > 1 else halo
        assert sent == 2 * min(halo, swap), (case, sent, halo, swap)
        assert layer.sequence_ranks.swaps == (swap < halo)
        assert layer.sequence_ranks.length_bytes == (1 + 4 + 3) * 8 * (ranks - 1)  # of input, layer, output


class Cuts(nn.Module):
    """A causal layer as tutorials write it: padded on both sides, then cut."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 1, 3, padding=2), nn.Conv1d(1, 1, 3)

    def forward(self, x):
        return self.second(self.first(x)[..., :-2])


class Pads(Cuts):
    """Another: padded by a function."""

    def forward(self, x):
        return self.second(nn.functional.pad(x, (2, 0)))


def late(mesh, _, __):
    """The last rank is late: the others raise once their time is over."""
    x = torch.randn(1, 1, 50)
    model = parallelize(tcn(), mesh, timeout=2)
    model(x)
    if dist.get_rank() == dist.get_world_size() - 1:
        time.sleep(8)
        os._exit(0)
    started = time.monotonic()
    try:
        model(x)
    except tw.scale.RankError:
        if 1.5 < time.monotonic() - started < 6:
            print("ended in time", flush=True)
    time.sleep(7)  # torchrun would end the late one
    os._exit(0)


class CutsLast(nn.Module):
    """Cut where no layer follows."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(1, 1, 3, padding=2)

    def forward(self, x):
        return self.first(x)[..., :-1]


def cuts(mesh, _, __):
    """What each rank does to its own shard is refused, on every rank, by the path of the layer; so are unlike ranks."""
    x = torch.randn(1, 1, 20)
    cases = [
        (Cuts(), x, "second: its input was cut or padded"),
        (Pads(), x, "second: its input was cut or padded"),
        (CutsLast(), x, "the model's output was cut or padded"),
        (Cuts(), torch.randn(1 + dist.get_rank(), 1, 20), "first: its input differs between ranks"),
    ]
    for model, given, said in cases:
        try:
            parallelize(model, mesh)(given)
        except tw.ShapeError as error:
            if said in str(error):
                print("refused", flush=True)


def main():
    what, cases, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=20))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    globals()[what](mesh, cases, seed)
    dist.barrier()
    if dist.get_rank() == 0:
        print("the same", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
