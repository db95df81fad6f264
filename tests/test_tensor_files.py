"""Reading .safetensors into memory of one's own, as the format's library reads them."""

import os
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from folders import posix
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from restore.errors import ModelError
from restore.storage import sealed, tensor_files

TENSORS = {
    "double": torch.arange(6, dtype=torch.float64).view(2, 3),
    "half": torch.arange(3).half(),
    "brain": torch.arange(7).bfloat16(),
    "eight": torch.arange(4).float().to(torch.float8_e4m3fn),
    "complex": torch.tensor([1 + 2j]),
    "whole": torch.tensor([3, 4]),
    "flags": torch.tensor([[True, False]]),
    "none": torch.zeros(0, 4),
    "scalar": torch.tensor(3.0),
}
PIECES = [b"", b"0", b"-1", b"9" * 30, b"{", b'"', b"F64", b"[", b"\xff"]


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_tensors_are_read_as_the_library_of_the_format_reads_them(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, {"licence": "mine"})
    held, metadata = tensor_files.load(path)
    assert held.keys() == TENSORS.keys() and metadata == {"licence": "mine"}
    for name, tensor in TENSORS.items():
        assert held[name].dtype == tensor.dtype and held[name].shape == tensor.shape
        assert bytes_of(held[name]) == bytes_of(tensor)
    assert tensor_files.header(path).tensors["double"].shape == [2, 3]
    kept = {name: tensor for name, tensor in TENSORS.items() if name not in ("brain", "eight")}
    save_file(kept, path)
    for name, array in tensor_files.load_numpy(path).items():
        assert torch.equal(torch.from_numpy(array), kept[name])


def test_what_was_read_does_not_follow_its_file(tmp_path):
    """Mapped tensors would: the file is edited after it was hashed and read."""
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(5000.0)}, path)
    good = path.read_bytes()
    with sealed.sealing():
        sealed.sha256(path)
        held, arrays = tensor_files.load(path)[0]["a"], tensor_files.load_numpy(path)["a"]
    with path.open("r+b") as file:
        file.write(bytes(len(good)))
    assert held.tolist() == arrays.tolist() == list(range(5000))
    with sealed.sealing(), pytest.raises(ModelError, match="changed while it was read"):
        sealed.sha256(path)
        path.write_bytes(good)
        tensor_files.load(path)


@given(st.data())
@settings(max_examples=200)
def test_no_damaged_file_is_read_that_the_library_refuses(data):
    """Bytes of the file are replaced, left out or doubled."""
    whole = bytearray(
        safetensors.torch.save({"a": torch.arange(4.0), "b": torch.ones(2, 2).half()})
    )
    for _ in range(data.draw(st.integers(1, 3))):
        here = data.draw(st.integers(0, max(0, len(whole) - 1)))
        there = data.draw(st.integers(here, here + 9))
        whole[here:there] = data.draw(st.sampled_from([*PIECES, bytes(whole[here:there]) * 2]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(whole)
        try:
            ours, _ = tensor_files.load(path)
        except tensor_files.TensorFileError:
            return
    theirs = safetensors.torch.load(bytes(whole))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and ours[name].shape == tensor.shape
        assert bytes_of(ours[name]) == bytes_of(tensor)


@posix
@pytest.mark.parametrize("fault", ["pipe", "folder", "empty", "sparse", "deep", "twice", "large"])
def test_what_is_no_file_of_tensors_is_refused_at_once(tmp_path, fault):
    path = tmp_path / "x.safetensors"
    text = b'{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (2**50, 2**50)
    header = {"deep": b"[" * 10**5, "twice": b'{"a":1,"a":1}', "large": text}.get(fault, b"")
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    if fault == "sparse":
        path.write_bytes((2**40 - 8).to_bytes(8, "little"))
        os.truncate(path, 2**40)
    elif fault in ("pipe", "folder"):
        path.unlink()
        getattr(os, {"pipe": "mkfifo", "folder": "mkdir"}[fault])(path)
    with pytest.raises((tensor_files.TensorFileError, OSError)):
        tensor_files.load(path)


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(tmp_path):
    path, size = tmp_path / "x.safetensors", 2**43
    text = b'{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size, size)
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + size)
    with pytest.raises(tensor_files.TensorFileError, match="more than this machine's memory"):
        tensor_files.load(path)
