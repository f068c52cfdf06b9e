"""Memory of large outputs: used again once it is free, never before."""

from __future__ import annotations

import io
import mmap
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

import tapwise as tw
from tapwise.engine import outputs
from tapwise.engine.kernels import KERNELS

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MAP_PRIVATE"), reason="no private blocks here")
COUNT = 1 << 19  # floats in a page of 2 MB


@pytest.fixture(autouse=True)
def _blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Outputs of one megabyte are large; no block is left from elsewhere."""
    monkeypatch.setattr(outputs, "LARGE", 1 << 20)
    outputs.forget()
    yield
    outputs.forget()


def _output(count: int = COUNT) -> Tensor:
    return outputs.new_output((1, 1, count), torch.float32)


def _kept() -> int:
    return outputs._blocks.kept_bytes


def test_a_freed_block_serves_the_next_output_of_its_size() -> None:
    first = _output()
    place = first.data_ptr()
    assert _output().data_ptr() != place  # alive
    del first
    assert _kept() == 2 * 4 * COUNT
    again = [_output(), _output()]
    assert place in [y.data_ptr() for y in again]
    assert _kept() == 0


@pytest.mark.parametrize(
    "hold",
    [lambda y: y[..., 5:], lambda y: y.numpy(), lambda y: y.untyped_storage(), lambda y: torch.from_dlpack(y)],
    ids=["view", "array", "storage", "dlpack"],
)
def test_a_block_is_lent_until_nothing_reads_it(hold: object) -> None:
    y = _output().fill_(3.0)
    held = hold(y)  # type: ignore[operator]
    del y
    assert _kept() == 0
    _output().fill_(5.0)
    numbers = torch.as_tensor(held if not isinstance(held, torch.UntypedStorage) else torch.tensor([]).set_(held))
    assert (numbers == 3).all()


def test_outputs_are_tensors_as_torch_makes_them() -> None:
    y = outputs.new_output((2, 3, COUNT), torch.bfloat16)
    assert y.shape == (2, 3, COUNT)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous()
    assert not y._is_view()
    assert y.untyped_storage().nbytes() == 2 * 3 * COUNT * 2  # saved as itself, though its block is larger
    with io.BytesIO() as file:
        torch.save(y, file)
        assert file.tell() < 2 * 3 * COUNT * 2 + 4096
    assert y.fill_(1.0).requires_grad_().mul(2).sum().item() == 12 * COUNT


@pytest.mark.parametrize("kernel", [name for name in KERNELS if name not in ("native", "reference", "amx", "fft32")])
def test_layers_use_blocks_again(kernel: str) -> None:
    layer, x = tw.Conv1d(8, 64, 5, padding="causal").requires_grad_(False), torch.randn(1, 8, COUNT // 64)
    with tw.options(kernel=kernel):
        _use_twice(layer, x)


def test_frozen_networks_use_blocks_again() -> None:
    x = torch.randn(1, 8, COUNT // 64)
    _use_twice(tw.freeze(torch.nn.Sequential(torch.nn.Conv1d(8, 64, 5), torch.nn.ReLU()).eval(), x), x)


def _use_twice(layer: torch.nn.Module, x: Tensor) -> None:
    outputs.forget()
    first = layer(x)
    copied, place = first.clone(), first.data_ptr()
    second = layer(-x)
    assert torch.equal(first, copied)
    assert second.data_ptr() != place
    del first
    third = layer(x)
    assert third.data_ptr() == place
    assert torch.equal(third, copied)


def test_small_outputs_and_other_sizes_take_no_block() -> None:
    _output(COUNT * 4)
    kept = _kept()
    assert kept == 16 * COUNT
    small, half = _output(1000), _output(COUNT * 2)
    assert _kept() == kept
    near = _output(COUNT * 4 - 1000)
    assert _kept() == 0
    del small, half, near


def test_no_more_is_kept_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MOST_KEPT", 3 * 4 * COUNT)
    held = [_output() for _ in range(8)]
    latest = held[-1].data_ptr()
    while held:
        del held[0]
    assert _kept() == 3 * 4 * COUNT
    assert latest in [y.data_ptr() for y in [_output(), _output(), _output()]]


def test_a_block_larger_than_all_that_is_kept_drives_no_other_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MOST_KEPT", 3 * 4 * COUNT)
    _output()
    _output(4 * COUNT)
    assert _kept() == 4 * COUNT


def test_nobody_waits_for_the_lock() -> None:
    """A finalizer, or a signal's handler, may ask for an output while one is being lent."""
    _output()
    with outputs._blocks._lock:
        y = _output().fill_(2.0)
        assert _kept() == 4 * COUNT
        del y  # left to who has the lock
    assert len(outputs._blocks._freed) == 1
    _output()
    assert _kept() == 2 * 4 * COUNT


def test_where_the_system_has_no_memory_kept_blocks_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, refused = mmap.mmap, []

    class Full(maps):
        def __new__(cls, *arguments: int) -> mmap.mmap:
            if len(refused) < 2:
                refused.append(_kept())
                raise OSError(12, "Cannot allocate memory")
            return maps.__new__(maps, *arguments)

    _output()
    monkeypatch.setattr(mmap, "mmap", Full)
    assert _output(3 * COUNT).fill_(1.0).sum() == 3 * COUNT  # torch's own memory
    assert refused == [4 * COUNT, 0]
    assert _output(3 * COUNT).fill_(1.0).sum() == 3 * COUNT


def test_threads_never_share_a_block() -> None:
    wrong = []

    def work(number: int) -> None:
        for turn in range(50):
            y = _output(COUNT // 2 + 1000 * (turn % 3)).fill_(number)
            if not (y == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not outputs._blocks._loans
    assert _kept() <= 8 * 2 * COUNT * 4


def test_the_end_of_a_program_frees_outputs_without_a_word() -> None:
    code = "import torch; from tapwise.engine import outputs; outputs.LARGE = 1 << 20\n"
    code += "y = outputs.new_output((1 << 20,), torch.float32); torch.kept = [y]; y.cycle = torch.kept"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def _child(pipe: object, inherited: Tensor) -> None:
    inherited.mul_(3)
    y = _output().fill_(7.0)
    pipe.send(float(y.sum()))  # type: ignore[attr-defined]


def test_a_child_writes_to_memory_of_its_own() -> None:
    kept = _output().fill_(1.0)
    numbers = np.asarray(kept)
    _output()  # which the child uses again
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_child, args=(there, kept))
    with outputs._blocks._lock:  # as another thread may hold it at the fork
        process.start()
    assert here.poll(60)
    assert here.recv() == 7 * COUNT
    process.join()
    assert (numbers == 1).all()
    assert (_output().fill_(2.0) == 2).all()
