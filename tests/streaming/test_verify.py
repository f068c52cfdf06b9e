"""The check of a stream: it names what differs."""

import pytest
import torch

import networks
import tapwise as tw

F64 = torch.float64


def test_verify_names_the_first_operation_that_differs(monkeypatch):
    from tapwise.network.execution import Convolution

    model, x = networks.tcn()
    assert tw.verify_stream(model, x) < 1e-12
    run = Convolution.run

    def wrong(self, move, state, chunks):
        y, after = run(self, move, state, chunks)
        return (y + 1e-3 if y is not None and self.geometry.dilation == 2 else y), after

    monkeypatch.setattr(Convolution, "run", wrong)
    with pytest.raises(
        tw.StreamMismatchError, match=r"conv1d in 1\.net\.0: the stream differs from the model by 0\.001"
    ):
        tw.verify_stream(model, x)

    def forgets(self, move, state, chunks):
        y, after = run(self, move, state, chunks)
        return y, [torch.zeros_like(kept) for kept in after]

    monkeypatch.setattr(Convolution, "run", forgets)
    with pytest.raises(tw.StreamMismatchError, match=r"conv1d in 0\.net\.0"):
        tw.verify_stream(model, x)
