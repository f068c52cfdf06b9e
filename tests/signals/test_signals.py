import os
import signal as signals_of_the_system
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from tapwise.atomic_file import AtomicFile
from tapwise.errors import SignalError
from tapwise.signals import open_reader, open_writer


def copied(source: Path, target: Path, rate=None, block=7):
    """Read by odd blocks, write, and return the writer's file."""
    with open_reader(source) as reader:
        rate = reader.rate or rate
        rows = range(reader.length)
        with open_writer(target, reader, reader.length, rate, rows) as writer:
            for start in range(0, reader.length, block):
                writer.write(reader.read(start, min(start + block, reader.length)))
    return target


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "<i4", ">i2", "f2", "<f4", ">f8", "c8"])
@pytest.mark.parametrize("shape", [(50,), (3, 50), (2, 3, 50)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_kind(tmp_path, dtype, shape, order):
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(values, order=order))
    if order == "F" and len(shape) > 2:
        with pytest.raises(SignalError, match="ascontiguousarray"):
            open_reader(tmp_path / "a.npy")
        return
    again = np.load(copied(tmp_path / "a.npy", tmp_path / "b.npy"))
    assert np.array_equal(again, values)
    assert again.dtype == values.dtype.newbyteorder("=")


@pytest.mark.parametrize("kind", ["wav", "flac"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_sounds_of_every_kind_are_copied_bit_by_bit(tmp_path, kind, channels, subtype):
    if not soundfile.check_format(kind.upper(), subtype):
        return
    sound = np.random.default_rng(0).uniform(-1, 1, (100, channels))
    soundfile.write(tmp_path / f"a.{kind}", sound, 8000, subtype=subtype)
    copied(tmp_path / f"a.{kind}", tmp_path / f"b.{kind}")
    one, rate = soundfile.read(tmp_path / f"a.{kind}", dtype="float64")
    other, other_rate = soundfile.read(tmp_path / f"b.{kind}", dtype="float64")
    assert np.array_equal(one, other)
    assert (rate, soundfile.info(tmp_path / f"b.{kind}").subtype) == (other_rate, subtype)


def test_from_one_kind_to_another(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(20, dtype=np.int16).reshape(2, 10))
    with pytest.raises(SignalError, match="--rate"):
        copied(tmp_path / "a.npy", tmp_path / "a.wav")
    copied(tmp_path / "a.npy", tmp_path / "a.wav", rate=100)
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"
    copied(tmp_path / "a.wav", tmp_path / "b.npy")
    assert np.array_equal(np.load(tmp_path / "b.npy"), np.load(tmp_path / "a.npy"))
    copied(tmp_path / "a.wav", tmp_path / "a.csv")
    assert pl.read_csv(tmp_path / "a.csv").columns == ["channel_0", "channel_1"]
    np.save(tmp_path / "u.npy", np.arange(256, dtype=np.uint8))
    copied(tmp_path / "u.npy", tmp_path / "u.wav", rate=100)
    assert soundfile.info(tmp_path / "u.wav").subtype == "PCM_U8"
    assert soundfile.read(tmp_path / "u.wav", dtype="int16")[0][[0, 128, 255]].tolist() == [-32768, 0, 32512]
    np.save(tmp_path / "f.npy", np.zeros(5))
    with pytest.raises(SignalError, match="FLAC can't hold DOUBLE samples"):
        copied(tmp_path / "f.npy", tmp_path / "f.flac", rate=100)
    with pytest.raises(SignalError, match=r"whole number, got 22050\.5"):
        copied(tmp_path / "f.npy", tmp_path / "f.wav", rate=22050.5)


TABLE = 'month,value,note\n2000-01,1,first\n2000-02, 2.50 ,\n2000-03,-3e1,"a, b"\n'


def test_a_table_keeps_its_other_columns_to_the_letter(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    reader = open_reader(tmp_path / "t.csv")
    assert reader.columns == ("value",)
    assert reader.read(0, 3).tolist() == [[1, 2.5, -30]]
    with open_writer(tmp_path / "o.csv", reader, 4, None, range(-1, 7, 2)) as writer:
        writer.write(np.array([[1.5, 2.5, 3.5]]))
        writer.write(np.array([[4.5]]))
    assert (tmp_path / "o.csv").read_text() == "month,value,note\n,1.5,\n2000-02,2.5,\n,3.5,\n,4.5,\n"
    with open_writer(tmp_path / "o.csv", reader, 2, None, range(0, 4, 2)) as writer:
        writer.write(np.array([[1.5, 2.5]]))
    assert (tmp_path / "o.csv").read_text() == 'month,value,note\n2000-01,1.5,first\n2000-03,2.5,"a, b"\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("month,value\n", "the table has no rows"),
        ("a,b\n1,2\n3,4\n", "the numeric ones are 'a', 'b'"),
        ("a,b\nx,y\n", "the numeric ones are none"),
        ("a\n1\n2\nnix\n4\n", "line 4, column 'a': 'nix' is not a number: --null-value nix says that it stands for"),
        ('note,v\n"a\nb",1\nc,2\nd,oops\n', "line 5, column 'v': 'oops'"),
        ("a,b,a\n1,x,2\n", "line 1 names two columns 'a'"),
    ],
)
def test_tables_that_cant_be_used(tmp_path, content, words):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(SignalError, match=words) as caught:
        open_reader(tmp_path / "t.csv")
    assert "t.csv" in str(caught.value)


def test_a_missing_column(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    with pytest.raises(SignalError, match="no column 'x'; the table has 'month', 'value', 'note'"):
        open_reader(tmp_path / "t.csv", ("x",))
    (tmp_path / "a.npy").write_bytes(b"1")
    with pytest.raises(SignalError, match="columns belong to tables"):
        open_reader(tmp_path / "a.npy", ("x",))


def test_an_empty_cell_is_nan(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,x\n,y\n3,z\n")
    values = open_reader(tmp_path / "t.csv").read(0, 3)
    assert np.isnan(values).tolist() == [[False, True, False]]


def test_files_that_cant_be_read(tmp_path):
    sound = np.random.default_rng(0).uniform(-1, 1, 10000)
    soundfile.write(tmp_path / "a.wav", sound, 8000)
    soundfile.write(tmp_path / "a.flac", sound, 8000)
    soundfile.write(tmp_path / "r.wav", sound, 8000, format="RF64")
    soundfile.write(tmp_path / "law.wav", sound, 8000, subtype="ULAW")
    soundfile.write(tmp_path / "none.wav", sound[:0], 8000)
    np.save(tmp_path / "a.npy", sound)
    for name in ("a.wav", "a.flac", "r.wav", "a.npy"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"cut.{name}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bad.wav").write_bytes(b"RIFFnonsense")
    (tmp_path / "bad.npy").write_bytes(b"nonsense, more than a header")
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.save(tmp_path / "one.npy", np.array(1.0))
    for name, words in {
        "cut.a.wav": r"cut short at sample 4989 \(0.624 s\): its header promises 10000 samples",
        "cut.r.wav": "cut short at sample",
        "cut.a.npy": "its header promises 10000 values, it holds",
        "cut.a.flac": "damaged after sample 0",
        "bad.wav": "not a sound file",
        "bad.npy": "not an NPY file",
        "law.wav": "lossy kinds",
        "none.wav": "holds no samples",
        "text.npy": "expected numbers",
        "one.npy": r"of shape \(\)",
        "absent.wav": "no such file",
        "a.mp9": "no such file",
    }.items():
        with pytest.raises(SignalError, match=words) as caught, open_reader(tmp_path / name) as r:
            r.read(0, r.length)
        assert name in str(caught.value)
    (tmp_path / "a.mp9").write_bytes(b"1")
    with pytest.raises(SignalError, match=r"got the suffix '.mp9', expected one of .wav"):
        open_reader(tmp_path / "a.mp9")


@pytest.mark.parametrize("nameless", [True, False])
def test_a_file_appears_whole_or_not_at_all(tmp_path, nameless, monkeypatch):
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE")
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")
    output = AtomicFile(target)
    output.file.write(b"new")
    assert target.read_bytes() == b"old"
    output.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]
    output = AtomicFile(target)
    output.file.write(b"new")
    output.commit()
    assert target.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no nameless files")
def test_a_killed_run_leaves_nothing(tmp_path):
    script = (
        "import sys, pathlib, time; from tapwise.atomic_file import AtomicFile;"
        "w = AtomicFile(pathlib.Path(sys.argv[1])); w.file.write(b'half'); w.file.flush();"
        "print('ready', flush=True); time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "x.npy")], stdout=subprocess.PIPE)
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(signals_of_the_system.SIGKILL)
    run.wait()
    run.stdout.close()
    assert list(tmp_path.iterdir()) == []


def fail_in_the_middle(writer):
    with writer:
        writer.write(np.zeros((1, 3)))
        raise ZeroDivisionError


def test_a_failed_write_leaves_nothing(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(10))
    reader = open_reader(tmp_path / "a.npy")
    for name in ("o.npy", "o.wav", "o.csv"):
        with pytest.raises(ZeroDivisionError):
            fail_in_the_middle(open_writer(tmp_path / name, reader, 10, 8000, None))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]
    with pytest.raises(SignalError, match="no folder"):
        open_writer(tmp_path / "absent" / "o.npy", reader, 10, None, None)
    reader.close()


# What other programs write


def test_headings_in_latin_1_stay(tmp_path):
    for encoding, text in (
        ("latin-1", "Größe,Zeit °C\n1,é\n2,b\n"),
        ("utf-8", "Größe,Zeit °C\n1,é\n2,b\n"),
        ("utf-8-sig", "Größe,Zeit\n1,é\n2,b\n"),
        ("utf-16", "Größe,Zeit\n1,é\n2,b\n"),
    ):
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        copied(tmp_path / "a.csv", tmp_path / "b.csv")
        written = (tmp_path / "b.csv").read_bytes()
        assert written.decode(encoding) == text.replace("\n1,", "\n1.0,").replace("\n2,", "\n2.0,")


def test_headings_of_spreadsheets_can_be_named(tmp_path):
    (tmp_path / "a.csv").write_bytes("Preis €,b\n1,x\n".encode("cp1252"))
    with open_reader(tmp_path / "a.csv", ("Preis €",)) as reader:
        assert reader.read(0, 1).tolist() == [[1.0]]


def samples_of(path):
    with open_reader(path) as reader:
        return reader.read(0, reader.length), reader.notes


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFF000, 0xFFFFFFFF])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_wav_written_by_a_pipe(tmp_path, size, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.linspace(-0.5, 0.5, 3000).reshape(-1, 2), 8000, subtype)
    want, _ = samples_of(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "little")
    data[4:8] = min(size + 36, 0xFFFFFFFF).to_bytes(4, "little")
    path.write_bytes(data)
    found, notes = samples_of(path)
    np.testing.assert_array_equal(found, want)
    assert "1,500 samples are there" in notes[0]


def test_a_truncated_wav_is_still_refused(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(3000), 8000)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SignalError, match="cut short"):
        open_reader(path)
    soundfile.write(path, np.zeros(0), 8000)
    with pytest.raises(SignalError, match="no samples"):
        open_reader(path)


