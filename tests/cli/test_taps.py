import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from safetensors.torch import save_file

from tapwise.cli.taps import for_channels, parse
from tapwise.cli.taps_forms import FORMS
from tapwise.errors import TapsError


def test_numbers_as_they_stand():
    assert parse("1,1,1").tolist() == [[[1, 1, 1]]]
    assert parse("1,-2.5,1e-3").tolist() == [[[1, -2.5, 0.001]]]
    assert parse("-1,.5").tolist() == [[[-1, 0.5]]]
    assert parse("1,1,1;2,2,2").tolist() == [[[1, 1, 1]], [[2, 2, 2]]]
    assert parse("7").shape == (1, 1, 1)


def test_designs():
    assert parse("mean:4").tolist() == [[[0.25] * 4]]
    assert parse("diff").tolist() == [[[1, -1]]]
    bell = parse("gauss:31:5")[0, 0]
    np.testing.assert_allclose(
        bell,
        scipy.signal.windows.gaussian(31, 5) / bell.sum() * bell.sum() / scipy.signal.windows.gaussian(31, 5).sum(),
    )
    assert bell.sum() == pytest.approx(1)
    expected = scipy.signal.firwin(101, 1000, fs=8000)
    assert np.array_equal(parse("lowpass:1000:101", 8000)[0, 0], expected)
    assert np.array_equal(parse("lowpass:0.25:101")[0, 0], expected)
    expected = scipy.signal.firwin(101, 1000, fs=8000, pass_zero=False)
    assert np.array_equal(parse("highpass:1000:101", 8000)[0, 0], expected)
    expected = scipy.signal.firwin(101, [300, 3000], fs=8000, pass_zero=False)
    assert np.array_equal(parse("bandpass:300:3000:101", 8000)[0, 0], expected)


def test_files(tmp_path):
    taps = np.array([0.5, -0.25, 1.0])
    np.save(tmp_path / "t.npy", taps)
    assert parse(f"{tmp_path}/t.npy").tolist() == [[taps.tolist()]]
    np.save(tmp_path / "w.npy", np.ones((4, 2, 3), np.float32))
    assert parse(f"{tmp_path}/w.npy").shape == (4, 2, 3)
    soundfile.write(tmp_path / "t.wav", taps, 8000, subtype="FLOAT")
    assert parse(f"{tmp_path}/t.wav").tolist() == [[taps.tolist()]]
    checkpoint = {"first.weight": torch.from_numpy(taps)[None, None], "half": torch.ones(3).bfloat16()}
    save_file(checkpoint, tmp_path / "c.safetensors")
    assert parse(f"{tmp_path}/c.safetensors:first.weight").tolist() == [[taps.tolist()]]
    assert parse(f"{tmp_path}/c.safetensors:half").tolist() == [[[1, 1, 1]]]


def test_a_weight_normed_layer_is_found_by_its_name(tmp_path):
    model = torch.nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(3, 3, 1)),
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(3, 4, 5), dim=1),
        torch.nn.Linear(3, 3),
    )
    old = {f"old.{n}": t for n, t in (("weight_g", torch.ones(2, 1, 1)), ("weight_v", torch.ones(2, 1, 4)))}
    save_file({**model.state_dict(), **old}, tmp_path / "m.safetensors")
    for name, expected in {
        "0": model[0].weight,
        "0.weight": model[0].weight,
        "1": model[1].weight,
        "old": torch.full((2, 1, 4), 0.5),
    }.items():
        np.testing.assert_allclose(parse(f"{tmp_path}/m.safetensors:{name}"), expected.detach(), rtol=1e-6)
    for form in ("m.safetensors", "m.safetensors:nothing"):
        with pytest.raises(TapsError, match=r"the convolutions' are 0\.weight, 1\.weight, old\.weight"):
            parse(f"{tmp_path}/{form}")


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("zork", "can't be read"),
        ("", "can't be read"),
        ("1,2,x", "'x' is not a number"),
        ("1,2;1", "differ in length"),
        ("mean", "got 0 values, expected the form mean:K"),
        ("mean:2:3", "got 2 values"),
        ("mean:2.5", "whole number from 1 to .*, got 2.5"),
        ("mean:0", "whole number from 1"),
        ("mean:a", "'a' is not a number"),
        ("gauss:5:0", "SIGMA must be positive"),
        ("lowpass:5000:101", "above 0 and below 4000 Hz"),
        ("bandpass:300:200:101", "LOW < HIGH"),
        ("highpass:300:100", "needs an odd K, got 100"),
        ("none.npy", "there is no file 'none.npy'"),
        ("1,nan", "not a finite number"),
        ("mean:inf", "not a finite number"),
        ("mean:1e14", "whole number from 1"),
    ],
)
def test_what_cant_be_read_is_said(description, words):
    with pytest.raises(TapsError, match=words):
        parse(description, 8000)


