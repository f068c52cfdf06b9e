import asyncio
import threading
from dataclasses import replace

import pytest
import torch

import tapwise as tw
from forcing import predict_for
from tapwise.engine import plan as plans
from tapwise.engine.kernels import KERNELS
from tapwise.engine.plan import Plan, choose, choose_training, is_small, plan_of, predict
from tapwise.engine.problem import Problem
from tapwise.engine.rates import current_rates, processor_family
from tapwise.geometry import Geometry

pytestmark = pytest.mark.usefixtures("known_processor")


def problem(channels, outputs, length, *geometry, dtype=torch.float32, **settings):
    return Problem(Geometry(*geometry, **settings), channels, outputs, length, dtype, "cpu")


PINNED = {
    "seed": ("native", problem(1, 1, 10, 3)),
    "step64": ("native", problem(64, 64, 3, 3)),
    "fir3": ("direct", problem(1, 1, 1_000_000, 3)),
    "fir31": ("direct", problem(1, 1, 1_000_000, 31, padding="causal")),
    "fir101": ("direct", problem(1, 1, 1_000_000, 101, padding="causal")),
    "ecg12": ("direct", problem(12, 12, 50_000, 51, padding=25, groups=12)),
    "fir1001": ("fft", problem(1, 1, 1_000_000, 1001, padding="causal")),
    "mamba": ("direct", problem(1536, 1536, 2048, 4, padding="causal", groups=1536)),
    "conformer": ("direct", problem(256, 256, 500, 31, padding=15, groups=256)),
    "vocos": ("direct", problem(512, 512, 256, 7, padding=3, groups=512)),
    "w2v1": ("winograd", problem(512, 512, 31_999, 3, 2)),
    "hifigan": ("winograd", problem(128, 128, 8192, 11, 1, 5, 25)),
    "pointwise": ("native", problem(256, 256, 2048, 1)),
    "hubertpos": ("direct", problem(768, 768, 499, 128, padding=(64, 63), groups=16)),
    "reverb": ("fft", problem(1, 1, 480_000, 48_000, padding="causal")),
    "hyena": ("fft", problem(256, 256, 8192, 8192, padding="causal", groups=256)),
    "w2v0": ("direct", problem(1, 512, 160_000, 10, 5)),
    "encodec0": ("direct", problem(1, 32, 48_000, 7, padding="causal")),
    "enformer": ("direct", problem(4, 768, 32_768, 15, padding=7)),
    "encodecres": ("direct", problem(32, 16, 48_000, 3, padding="causal")),
    "wavenet": ("winograd", problem(128, 256, 4096, 3, dilation=32, padding=(64, 0))),
    "mimids": ("winograd", problem(64, 128, 24_000, 8, 4, padding=(4, 0))),
    "gaps": ("implicit_gemm", problem(64, 128, 24_000, 9, 8, padding=(4, 0))),
    "fir230": ("fft", problem(1, 1, 1_000_000, 230, padding="causal")),
    "ecgnet": ("winograd", problem(12, 64, 4096, 17, padding=8)),
    "bonito": ("winograd", problem(16, 384, 5000, 19, 5, padding=9)),
    "int64": ("native", problem(1, 1, 1_000_000, 31, dtype=torch.int64)),
    "float16": ("direct", problem(1, 1, 1_000_000, 31, dtype=torch.float16)),
}


@pytest.mark.parametrize("name", PINNED)
def test_the_plan_of_each_shape_is_pinned(name):
    kernel, posed = PINNED[name]
    plan = choose(posed)
    assert plan.kernel == kernel
    assert plan == choose(posed)
    assert {other for other, _ in plan.rejected} == set(KERNELS) - {kernel}
    assert all(reason for _, reason in plan.rejected)


WITH_AVX2 = {
    "seed": "native",
    "fir3": "direct",
    "fir1001": "fft",
    "mamba": "direct",
    "encodec0": "direct",
    "hifigan": "winograd",
    "w2v1": "winograd",
    "pointwise": "native",
    "mimids": "winograd",
    "fir230": "direct",
    "ecgnet": "winograd",
    "hubertpos": "native",
    "wavenet": "winograd",
}


@pytest.mark.parametrize("name", WITH_AVX2)
def test_with_avx2_alone_torch_falls_behind_in_more_shapes(name, monkeypatch):
    posed = PINNED[name][1]
    before = choose(posed).seconds
    predict_for(monkeypatch, "avx2")
    plan = choose(posed)
    assert plan.kernel == WITH_AVX2[name]
    assert plan.seconds > before


def test_with_avx2_alone_gradients_are_planned_anew(monkeypatch):
    dilated, strided = PINNED["hifigan"][1], PINNED["bonito"][1]
    assert plans.choose_training(dilated) == ("winograd", "winograd", "native")
    predict_for(monkeypatch, "avx2")
    assert plans.choose_training(dilated) == ("winograd", "winograd", "implicit_gemm")
    assert plans.choose_training(strided) == ("winograd", "implicit_gemm", "implicit_gemm")


