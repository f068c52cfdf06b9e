"""tune: a model's convolutions are found and timed, and the model stays as it is."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from tapwise import tuning
from tapwise.engine import measured, trials
from tapwise.engine.plan import choose_kernel, choose_training
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry
from tapwise.tuning import kind_of


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nothing is measured before, and little time is spent on it."""
    tw.plans.clear()
    monkeypatch.setattr(trials, "_EACH", 0.002)
    yield
    tw.plans.clear()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 8, 5, padding="same", padding_mode="circular")
        self.depthwise = tw.Conv1d(8, 8, 3, groups=8, padding="causal")
        self.twice = nn.Conv1d(8, 8, 1)
        self.up = nn.ConvTranspose1d(8, 4, 4, 2, 1)
        self.last = nn.Parameter(torch.randn(1, 4, 3))
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.norm(self.twice(self.twice(self.depthwise(self.first(x)))))
        return F.conv1d(self.dropout(self.up(x)), weight=self.last, stride=2)


@pytest.mark.parametrize("backward", [False, True])
def test_every_convolution_is_found_and_chosen_for(backward):
    torch.manual_seed(0)
    model = Model().train()
    x = torch.randn(3, 2, 500)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    tuning = tw.tune(model, x, backward, save=False)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert "forward" not in vars(model.up)  # torch's own again
    assert sorted((p.kind, p.calls, p.batch) for p in tuning.problems) == [
        ("1x1", 2, 3), ("depthwise", 1, 3), ("few channels", 1, 3), ("few channels", 1, 3), ("transposed", 1, 3),
    ]  # fmt: skip
    first = tuning.problems[0]
    assert first.problem == Problem(Geometry(5, padding=2, padding_mode="circular"), 2, 8, 500, torch.float32, "cpu")
    assert all(p.chosen == choose_kernel(p.problem) and p.seconds > 0 for p in tuning.problems)
    assert len(tuning.training) == (5 if backward else 0)
    assert all(p.chosen == " ".join(choose_training(p.problem)) for p in tuning.training)
    assert all(tw.explain(layer, y).plan.is_measured for layer, y in [(model.depthwise, torch.randn(1, 8, 500))])
    text = str(tuning)
    assert text.splitlines()[0].startswith("6 convolutions of 5 shapes, timed on ")
    assert ("forward and backward" in text) == backward
    model.eval()
    with torch.no_grad():
        wanted = model(x)
        with tw.accelerate(model):
            torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)


def test_gains_are_of_times_that_were_measured():
    tuning = tw.tune(nn.Conv1d(4, 4, 31, groups=4), torch.randn(2, 4, 3000), save=False)
    (problem,) = tuning.problems
    found = measured.lookup(problem.problem, torch.get_num_threads())
    assert problem.torch_seconds == found.seconds["native"] * 2
    assert problem.seconds == found.seconds[problem.chosen] * 2
    assert problem.seconds <= problem.torch_seconds
    (row,) = [line for line in str(tuning).splitlines() if line.startswith("depthwise")]
    assert f"{problem.torch_seconds / problem.seconds:.2f}" in row.split()


def test_what_only_torch_can_run_is_left():
    class Complex(nn.Module):
        def forward(self, x):
            return F.conv1d(x.to(torch.complex64), torch.ones(1, 1, 3, dtype=torch.complex64))

    tuning = tw.tune(Complex(), torch.ones(1, 1, 9), save=False)
    assert (tuning.problems, list(tuning.left.values())) == ([], [1])
    assert "1 call left to torch, which alone can run them" in str(tuning)


def test_calls_of_layers_that_are_not_on_the_engine_are_left():
    def helper(x):
        return F.conv1d(x, torch.ones(1, 1, 3))

    class Helped(nn.Module):
        def forward(self, x):
            return helper(x)

    tuning = tw.tune(nn.Sequential(Helped(), nn.Conv1d(1, 1, 3)), torch.ones(1, 1, 99), save=False)
    assert len(tuning.problems) == 1
    assert "1 call left to torch, whose layers are not on the engine" in str(tuning)


def test_a_problem_of_several_batches_is_timed_once_by_the_largest(monkeypatch):
    layer, timed, measure = nn.Conv1d(4, 4, 3), [], trials.measure
    monkeypatch.setattr(trials, "measure", lambda *arguments: timed.append(arguments[1:]) or measure(*arguments))

    class Twice(nn.Module):
        def forward(self, x):
            return layer(x), layer(x[:1]), layer(x)

    model = Twice()
    model.layer = layer
    tuning = tw.tune(model, torch.randn(3, 4, 200), save=False)
    assert timed == [(3, False)]
    assert [(p.batch, p.calls) for p in tuning.problems] == [(3, 2), (1, 1)]
    assert tuning.problems[0].seconds == 3 * tuning.problems[1].seconds


def test_what_cant_be_tuned_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "measure", lambda *arguments: pytest.fail("it was timed"))
    layer, x = nn.Conv1d(4, 4, 3), torch.randn(1, 4, 200)
    with pytest.raises(ValueError, match=r"0\.weight has no numbers yet: run the model once"):
        tw.tune(nn.Sequential(nn.LazyConv1d(4, 3)), x)
    with pytest.raises(ValueError, match="takes an example"):
        tw.accelerate(layer, backward=True)
    file = tmp_path / "plans.json"
    file.write_text("{")
    monkeypatch.setenv("TAPWISE_PLANS", str(file))
    for work in (tw.tune, tw.accelerate):
        with pytest.raises(ValueError, match=r"plans\.json: is no file of plans"):
            work(layer, x)
    monkeypatch.setenv("TAPWISE_PLANS", str(file / "within a file"))
    with pytest.raises(OSError, match="TAPWISE_PLANS"):
        tw.accelerate(layer, x)
    assert "_conv_forward" not in vars(layer)


