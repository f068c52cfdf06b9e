"""Measured plans: what they choose, and the file that keeps them."""

import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import tapwise as tw
from tapwise.engine import dispatch, measured, rates, trials
from tapwise.engine.measured import Measurement
from tapwise.engine.plan import NATIVE_TRAINING, Training, choose, choose_kernel, choose_training, is_small
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

PROBLEM = Problem(Geometry(3, padding=1), 16, 16, 400, torch.float32, "cpu")


@pytest.fixture(autouse=True)
def nothing_measured():
    tw.plans.clear()
    yield
    tw.plans.clear()


def add(seconds, training=None, problem=PROBLEM, threads=None):
    found = Measurement(2, "2026-11-30", seconds, training or {})
    measured.add({(problem, torch.get_num_threads() if threads is None else threads): found})
    dispatch.forget()


@pytest.mark.parametrize("kernel", ["native", "direct", "gemm", "fft"])
def test_the_fastest_is_the_plan_and_says_so(kernel):
    seconds = {"native": 2e-4, "direct": 2e-4, "gemm": 2e-4, "fft": 2e-4, kernel: 1e-4}
    add(seconds)
    plan = choose(PROBLEM)
    assert plan.kernel == choose_kernel(PROBLEM) == kernel
    assert plan.is_measured
    assert plan.seconds == 1e-4
    assert "measured 100 us a batch row" in plan.reason
    assert all("predicted" not in reason for _, reason in plan.rejected if "not timed" not in reason)
    x, w = torch.randn(2, 16, 400), torch.randn(16, 16, 3)
    with tw.options(kernel=kernel):
        wanted = tw.conv1d(x, w, padding=1)
    assert torch.equal(tw.conv1d(x, w, padding=1), wanted)


def test_less_than_noise_leaves_native():
    add({"native": 1e-4, "direct": 0.98e-4})
    assert choose(PROBLEM).kernel == "native"
    assert dict(choose(PROBLEM).rejected)["direct"].endswith("to be surely less")
    add({"native": 1e-4, "direct": 0.96e-4})
    assert choose(PROBLEM).kernel == "direct"


def test_other_threads_problems_and_options_are_not_measured():
    add({"native": 1.0, "gemm": 1e-6}, threads=torch.get_num_threads() + 1)
    assert not choose(PROBLEM).is_measured
    add({"native": 1.0, "gemm": 1e-6})
    assert choose(PROBLEM).kernel == "gemm"
    assert not choose(Problem(PROBLEM.geometry, 16, 16, 401, torch.float32, "cpu")).is_measured
    with tw.options(deterministic=True):
        assert not choose(PROBLEM).is_measured
    with tw.options(kernel="direct"):
        assert choose(PROBLEM).kernel == "direct"
    add({"native": 1.0, "direct": 0.5, "fft": 1e-6, "fft32": 1e-7})
    assert choose(PROBLEM).kernel == "fft"
    with tw.options(exact=True):
        assert choose(PROBLEM).kernel == "direct"
    with tw.options(exact=False):
        assert choose(PROBLEM).kernel == "fft32"
    with measured.ignored():
        assert not choose(PROBLEM).is_measured


def test_native_too_slow_to_be_timed_is_no_choice():
    add({"direct": 1.0, "fft": 2.0})
    plan = choose(PROBLEM)
    assert plan.kernel == "direct"
    assert "not timed" in dict(plan.rejected)["native"]


def test_small_problems_follow_measurements():
    small = Problem(Geometry(3), 2, 8, 20, torch.float32, "cpu")
    assert is_small(small)
    add({"native": 1.0, "direct": 1e-6}, problem=small)
    assert not is_small(small)
    assert choose_kernel(small) == "direct"
    y = tw.conv1d(torch.ones(1, 2, 20), torch.ones(8, 2, 3))
    assert torch.equal(y, torch.full((1, 8, 18), 6.0))


def test_training_is_the_fastest_of_what_was_timed():
    native, ours = "native native native", "direct gemm fft"
    assert choose_training(PROBLEM) != Training(*ours.split())
    add({"native": 1.0, "direct": 2.0}, {native: 2.0, ours: 1.0, "direct native native": 1.5})
    assert choose_training(PROBLEM) == Training("direct", "gemm", "fft")
    assert choose_kernel(PROBLEM) == "native"
    with tw.options(exact=True):
        assert choose_training(PROBLEM) == Training("direct", "native", "native")
    add({"native": 1.0}, {native: 2.0, ours: 1.99})
    assert choose_training(PROBLEM) == NATIVE_TRAINING
    add({"native": 1.0}, {native: 2.0, "of another version": 1.0})
    assert choose_training(PROBLEM) == NATIVE_TRAINING
    add({"native": 1.0, "gemm": 0.5}, {native: 2.0, "gemm direct direct": 1.0})
    x, w = torch.randn(2, 16, 400, requires_grad=True), torch.randn(16, 16, 3, requires_grad=True)
    assert type(tw.conv1d(x, w, padding=1).grad_fn).__name__ == "ConvolutionBackward"
    grads = torch.autograd.grad(tw.conv1d(x, w, padding=1).sum(), (x, w))
    wanted = torch.autograd.grad(torch.nn.functional.conv1d(x, w, padding=1).sum(), (x, w))
    torch.testing.assert_close(grads, wanted, rtol=1e-4, atol=1e-3)