def test_with_avx2_alone_torch_is_slow_at_gaps_and_strides_and_depthwise_gradients(monkeypatch):
    predict_for(monkeypatch, "avx2")
    gaps = problem(122, 108, 34, 3, dilation=8, padding=8)
    assert choose(gaps).kernel == "direct"
    assert plans.choose_training(gaps) == plans.NATIVE_TRAINING  # its gradients are not
    strided = problem(104, 28, 142_158, 1, stride=2, groups=4)
    assert plans.choose_training(strided) == ("direct", "direct", "direct")
    depthwise = problem(14, 14, 444, 36, groups=14)
    assert plans.choose_training(depthwise) == ("direct", "direct", "direct")
    predict_for(monkeypatch, "avx512")
    assert plans.choose_training(depthwise) == plans.NATIVE_TRAINING


def test_with_avx2_alone_long_taps_with_a_stride_and_transformed_gradients(monkeypatch):
    predict_for(monkeypatch, "avx2")
    assert choose(problem(316, 316, 88, 44, 2, groups=316)).kernel == "native"
    assert plans.choose_training(problem(1, 1, 1_000_000, 501)) == ("fft", "fft", "direct")


def test_more_threads_are_never_predicted_to_take_torch_longer(monkeypatch):
    predict_for(monkeypatch, "avx2")
    gaps = problem(122, 108, 34, 3, dilation=8, padding=8)
    scattered = problem(28, 104, 142_158, 1, 2, groups=4, transposed=True)
    for posed in (gaps, scattered):
        seconds = [predict("native", posed, threads) for threads in (1, 2, 4, 32)]
        assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] < seconds[1] / 8


def test_a_plan_of_no_outputs_can_be_asked_for():
    assert choose(problem(4, 4, 40, 44)).kernel == "native"


def test_taps_that_must_be_turned_count(monkeypatch):
    predict_for(monkeypatch, "avx512")
    few, many = problem(4, 256, 1700, 16, padding=8), problem(16, 512, 200, 16)
    assert plans.choose_training(few).grad_input == "direct"
    assert plans.choose_training(many).grad_input == "native"


def test_a_plan_can_be_read():
    text = str(choose(PINNED["fir31"][1]))
    assert text.startswith("direct: predicted ")
    assert "native" in text
    assert "\n  not reference: " in text
    transposed = choose(problem(1, 1, 100, 3, transposed=True))
    assert "not gemm: does transposed convolutions of at most 16 inputs" in str(transposed)


def test_a_plan_says_how_the_work_is_divided_and_how_long_it_takes():
    plan = choose(PINNED["reverb"][1])
    assert plan.tiles == "frames of 131072 samples, 83073 outputs each"
    assert "\n  in frames of 131072 samples" in str(plan)
    assert 0 < plan.seconds < 0.1


def test_a_forced_kernel_runs_wherever_it_applies():
    posed = PINNED["hifigan"][1]
    with tw.options(kernel="direct"):
        assert choose(posed).kernel == "direct"
        elsewhere = choose(PINNED["int64"][1])
        assert elsewhere.kernel == "native"
        assert "takes float32, float64, float16, bfloat16, not int64" in elsewhere.reason
        with tw.options(kernel="reference"):
            assert choose(posed).kernel == "reference"
        with tw.options():
            assert choose(posed).kernel == "winograd"
        assert choose(posed).kernel == "direct"
    assert choose(posed).kernel == "winograd"


def test_exact_steers_how_outputs_are_summed():
    posed = PINNED["reverb"][1]
    with tw.options(exact=True):
        plan = choose(posed)
        assert plan.kernel == "direct"
        assert dict(plan.rejected)["fft"] == "is excluded by options(exact=True)"
    assert "options(exact=False) allows it" in dict(choose(posed).rejected)["fft32"]
    with tw.options(exact=False):
        assert choose(posed).kernel == "fft32"
    for wrong, words in (({"exact": "very"}, "exact must be"), ({"exact": True, "kernel": "fft"}, "excludes")):
        with pytest.raises(ValueError, match=words), tw.options(**wrong):
            pass


def test_an_unknown_kernel_is_refused():
    with (
        pytest.raises(
            ValueError,
            match="must be one of 'native', 'direct', 'gemm', 'implicit_gemm', 'winograd', 'amx', 'fft', 'fft32', 'reference' or None",
        ),
        tw.options(kernel="quick"),
    ):
        pass


