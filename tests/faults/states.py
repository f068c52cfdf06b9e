"""States that no stream gave."""

STATES = {
    "flush refuses what step refuses": """
one, two = tw.CausalConv1d(2, 3, 5), tw.Conv1d(2, 3, 9, padding=4)
x = torch.randn(1, 2, 40)
_, state = two.step(x, two.init_state())
for call in (one.flush, lambda s: one.step(x, s)):
    refused(lambda: call(state), "state")
    refused(lambda: call({"kept": x}), "State")
    for changes in ({"seen": torch.tensor(-4)}, {"emitted": torch.tensor(10**6)}, {"seen": 3}, {"kept": None},
                    {"kept": torch.randn(1, 7, 4)}, {"seen": torch.tensor(2.5)}, {"kept": torch.randn(2)}):
        mine = one.step(x, one.init_state())[1]
        mine.__dict__.update(changes)
        refused(lambda: call(mine), "state")
""",
    "malformed states of a stream": """
_, live, chunk = network()
good = live.state
def broken(change):
    state = copy.deepcopy(good)
    change(state)
    return state
changes = [
    lambda s: s.pop("groups"), lambda s: s.pop("batch"), lambda s: s.pop("active"), lambda s: s["groups"][0].pop("seen"),
    lambda s: s["groups"][0].update(slots=torch.tensor([5])), lambda s: s["groups"][0].update(slots=torch.tensor([0.5])),
    lambda s: s["groups"][0].update(seen=torch.tensor(-3)), lambda s: s.update(batch=torch.tensor(2)),
    lambda s: s.update(active=torch.tensor([True, False])), lambda s: s.update(active=torch.tensor([1.0])),
    lambda s: s.update(groups=5), lambda s: s.update(groups=[None]), lambda s: s["groups"].append(s["groups"][0]),
    lambda s: s["groups"][0]["states"].update({"1": [torch.zeros(1, 8, 3)]}),
    lambda s: s["groups"][0]["states"].update({"99": []}), lambda s: s["groups"][0]["states"].update({"x": []}),
    lambda s: s.update(format=torch.tensor(-5)), lambda s: s.update(format="2"), lambda s: s.update(groups=[], active=torch.tensor([False])),
    lambda s: s["groups"][0].update(seen=torch.tensor(2**63 - 1)), lambda s: s["groups"][0]["states"].update({"-1": []}),
    lambda s: s.update(format=torch.tensor(99)), lambda s: s.update(batch=torch.tensor(0)),
]
for change in changes:
    refused(lambda: live.load_state(broken(change)), "state", tw.ShapeError)
for nothing in (None, 5, [], "x", {}):
    refused(lambda: live.load_state(nothing), "state", tw.ShapeError)
live.load_state(good)
live.step(chunk)
""",
    "files that are no states": """
_, live, chunk = network()
from safetensors.torch import save_file
Path("a.safetensors").write_bytes(b"no file of tensors")
save_file({"groups.0.states.0": torch.zeros(2)}, "b.safetensors")
live.save("good.safetensors")
cut = Path("good.safetensors").read_bytes()
Path("c.safetensors").write_bytes(cut[: len(cut) // 2])
for name in ("a", "b", "c"):
    refused(lambda: live.load(f"{name}.safetensors"), "state", tw.ShapeError)
refused(lambda: live.load("nowhere.safetensors"), "nowhere", OSError)
live.load("good.safetensors")
live.step(chunk)
""",
}