def test_a_flac_of_unknown_length(tmp_path):
    path = tmp_path / "a.flac"
    x = np.arange(10_000, dtype=np.int16).reshape(-1, 2)
    soundfile.write(path, x, 8000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    found, notes = samples_of(path)
    np.testing.assert_array_equal(found, x.T)
    assert "5,000 samples are there" in notes[0]
    with open_reader(path) as reader:
        np.testing.assert_array_equal(reader.read(4000, 5000), x.T[:, 4000:])
        np.testing.assert_array_equal(reader.read(100, 103), x.T[:, 100:103])


def test_tags_stay_and_what_does_not_is_said(tmp_path):
    for kind, other in (("wav", "flac"), ("flac", "wav")):
        with soundfile.SoundFile(tmp_path / f"a.{kind}", "w", 8000, 1, "PCM_16") as file:
            file.title, file.artist, file.comment = "Title", "Artist", "Comment"
            file.write(np.zeros(100))
        for target in (kind, other):
            copied(tmp_path / f"a.{kind}", tmp_path / f"b.{target}")
            with soundfile.SoundFile(tmp_path / f"b.{target}") as file:
                assert (file.title, file.artist, file.comment) == ("Title", "Artist", "Comment")
    wav = tmp_path / "a.wav"
    data = (
        wav.read_bytes()
        + b"cue "
        + (4).to_bytes(4, "little")
        + bytes(4)
        + b"smpl"
        + (36).to_bytes(4, "little")
        + bytes(36)
    )
    wav.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    with open_reader(wav) as reader, open_writer(tmp_path / "c.wav", reader, 1, 8000, None) as writer:
        writer.write(reader.read(0, 1))
        assert writer.notes == ("not written: cue points, loops of a.wav",)


@pytest.mark.parametrize(("channels", "mask"), [(6, 0x3F), (2, 3), (2, 0), (4, 0x107)])
def test_an_extensible_wav_stays_one(tmp_path, channels, mask):
    wav = tmp_path / "a.wav"
    soundfile.write(wav, np.zeros((10, channels)), 8000, "PCM_24", format="WAVEX")
    data = bytearray(wav.read_bytes())
    at = data.index(b"fmt ") + 8 + 20
    data[at : at + 4] = mask.to_bytes(4, "little")
    wav.write_bytes(data)
    with open_reader(wav) as reader:
        writer = open_writer(tmp_path / "b.wav", reader, 10, 8000, None)
        with writer:
            writer.write(reader.read(0, 10))
    assert soundfile.info(tmp_path / "b.wav").format == "WAVEX"
    written = (tmp_path / "b.wav").read_bytes()
    at = written.index(b"fmt ") + 8 + 20
    is_kept = int.from_bytes(written[at : at + 4], "little") == mask
    assert writer.notes == (() if is_kept else (f"not written: the channel mask {mask:#x}",))


def test_tags_that_are_not_kept_are_said(tmp_path):
    wav = tmp_path / "a.wav"
    soundfile.write(wav, np.zeros(100), 8000, "PCM_16")
    tags = b"INFO" + b"IART" + (8).to_bytes(4, "little") + "K\xfcnstler".encode("latin-1")
    tags += b"IENG" + (4).to_bytes(4, "little") + b"Me\0\0"
    data = (
        wav.read_bytes()
        + b"LIST"
        + len(tags).to_bytes(4, "little")
        + tags
        + b"axml"
        + (2).to_bytes(4, "little")
        + b"ab"
    )
    wav.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    with open_reader(wav) as reader, open_writer(tmp_path / "b.wav", reader, 100, 8000, None) as writer:
        writer.write(reader.read(0, 100))
        (note,) = writer.notes
    for words in ("the tag IENG", "the chunk 'axml'", "the artist, which is not in UTF-8"):
        assert words in note
    assert b"\xef\xbf\xbd" not in (tmp_path / "b.wav").read_bytes()


def test_sizes_that_are_no_pipes(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1000), 8000)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    for size, riff, words in (
        (2_500_000_000, 2_500_000_036, "cut short"),
        (0, 0xFFFFFFFF, None),
        (0, len(data) - 8, None),
    ):
        data[at : at + 4], data[4:8] = size.to_bytes(4, "little"), riff.to_bytes(4, "little")
        path.write_bytes(data)
        if words:
            with pytest.raises(SignalError, match=words):
                open_reader(path)
        else:
            assert samples_of(path)[0].shape == (1, 1000)
    soundfile.write(path, np.zeros(1000), 8000, format="RF64")
    assert samples_of(path)[1] == ()


def test_a_damaged_flac_of_unknown_length_is_refused_in_words(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 50_000), 8000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SignalError, match="damaged after sample"):
        open_reader(path)
