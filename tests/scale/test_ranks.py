"""Sequences over ranks: what two to four processes compute together is what one computes alone."""

import copy
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import tapwise as tw
from tapwise.errors import TimelineError
from tapwise.geometry import Geometry
from tapwise.scale.shards import Shards, transfer

PROGRAM = Path(__file__).with_name("ranks_program.py")


def torchrun(ranks, what, cases, seed, program=PROGRAM):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", ranks]
    command += ["--master_addr", "127.0.0.1", "--master_port", "0", "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "127.0.0.1:0", program, what, cases, seed]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


@pytest.mark.parametrize(
    ("ranks", "what", "cases"), [(2, "layers", 40), (3, "models", 1), (2, "wrapped", 2), (3, "traffic", 0)]
)
def test_a_few_ranks(ranks, what, cases):
    assert "the same" in torchrun(ranks, what, cases, 0)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize(("what", "cases"), [("layers", 170), ("models", 6), ("wrapped", 4)])
def test_ranks(ranks, what, cases):
    assert "the same" in torchrun(ranks, what, cases, ranks)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_dead_rank_ends_the_others(ranks):
    said = torchrun(ranks, "dead", 0, 0)
    assert said.count("ended: rank") + said.count("ended:ended: rank") >= 1
    assert "a rank has ended or is late" in said


def test_a_late_rank_is_waited_for_no_longer_than_was_said():
    assert torchrun(2, "late", 0, 0).count("ended in time") == 1


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A process group of this process alone."""
    path = tmp_path_factory.mktemp("ranks") / "store"
    dist.init_process_group("gloo", store=dist.FileStore(str(path), 1), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_a_model_keeps_no_group_alive():
    """A group that outlives its destruction ends Python with an abort, now and then."""
    code = """
import gc, weakref, torch, torch.distributed as dist, tapwise as tw
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
model = tw.scale.parallelize(torch.nn.Conv1d(1, 1, 3), dist.group.WORLD)
y = tw.scale.gather(model(torch.randn(1, 1, 9)), dist.group.WORLD)
group = weakref.ref(dist.group.WORLD)
dist.destroy_process_group()
gc.collect()
assert group() is None
try:
    model(torch.randn(1, 1, 9))
except tw.scale.RankError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert "was destroyed: parallelize it anew" in done.stdout, done.stderr[-2000:]


def test_one_rank_computes_all(alone):
    model = nn.Sequential(nn.Conv1d(1, 3, 5, padding=2), nn.MaxPool1d(2), nn.Conv1d(3, 1, 3))
    x = torch.randn(2, 1, 50)
    expected = model(x)
    together = tw.scale.parallelize(model, alone)
    assert together is model
    torch.testing.assert_close(tw.scale.gather(together(tw.scale.shard(x, alone)), alone), expected)
    assert model.sequence_ranks.sent_bytes == 0


class Loud(nn.ConvTranspose1d):
    def forward(self, x):
        return torch.tanh(super().forward(x))


def attention():
    return nn.Sequential(nn.Conv1d(4, 4, 3), nn.TransformerEncoderLayer(4, 2))


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (nn.Sequential(nn.Conv1d(1, 4, 3), nn.LSTM(4, 4)), "LSTM in 1"),
        (attention(), r"TransformerEncoderLayer in 1: reads all of time"),
        (
            nn.Sequential(nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4)),
            "GroupNorm in 1: takes its statistics over all of time",
        ),
        (nn.Sequential(nn.Conv1d(1, 4, 3), nn.AdaptiveAvgPool1d(3)), "AdaptiveAvgPool1d in 1"),
        (nn.Sequential(nn.MaxPool1d(2, ceil_mode=True)), "MaxPool1d in 0: rounds"),
        (nn.Sequential(nn.AvgPool1d(3, padding=1, count_include_pad=False)), "AvgPool1d in 0: counts no padding"),
        (nn.Sequential(nn.Upsample(scale_factor=2, mode="linear")), "Upsample in 0: interpolates"),
        (nn.Sequential(nn.LazyConv1d(3, 3)), "LazyConv1d in 0: has no weight"),
        (nn.Sequential(nn.Conv2d(1, 1, 3)), "Conv2d in 0"),
        (nn.Sequential(nn.Conv1d(1, 4, 3), nn.Softmax(-1)), "Softmax in 1: works along the last axis"),
        (nn.Sequential(nn.Conv1d(1, 4, 3), nn.Flatten()), "Flatten in 1"),
        (nn.Sequential(nn.ConstantPad1d((-1, 2), 0.0)), "ConstantPad1d in 0: cuts the ends"),
        (nn.Sequential(Loud(1, 1, 3)), "Loud in 0: has a forward of its own"),
    ],
)
def test_what_mixes_time_is_refused_by_its_path(alone, model, path):
    before = [dict(module.__dict__) for module in model.modules()]
    with pytest.raises(TimelineError, match=path):
        tw.scale.parallelize(model, alone)
    assert [dict(module.__dict__) for module in model.modules()] == before