def test_files_that_hold_no_taps(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    np.save(tmp_path / "b.npy", np.array(["a"]))
    np.save(tmp_path / "c.npy", np.array([]))
    np.save(tmp_path / "d.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "e.npy").write_bytes(b"nonsense")
    (tmp_path / "h.npy").write_bytes(b"")
    (tmp_path / "f.wav").write_bytes(b"nonsense")
    (tmp_path / "g.safetensors").write_bytes(b"nonsense")
    for name in ("a.npy", "b.npy", "c.npy", "d.npy", "e.npy", "h.npy", "f.wav", "g.safetensors:w"):
        with pytest.raises(TapsError):
            parse(f"{tmp_path}/{name}")
    save_file({"weight": torch.ones(3)}, tmp_path / "c.safetensors")
    with pytest.raises(TapsError, match=r"no tensor 'bias' in c.safetensors; it holds weight"):
        parse(f"{tmp_path}/c.safetensors:bias")


def test_filters_for_channels():
    assert for_channels(parse("1,2"), 5, "1,2")[0].tolist() == [1, 2]
    two = parse("1,2;3,4")
    weight, groups = for_channels(two, 2, "")
    assert weight.shape == (2, 1, 2)
    assert groups == 2
    assert for_channels(two, 1, "")[1] == 1
    with pytest.raises(TapsError, match="expected one filter"):
        for_channels(two, 3, "1,2;3,4")
    left_left, left_right, right_left, right_right = range(1, 5)
    weight, _ = for_channels(parse("1;2;3;4"), 2, "")
    assert weight[:, :, 0].tolist() == [[left_left, right_left], [left_right, right_right]]


def test_an_impulse_response_of_another_rate_is_refused(tmp_path):
    taps = scipy.signal.firwin(201, 3000, fs=44100)
    soundfile.write(tmp_path / "ir.wav", taps, 44100, "DOUBLE")
    np.testing.assert_array_equal(parse(f"{tmp_path}/ir.wav", 44100)[0, 0], taps)
    np.testing.assert_array_equal(parse(f"{tmp_path}/ir.wav")[0, 0], taps)
    with pytest.raises(TapsError, match="44100 samples a second, the signal 48000: resample"):
        parse(f"{tmp_path}/ir.wav", 48000)


def test_impulse_responses_of_every_kind(tmp_path):
    taps = np.array([0.5, -0.25, 0.125])
    for name, subtype in (
        ("a.wav", "PCM_16"),
        ("b.WAV", "PCM_24"),
        ("c.flac", "PCM_16"),
        ("d.wav", "PCM_U8"),
        ("e.wav", "FLOAT"),
    ):
        soundfile.write(tmp_path / name, taps, 8000, subtype)
        np.testing.assert_allclose(parse(f"{tmp_path}/{name}", 8000)[0, 0], taps, atol=1e-12)
    cut = (tmp_path / "a.wav").read_bytes()[:-2]
    (tmp_path / "a.wav").write_bytes(cut)
    with pytest.raises(TapsError, match="cut short"):
        parse(f"{tmp_path}/a.wav", 8000)


def test_the_forms_that_are_listed_are_the_forms_that_are_read(tmp_path):
    for line in FORMS.splitlines():
        example = line.split("  ")[0].strip("'")
        if "FILE" not in example and not line.startswith(" "):
            for name, value in {"CUTOFF": "100", "LOW": "50", "HIGH": "90", "SIGMA": "2", "K": "5"}.items():
                example = example.replace(name, value)
            assert parse(example, 1000).ndim == 3