# The file


def test_a_file_gives_back_what_was_saved(tmp_path):
    other = Problem(Geometry(4, 2, padding="causal", transposed=True), 3, 5, 30, torch.float64, "cpu")
    add({"native": 1.0, "gemm": 1e-6}, {"native native native": 1.0})
    add({"native": 3.0}, problem=other, threads=7)
    before = measured.everything()
    file = tmp_path / "plans.json"
    assert tw.plans.save(file) == 2
    tw.plans.clear()
    assert not choose(PROBLEM).is_measured
    assert tw.plans.load(file) == 2
    assert measured.everything() == before
    assert choose(PROBLEM).kernel == "gemm"
    add({"native": 1.0, "direct": 1e-6})
    assert tw.plans.save(file) == 2  # the newer replaces the older
    tw.plans.clear()
    tw.plans.load(file)
    assert choose(PROBLEM).kernel == "direct"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plans.json"]


def test_plans_of_other_machines_stay_and_count_for_nothing(tmp_path, monkeypatch):
    file = tmp_path / "plans.json"
    add({"native": 1.0, "gemm": 1e-6})
    here = measured.machine()
    with monkeypatch.context() as patch:
        patch.setattr(measured, "machine", lambda: {**here, "torch": "1.0"})
        tw.plans.save(file)
    tw.plans.clear()
    assert tw.plans.load(file) == 0
    add({"native": 1.0, "direct": 1e-6})
    tw.plans.save(file)
    content = json.loads(file.read_text())
    assert [entry["machine"]["torch"] for entry in content["machines"]] == ["1.0", here["torch"]]
    with monkeypatch.context() as patch:
        patch.setattr(measured, "machine", lambda: {**here, "torch": "1.0"})
        tw.plans.clear()
        assert tw.plans.load(file) == 1
        assert choose(PROBLEM).kernel == "gemm"


DAMAGED = [
    "", "{", "[]", '{"format": 1, "machines": {}}', '{"format": 1}', '{"format": 1, "machines": 3}', '{"format": 1, "machines": [3]}', "\0",
    '{"format": 1, "machines": [{"machine": {}}]}',
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_refused_and_stays(tmp_path, content):
    file = tmp_path / "plans.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"plans\.json: is no file of plans"):
        tw.plans.load(file)
    with pytest.raises(ValueError, match="delete it, or name another"):
        tw.plans.save(file)
    assert file.read_text() == content


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": {"native": -1}},
        {"seconds": {"native": "x"}},
        {"seconds": []},
        {"dtype": "float3"},
        {"dtype": "randn"},
        {"geometry": {}},
        {"x": 1},
        {"in_channels": [4]},
        {"threads": 1e999},
        {"training": {"native native": 1.0}},
    ],
)
def test_a_plan_that_cant_be_read_is_refused(tmp_path, change):
    file = tmp_path / "plans.json"
    add({"native": 1.0})
    tw.plans.save(file)
    content = json.loads(file.read_text())
    content["machines"][0]["plans"][0].update(change)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="holds a plan that can't be read"):
        tw.plans.load(file)


def test_a_file_of_a_later_format_and_one_that_isnt_there(tmp_path):
    file = tmp_path / "plans.json"
    with pytest.raises(FileNotFoundError):
        tw.plans.load(file)
    file.write_text('{"format": 99, "machines": []}')
    with pytest.raises(ValueError, match="plans of format 99, and this version reads 1"):
        tw.plans.load(file)


CHILD = """
    import warnings
    import torch, tapwise as tw
    from tapwise.engine.plan import choose
    from tapwise.engine.problem import Problem
    from tapwise.geometry import Geometry
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        print(choose(Problem(Geometry(3, padding=1), 16, 16, 400, torch.float32, "cpu")).kernel)
        tw.conv1d(torch.ones(1, 1, 9), torch.ones(1, 1, 3))
    print(*(w.message for w in said))
"""