def test_options_hold_for_one_thread_and_one_task_only():
    posed, seen = PINNED["hifigan"][1], []
    with tw.options(kernel="reference"):
        thread = threading.Thread(target=lambda: seen.append(choose(posed).kernel))
        thread.start()
        thread.join()
    assert seen == ["winograd"]

    async def steered(kernel):
        with tw.options(kernel=kernel):
            await asyncio.sleep(0)
            return choose(posed).kernel

    async def both():
        return await asyncio.gather(steered("direct"), steered("reference"))

    assert asyncio.run(both()) == ["direct", "reference"]


def test_the_call_itself_may_leave_native_only():
    posed = PINNED["fir31"][1]
    x, w = torch.zeros(1, 1, 1_000_000), torch.zeros(1, 1, 31)
    assert plan_of(posed, x, w).kernel == "direct"
    with torch.autograd.forward_ad.dual_level():
        assert "forward-mode" in plan_of(posed, x, w).reason
    for odd in (x.to(torch.complex64), x[..., :0]):
        assert isinstance(plan_of(posed, odd, w), Plan)
        assert plan_of(posed, odd, w).kernel == "native"


def test_the_chosen_kernel_is_the_one_that_runs(monkeypatch):
    from dataclasses import replace

    ran = []
    ours = KERNELS["direct"]

    def run(*arguments):
        ran.append("direct")
        return ours.run(*arguments)

    monkeypatch.setitem(KERNELS, "direct", replace(ours, run=run))
    tw.conv1d(torch.zeros(1, 1, 100_000), torch.zeros(1, 1, 31))
    assert ran == ["direct"]


@pytest.mark.parametrize("family", ["avx512", "avx2"])
def test_a_small_problem_is_native_in_every_plan(family, monkeypatch):
    """The short cut and the plan must agree, or an explanation would name another kernel than ran."""
    predict_for(monkeypatch, family)
    small = current_rates().small_products
    monkeypatch.setattr(plans, "is_small", lambda problem: False)  # so that all are predicted
    torch.set_num_threads(1)
    seen = 0
    for fan_in in (1, 2, 8, 64):
        for fan_out in (1, 2, 8, 64):
            for kernel_size in (1, 3, 31, 500):
                for padding in (0, 5):
                    taps = fan_in * fan_out * kernel_size
                    most = small * min(fan_out, 8)
                    length = min(most // taps - 2 * padding, small // fan_in)
                    if length < 1 or length + 2 * padding < kernel_size:
                        continue
                    posed = problem(fan_in, fan_out, length, kernel_size, padding=padding)
                    assert is_small(posed)
                    for dtype in (torch.float32, torch.bfloat16, torch.float16):
                        typed = replace(posed, dtype=dtype)
                        assert choose(typed).kernel == "native", typed
                        assert plans.choose_training(typed) == plans.NATIVE_TRAINING, typed
                    seen += 1
    assert seen > 40
    with tw.options(kernel="reference"):
        assert not is_small(problem(1, 1, 5, 2))
    assert not is_small(problem(2, 2, 5, 2, groups=2))


@pytest.mark.parametrize("length", [1, 3, 7, 40])
@pytest.mark.parametrize("channels", [8, 256, 1024])
def test_the_reference_never_runs_unasked(length, channels):
    x, w = torch.zeros(1, channels, length), torch.zeros(channels // 2, channels, 1)
    assert choose(Problem.of(x, w)).kernel != "reference"
    wide = torch.zeros(512, 1024, 3)  # few outputs of many channels: cheap by its count of steps alone
    assert choose(Problem.of(torch.zeros(1, 1024, 7), wide)).kernel != "reference"


def test_a_kernel_a_little_faster_is_rejected_with_the_reason():
    torch.set_num_threads(1)
    found = 0
    for length in range(300, 700, 20):
        posed = problem(1, 1, length, 31)
        plan = choose(posed)
        ours, torchs = (predict(name, posed, 1) for name in ("direct", "native"))
        near = 0.85 * torchs < ours < torchs
        assert ("has to be 15% less" in str(plan)) == near
        found += near
    assert 0 < found < 20


def test_torchs_vectors_choose_the_rates(monkeypatch):
    cases = ("AVX2", False, "avx2"), ("AVX512", False, "avx512"), ("DEFAULT", False, "avx512"), ("AVX512", True, "amx")
    for name, has_matrices, family in cases:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=name: name)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=has_matrices: found, raising=False)
        assert FAMILY() == family


FAMILY = processor_family  # as it is before a fixture pretends another


def test_half_precision_leaves_torchs_slow_loops_with_gradients_too():
    """torch has no fast loops for it on most processors: 10 to 100 times the time of ours."""
    for channels, length, taps in ((64, 4000, 31), (512, 4000, 7)):
        posed = problem(channels, channels, length, taps, groups=channels, padding=taps // 2, dtype=torch.float16)
        assert set(choose_training(posed)) == {"direct"}