def test_training_steps_are_made_of_the_fastest_and_of_the_fastest_exact():
    times = ({"winograd": 1.0, "direct": 2.0, "gemm": 3.0}, {"fft": 1.0, "direct": 3.0}, {"fft": 1.0})
    found = {" ".join(training) for training in trials.combinations(times)}
    assert found == {
        *(f"{f} {i} {w}" for f in ("native", "winograd") for i in ("native", "fft") for w in ("native", "fft")),
        *(f"{f} {i} native" for f in ("native", "direct") for i in ("native", "direct")),
    }


def test_integers_are_left_and_options_that_look_at_no_measurement_are_refused():
    class Both(nn.Module):
        def forward(self, x):
            mask = F.conv1d(torch.ones(1, 1, 300, dtype=torch.int64), torch.ones(1, 1, 3, dtype=torch.int64))
            return F.conv1d(x, torch.ones(1, 1, 3)) * mask

    tuning = tw.tune(Both(), torch.ones(1, 1, 300), backward=True, save=False)
    assert (len(tuning.problems), list(tuning.left.values())) == (1, [1])
    for options in ({"kernel": "reference"}, {"deterministic": True}):
        with tw.options(**options), pytest.raises(ValueError, match="tuned for the default options"):
            tw.tune(nn.Conv1d(1, 1, 3), torch.ones(1, 1, 9), save=False)


def test_a_default_device_changes_nothing():
    x, w = torch.randn(1, 16, 300, requires_grad=True), torch.randn(16, 16, 5, requires_grad=True)
    wanted = torch.autograd.grad(tw.conv1d(x, w).sum(), (x, w))
    with torch.device("meta"), tw.options(kernel="winograd"):
        found = torch.autograd.grad(tw.conv1d(x, w).sum(), (x, w))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_autocast_is_a_problem_of_its_own_dtype():
    layer = nn.Conv1d(4, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        tuning = tw.tune(layer, torch.randn(1, 4, 200), save=False)
    assert tuning.problems[0].problem.dtype == torch.bfloat16


def test_it_is_saved_where_later_processes_look(tmp_path, monkeypatch):
    file = tmp_path / "folder" / "plans.json"
    monkeypatch.setenv("TAPWISE_PLANS", str(file))
    layer, x = nn.Conv1d(4, 4, 3), torch.randn(1, 4, 2000)
    tw.tune(layer, x, save=False)
    assert not file.exists()
    assert tw.plans.path() == file
    tw.tune(layer, x)
    tw.tune(layer, x[..., :1000])
    tw.plans.clear()
    assert tw.plans.load(file) == 2


def test_accelerate_with_an_example_reports_before_and_after():
    model = nn.Sequential(nn.Conv1d(2, 2, 31, groups=2), nn.Conv1d(2, 16, 1))
    accelerated = tw.accelerate(model, torch.randn(1, 2, 4000), backward=True)
    lines = str(accelerated).splitlines()
    assert lines[0] == "2 convolutions on Tapwise's engine"
    assert lines[2].split()[:6] == ["forward", "calls", "torch", "predicted", "tuned", "gain"]
    assert len(accelerated.tuning.problems) == len(accelerated.tuning.training) == 2
    accelerated.undo()
    assert "_conv_forward" not in vars(model[0])


def test_an_example_that_the_model_refuses_leaves_it_as_it_was():
    model = nn.Sequential(nn.Conv1d(2, 2, 3))
    with pytest.raises(RuntimeError):
        tw.accelerate(model, torch.randn(1, 3, 40))
    assert "_conv_forward" not in vars(model[0])
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        tw.tune(3, torch.randn(1, 3, 40))


KINDS = {
    "1x1": Problem(Geometry(1), 8, 8, 100, torch.float32, "cpu"),
    "dense": Problem(Geometry(3), 8, 8, 100, torch.float32, "cpu"),
    "few channels": Problem(Geometry(3), 8, 4, 100, torch.float32, "cpu"),
    "long": Problem(Geometry(64), 8, 8, 100, torch.float32, "cpu"),
    "grouped": Problem(Geometry(3, groups=2), 8, 8, 100, torch.float32, "cpu"),
    "depthwise": Problem(Geometry(3, groups=8), 8, 16, 100, torch.float32, "cpu"),
    "transposed": Problem(Geometry(3, transposed=True), 8, 8, 100, torch.float32, "cpu"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind):
    assert kind_of(KINDS[kind]) == kind


def test_the_loops_of_all_kernels_are_prepared_before_any_is_timed(monkeypatch):
    prepared, timed = [], []
    measure = trials.measure
    monkeypatch.setattr(tuning, "prepare", lambda loops: prepared.extend(loops))
    monkeypatch.setattr(trials, "measure", lambda *some: timed.append(len(prepared)) or measure(*some))
    tw.tune(nn.Conv1d(16, 16, 5), torch.randn(1, 16, 4000), backward=True, save=False)
    assert {"convolve_32", "filtering_32", "gradients_32"} <= {name for _, name in prepared}
    assert timed == [len(prepared)]