class Own(nn.Module):
    """A convolution, and what its model's own code does."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv1d(2, 2, 3, padding=1), function

    def forward(self, x):
        return self.function(self.conv(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(-1, keepdim=True),
        lambda x: x.cumsum(-1),
        lambda x: x.roll(1, -1),
        lambda x: x[..., :-1],
        lambda x: nn.functional.pad(x, (1, 0)),
        lambda x: nn.functional.max_pool1d(x, 2),
        lambda x: nn.functional.conv1d(x, torch.ones(2, 2, 3), padding=1),
        lambda x: nn.functional.interpolate(x, scale_factor=2, mode="linear"),
        lambda x: x.softmax(-1),
    ],
)
def test_with_an_example_a_models_own_code_is_looked_at(alone, function):
    with pytest.raises(TimelineError):
        tw.scale.parallelize(Own(function), alone, example=torch.randn(1, 2, 64))
    tw.scale.parallelize(Own(torch.tanh), alone, example=torch.randn(1, 2, 64))


@pytest.mark.parametrize("name", ["tcn", "wavenet", "unet"])
def test_with_an_example_what_layers_exchange_passes(alone, name):
    models = runpy.run_path(str(PROGRAM))["MODELS"]
    model = tw.scale.parallelize(models[name](), alone, example=torch.randn(1, 1, 128))
    assert model(torch.randn(1, 1, 64)).shape == (1, 1, 64)


def test_a_copy_runs_over_the_same_ranks(alone):
    model = tw.scale.parallelize(nn.Sequential(nn.Conv1d(1, 1, 3), nn.ReLU()), alone)
    other, x = copy.deepcopy(model), torch.randn(1, 1, 20)
    other[0].weight.data += 1
    assert not torch.equal(model(x), other(x))
    torch.testing.assert_close(other(x), nn.functional.conv1d(x, other[0].weight, other[0].bias).relu())
    with pytest.raises(TypeError, match="save its state_dict"):
        pickle.dumps(model)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]


def test_a_norm_over_time_is_refused_while_it_trains(alone):
    model = tw.scale.parallelize(nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4)), alone)
    with pytest.raises(TimelineError, match="BatchNorm1d in 1: takes its statistics over its own shard"):
        model(torch.randn(2, 1, 20))
    model.eval()(torch.randn(2, 1, 20))
    of_batch = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4, track_running_stats=False)).eval()
    with pytest.raises(TimelineError, match="BatchNorm1d in 1"):
        tw.scale.parallelize(of_batch, alone)(torch.randn(2, 1, 20))


def test_what_ranks_cut_or_pad_for_themselves_is_refused():
    assert torchrun(2, "cuts", 0, 0).count("refused") == 8


def test_dtensors_are_refused(alone):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    model = tw.scale.parallelize(nn.Conv1d(1, 1, 3), mesh)
    with pytest.raises(TypeError, match=r"got a DTensor.*to_local"):
        model(distribute_tensor(torch.randn(1, 1, 20), mesh, [Shard(2)]))
    with pytest.raises(TypeError, match="DeviceMesh of one dimension"):
        tw.scale.parallelize(nn.Conv1d(1, 1, 3), init_device_mesh("cpu", (1, 1)))
    with pytest.raises(TypeError, match="expected a DeviceMesh"):
        tw.scale.shard(torch.ones(3), "cpu")


def test_what_travels_is_the_halo_alone():
    """Each rank receives what its windows need and no more; what is sent is what is received."""
    geometry, shards = Geometry(5, dilation=3, padding="causal"), Shards.of_lengths([20, 3, 0, 17])
    outputs = shards.outputs(1, 40)
    plans = [transfer(geometry, shards, outputs, rank) for rank in range(4)]
    assert [plan.receives for plan in plans] == [(0, 0, 0, 0), (12, 0, 0, 0), (0, 0, 0, 0), (9, 3, 0, 0)]
    for one, plan in enumerate(plans):
        for other in range(4):
            assert sum(b - a for a, b in plan.sends[other]) == plans[other].receives[one]
    assert {plan.halo for plan in plans} == {24}
