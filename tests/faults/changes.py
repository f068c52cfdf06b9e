"""Changes of a model that a stream runs."""

CHANGES = {
    "a parameter replaced": """
def assign(m): m.load_state_dict({k: v.clone() for k, v in m.state_dict().items()}, assign=True)
def parameter(m): m[0].weight = nn.Parameter(torch.randn(8, 1, 31))
def bias(m): m[2].bias = None
def deleted(m): del m[2]._parameters["bias"]
def meta(m): m.to("meta")
for change, name in ((assign, "0.weight"), (parameter, "0.weight"), (bias, "2.bias"), (deleted, "2.bias"), (meta, "")):
    model, live, chunk = network()
    change(model)
    refused(lambda: live.step(chunk), name, tw.ModelChangedError)
    refused(lambda: live.flush(), name, tw.ModelChangedError)
""",
    "a module replaced": """
def other(m): m[1] = nn.Tanh()
def gone(m): del m[1]
def more(m): m.append(nn.Tanh())
for change in (other, gone, more):
    model, live, chunk = network()
    change(model)
    refused(lambda: live.step(chunk), "stream anew", tw.ModelChangedError)
""",
    "a parameter changed in place is followed": """
model, live, chunk = network()
with torch.no_grad():
    for p in model.parameters():
        p.mul_(0)
assert not live.step(chunk).any()
step = torch.optim.SGD(model.parameters(), 0.1)
model(torch.randn(1, 8, 100)).sum().backward()
step.step()
assert live.step(chunk).any()
""",
    "a weight that others are computed from": """
model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3))).eval()
live = tw.stream(model, torch.randn(1, 4, 100))
live.step(torch.randn(1, 4, 10))
with torch.no_grad():
    model[0].parametrizations.weight.original0.mul_(2)
refused(lambda: live.step(torch.randn(1, 4, 10)), "original0", tw.ModelChangedError)
""",
    "a functional stream of a changed model": """
model = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.ReLU()).eval()
init, step = tw.stream(model, torch.randn(1, 2, 40)).functional(8)
step(torch.randn(1, 2, 8), init(1))
for chunk, state in ((torch.randn(1, 2, 9), init(1)), (None, init(1)), (torch.randn(1, 2, 8), {}), (torch.randn(1, 2, 8), 5)):
    refused(lambda: step(chunk, state), "", (TypeError, tw.ShapeError))
model[0].weight = nn.Parameter(torch.randn(2, 2, 3))
refused(lambda: step(torch.randn(1, 2, 8), init(1)), "0.weight", tw.ModelChangedError)
""",
    "a recurrent weight of another size": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 16, batch_first=True)
    def forward(self, x):
        return self.rnn(x.transpose(1, 2))[0].transpose(1, 2)
model = Net().eval()
live = tw.stream(model, torch.randn(1, 4, 60))
live.step(torch.randn(1, 4, 10))
model.rnn.weight_hh_l0.data = torch.randn(32, 16)
refused(lambda: live.step(torch.randn(1, 4, 10)), "rnn.weight_hh_l0", tw.ModelChangedError)
""",
    "a running mean that nothing reads may change": """
model = nn.Sequential(nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2))
live = tw.stream(model, torch.randn(2, 2, 40))
live.step(torch.randn(2, 2, 10))
model.train()
model(torch.randn(2, 2, 30))
live.step(torch.randn(2, 2, 10))
""",
}
