"""Our tasks on torch's pool of threads: no abort and no hang, whatever else uses it. One process each."""

import os
import subprocess
import sys
import textwrap

import pytest

HEAD = """
import torch, tapwise as tw
from tapwise.engine import threads
torch.set_num_threads({threads})
x, w = torch.randn(4, 8, 30_000), torch.randn(8, 1, 31)
def run():
    with tw.options(kernel="direct"):
        return tw.conv1d(x, w, padding="causal", groups=8)
def right(y):
    n = torch.nn.functional.conv1d(torch.nn.functional.pad(x[:1, :, :2000], (30, 0)), w, groups=8)
    return torch.allclose(y[:1, :, :2000], n, atol=1e-4)
"""


def ended_well(code, threads=2):
    """Run the code in a process of its own, which must print "well" and end within two minutes."""
    script = HEAD.format(threads=threads) + textwrap.dedent(code)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("well"), done.stdout + done.stderr


def test_beside_torchs_own_work_on_the_pool():
    ended_well("""
    a = torch.randn(600, 600)
    for _ in range(30):
        y = run()
        a = torch.mm(a, a).tanh()
        torch.fft.rfft(y)
    assert right(y)
    print("well")
    """)


def test_from_several_python_threads_at_once():
    ended_well("""
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(6) as pool:
        outputs = list(pool.map(lambda _: run(), range(60)))
    assert all(torch.equal(y, outputs[0]) for y in outputs) and right(outputs[0])
    print("well")
    """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_in_a_forked_child_of_a_process_that_used_the_pool():
    ended_well("""
    import os
    expected = run()
    child = os.fork()
    if child == 0:
        # NumPy compares: torch's own pool doesn't survive the fork.
        ok = threads.count() == 1 and (run().numpy() == expected.numpy()).all()
        os._exit(0 if ok else 7)
    assert os.waitpid(child, 0)[1] == 0
    assert threads.count() == 2 and torch.equal(run(), expected)
    print("well")
    """)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_the_workers_of_a_data_loader(method, tmp_path):
    script = tmp_path / "loading.py"
    script.write_text(
        textwrap.dedent("""
        import sys, torch, tapwise as tw
        from tapwise.engine import threads
        from torch.utils.data import DataLoader, Dataset

        w = torch.ones(8, 1, 31)

        class Filtered(Dataset):
            def __len__(self):
                return 12
            def __getitem__(self, i):
                assert threads.count() == 1
                with tw.options(kernel="direct"):
                    return tw.conv1d(torch.full((8, 20_000), float(i)), w, groups=8)

        if __name__ == "__main__":
            torch.set_num_threads(2)
            with tw.options(kernel="direct"):
                tw.conv1d(torch.ones(8, 30_000), w, groups=8)
            loader = DataLoader(Filtered(), 3, num_workers=2, multiprocessing_context=sys.argv[1])
            rows = torch.cat(list(loader))
            assert rows[:, 0, 0].tolist() == [31.0 * i for i in range(12)]
            print("well")
        """)
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, method], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip().endswith("well"), done.stderr


def test_one_thread_means_one():
    ended_well(
        """
        import os
        before = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0
        assert threads.count() == 1 and right(run())
        if before:
            assert len(os.listdir("/proc/self/task")) == before
        print("well")
        """,
        threads=1,
    )


def test_without_a_pool_that_can_be_reached():
    ended_well("""
    expected = run()
    threads.find_pool.cache_clear()
    torch.backends.openmp.is_available = lambda: False
    assert threads.count() == 1 and torch.equal(run(), expected)
    print("well")
    """)


def test_more_threads_than_tasks():
    ended_well(
        """
        with tw.options(kernel="direct"):
            assert tw.conv1d(torch.ones(1, 1, 5), torch.ones(1, 1, 3)).tolist() == [[[3, 3, 3]]]
        assert right(run())
        print("well")
        """,
        threads=7,
    )