def child(code, **environment):
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_later_processes_read_the_file(tmp_path):
    file = tmp_path / "plans.json"
    add({"native": 1.0, "fft": 1e-6}, threads=1)
    tw.plans.save(file)
    assert child(CHILD, TAPWISE_PLANS=str(file)).startswith("fft\n")
    assert not child(CHILD, TAPWISE_PLANS="").startswith("fft\n")
    (tmp_path / "cache").mkdir()
    file.rename(tmp_path / "cache" / "plans.json")
    environment = {name: value for name, value in os.environ.items() if name != "TAPWISE_PLANS"}
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD)],
        env={**environment, "TAPWISE_CACHE_DIR": str(tmp_path / "cache")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.startswith("fft\n")
    (tmp_path / "cache" / "plans.json").write_text("{")
    said = child(CHILD, TAPWISE_PLANS=str(tmp_path / "cache" / "plans.json"))
    assert said.count("plans are predicted, not measured: ") == 1


def test_processes_that_save_at_once_lose_nothing(tmp_path):
    code = """
        import sys, torch, tapwise as tw
        from tapwise.engine import measured
        from tapwise.engine.problem import Problem
        from tapwise.geometry import Geometry
        for n in range(20):
            problem = Problem(Geometry(3), 1, 1, {first} + n, torch.float32, "cpu")
            measured.write(__import__("pathlib").Path({file!r}), {{(problem, 1): measured.Measurement(1, "", {{"native": 1.0}}, {{}})}})
    """
    file = str(tmp_path / "plans.json")
    commands = [[sys.executable, "-c", textwrap.dedent(code.format(first=first, file=file))] for first in (1000, 2000)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert tw.plans.load(file) == 40


def test_threads_that_save_at_once_lose_nothing(tmp_path):
    file = tmp_path / "plans.json"

    def save(first):
        for n in range(10):
            problem = Problem(Geometry(3), 1, 1, first + n, torch.float32, "cpu")
            measured.write(file, {(problem, 1): Measurement(1, "", {"native": 1.0}, {})})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, (1000, 2000, 3000, 4000)))
    assert tw.plans.load(file) == 40


def test_a_file_that_cant_be_locked_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError("no locks available")

    monkeypatch.setattr(measured.fcntl, "lockf", refuse)
    add({"native": 1.0})
    assert tw.plans.save(tmp_path / "plans.json") == 1
    with pytest.raises(OSError, match=r"plans can't be kept there .* TAPWISE_PLANS"):
        measured.prepare(tmp_path / "plans.json" / "within a file")


def test_a_decision_of_before_a_change_is_not_cached_after_it(monkeypatch):
    add({"native": 1.0, "direct": 0.5})
    x, w = torch.randn(1, 16, 400), torch.randn(16, 16, 3)
    chosen = dispatch.choose_kernel

    def meanwhile(problem):
        kernel = chosen(problem)
        add({"native": 1.0, "gemm": 0.5})
        return kernel

    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "choose_kernel", meanwhile)
        tw.conv1d(x, w, padding=1)
    assert not dispatch._decisions
    with tw.options(kernel="gemm"):
        wanted = tw.conv1d(x, w, padding=1)
    assert torch.equal(tw.conv1d(x, w, padding=1), wanted)


# Rates


def test_rates_of_this_machine_are_used_for_predictions_and_kept(tmp_path):
    large = Problem(Geometry(3), 128, 128, 4000, torch.float32, "cpu")
    with tw.options(kernel="native"):
        before = choose(large).seconds
    with tw.options(deterministic=True):
        predicted = choose(large).kernel
    family = measured.rates()
    measured.add({}, {"direct": 1e-3, "native, dense": 2.0})
    dispatch.forget()
    found = measured.rates()
    assert found.native.dense_rate == family.native.dense_rate / 2
    assert found.native.dense_output == family.native.dense_output * 2
    assert found.native.depthwise_rate == family.native.depthwise_rate
    assert found.direct.rows == tuple((rows, rate / 1e-3) for rows, rate in family.direct.rows)
    assert choose(large).kernel == "direct"
    with tw.options(kernel="native"):
        assert before < choose(large).seconds
    with tw.options(deterministic=True):  # depends on no file
        assert choose(large).kernel == predicted
    file = tmp_path / "plans.json"
    tw.plans.save(file)
    tw.plans.clear()
    assert measured.rates() == family
    assert tw.plans.load(file) == 0
    assert measured.rates() == found
    content = json.loads(file.read_text())
    content["machines"][0]["rates"]["of a later version"] = 3.0
    file.write_text(json.dumps(content))
    tw.plans.clear()
    tw.plans.load(file)
    assert measured.rates() == found
    content["machines"][0]["rates"]["direct"] = -1
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="holds rates that can't be read"):
        tw.plans.load(file)


def test_every_group_of_rates_is_of_rates_that_there_are():
    family = rates.rates_of("amx")  # has all of them
    for name in rates.GROUPS:
        assert rates.adapted(family, {name: 2.0}) != family
        assert rates.adapted(rates.adapted(family, {name: 2.0}), {name: 0.5}) == family
    assert set(trials._PROBES) == set(rates.GROUPS)
