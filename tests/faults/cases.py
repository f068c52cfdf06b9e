"""What is done to Tapwise on purpose: a program for each case, which prints "well" where it holds.

Each module beside this one holds the cases of one thing that may break.
"""

from faults.arguments import ARGUMENTS
from faults.changes import CHANGES
from faults.commands import COMMANDS
from faults.files import FILES
from faults.memory import MEMORY
from faults.processes import PROCESSES
from faults.states import STATES
from faults.steps import STEPS

HEAD = '''
import contextlib, copy, ctypes, io, os, signal, subprocess, sys, tempfile, threading, time, traceback
from pathlib import Path
import numpy as np, torch, tapwise as tw
from torch import nn

torch.manual_seed(0)

def peak_memory():
    """Megabytes that this process has held at most, 0 without /proc; ru_maxrss counts its parent's too."""
    status = Path("/proc/self/status")
    return next(int(line.split()[1]) / 1024 for line in status.open() if "VmHWM" in line) if status.exists() else 0

def refused(call, words, kinds=(ValueError, RuntimeError, TypeError, OSError)):
    try:
        result = call()
    except kinds as error:
        assert words in str(error), f"{type(error).__name__}: {error}"
        return
    raise SystemExit(f"not refused: {result!r}")

def ended(child):
    """The exit code of a forked child, which must end by itself."""
    for _ in range(2000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    raise SystemExit("the child hangs")

def forked(arguments, data):
    """The command in a fork of this process, which has imported torch: seconds less than in a process of its own."""
    from tapwise.cli import apply, explain, inspect, main, stream
    tw.inspect, tw.stream, tw.explain  # what is imported here isn't in each child
    files = [tempfile.TemporaryFile() for _ in range(3)]
    files[0].write(data or b"")
    files[0].seek(0)
    child = os.fork()
    if child == 0:
        code = 0
        try:
            for number, file in enumerate(files):
                os.dup2(file.fileno(), number)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
            sys.argv = ["tapwise", *map(str, arguments)]
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = ended(child)
    [file.seek(0) for file in files]
    return subprocess.CompletedProcess(arguments, code, files[1].read(), files[2].read())

def command(*arguments, words=None, code=None, data=None, fork=False, **options):
    """The command in a process of its own, or a fork: what it prints. With ``words``, a mistake told in a few lines."""
    if fork:
        run = forked(arguments, data)
    else:
        run = subprocess.run([sys.executable, "-m", "tapwise", *map(str, arguments)], input=data, capture_output=True,
                             timeout=100, **options)
    said = run.stderr.decode(errors="replace")
    assert "Traceback" not in said, said
    wanted = (1 if words is not None else 0) if code is None else code
    assert run.returncode == wanted or (words is not None and run.returncode == 2), (run.returncode, said)
    if words is not None:
        assert words in said and len(said) < 4000, said
        assert "\\x1b" not in said
    return run.stdout

def network():
    """A stream after three steps, its model, and the next chunk."""
    model = nn.Sequential(nn.Conv1d(8, 8, 31, groups=8), nn.ReLU(), nn.Conv1d(8, 4, 3)).eval()
    live = tw.stream(model, torch.randn(1, 8, 300))
    for _ in range(3):
        live.step(torch.randn(1, 8, 40))
    return model, live, torch.randn(1, 8, 40)

def in_threads(*works):
    """Run each in a thread of its own; raise what the first of them raised."""
    errors = []
    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    [t.start() for t in threads]
    [t.join() for t in threads]
    if errors:
        raise errors[0]

def in_child(work):
    """Do the work in a forked child, which must end by itself."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
            os._exit(1)
    assert ended(child) == 0
'''

CASES = MEMORY | CHANGES | STEPS | STATES | ARGUMENTS | FILES | COMMANDS | PROCESSES
# The quick ones, which `make test` runs too.
SAMPLE = (
    "a model converted under its stream",
    "a weight cut short between forward and backward",
    "fake tensors outside their mode",
    "a parameter replaced",
    "an interrupted transform of a long filter",
    "malformed states of a stream",
    "fractions and texts for integers",
    "a target's mode, its link and long names",
    "samples apart from prints",
    "a fork, then streams, reports and gradients",
)
