"""save, load, copy and pickle: the same net again, or a clear error."""

import copy
import json
import os
import pickle
import struct

import nets
import numpy as np
import pytest

import fnn_core as fnn


def trained(dtype="float32", **options):
    layers = [
        fnn.Dense(11, "relu"),
        fnn.Dropout(0.25),
        fnn.Dense(6, "gelu", bias=False),
        fnn.Dense(5, "tanh", trainable=False),
        fnn.Dense(3),
    ]
    options = {"loss": "softmax_cross_entropy", "dtype": dtype, "seed": 5, **options}
    net = fnn.Network(layers, input_shape=7, **options)
    net.fit(*data(dtype), epochs=2, batch_size=8)
    return net


def data(dtype="float32"):
    rng = np.random.default_rng(1)
    return rng.normal(size=(20, 7)).astype(dtype), rng.integers(0, 3, 20)


def through_file(net, tmp_path):
    net.save(tmp_path / "net.safetensors")
    return fnn.load(tmp_path / "net.safetensors")


WAYS = {
    "file": through_file,
    "pickle": lambda net, _: pickle.loads(pickle.dumps(net)),
    "copy": lambda net, _: copy.copy(net),
    "deepcopy": lambda net, _: copy.deepcopy(net),
}


@pytest.mark.parametrize("dtype", nets.DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_the_same_net_again(way, dtype, tmp_path):
    net = trained(dtype, memory="store")
    again = WAYS[way](net, tmp_path)
    X, y = data(dtype)
    nets.assert_same_bits(again.theta, net.theta)
    nets.assert_same_bits(again.predict(X), net.predict(X))
    assert again.loss(X, y) == net.loss(X, y)
    assert np.dtype(again.dtype) == dtype
    assert again.memory == "store"
    assert [repr(layer) for layer in again.layers] == [repr(layer) for layer in net.layers]
    assert np.array_equal(np.atleast_1d(again.input_shape), np.atleast_1d(net.input_shape))


@pytest.mark.parametrize("way", WAYS)
def test_it_has_storage_of_its_own_and_trains(way, tmp_path):
    net = trained()
    before = net.theta.copy()
    again = WAYS[way](net, tmp_path)
    frozen = again.weights[3].copy()
    again.fit(*data(), epochs=2, batch_size=8)
    assert not np.array_equal(again.theta, before)
    assert np.array_equal(again.weights[3], frozen), "a frozen layer thawed"
    nets.assert_same_bits(net.theta, before)
    net.step(*data(), fnn.SGD(0.1))


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_a_copy_continues_as_the_net_would(way, tmp_path):
    """Shuffling and dropout go on where they were."""
    net = trained()
    again = WAYS[way](net, tmp_path)
    for each in (net, again):
        each.fit(*data(), epochs=2, batch_size=8, optimizer="sgd")
    nets.assert_same_bits(again.theta, net.theta)


@pytest.mark.parametrize("loss", nets.LOSSES)
@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_every_activation_and_loss(activation, loss, tmp_path, rng):
    net = nets.network([7, 11, 3], activation, loss)
    again = through_file(net, tmp_path)
    X, y = rng.normal(size=(9, 7)), nets.targets(rng, loss, 9, 3)
    assert again.loss(X, y) == net.loss(X, y)


def test_the_file_is_safetensors(tmp_path):
    """Eight bytes of length, a JSON header, then the tensors; no pickle."""
    net, path = trained(), tmp_path / "net.safetensors"
    net.save(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert all(type(k) is str and type(v) is str for k, v in metadata.items())
    assert any("Dropout" in v or "dropout" in v for v in metadata.values())
    ends = [entry["data_offsets"] for entry in header.values()]
    assert max(end for _, end in ends) == len(content) - 8 - length
    assert sum(end - begin for begin, end in ends) == net.theta.nbytes
    assert {entry["dtype"] for entry in header.values()} == {"F32"}


def test_str_paths_and_no_leftovers(tmp_path):
    net = trained()
    net.save(str(tmp_path / "one"))
    net.save(str(tmp_path / "one"))
    assert [p.name for p in tmp_path.iterdir()] == ["one"]
    nets.assert_same_bits(fnn.load(str(tmp_path / "one")).theta, net.theta)


def test_truncated_files(tmp_path):
    path = tmp_path / "net"
    trained().save(path)
    content = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="net"):
            fnn.load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match="net"):
        fnn.load(path)


def safetensors(header, payload=b""):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text)) + text + payload


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 a zip file, say",
        b"\x80\x04K\x01.",
        struct.pack("<Q", 2**63) + b"{}",
        safetensors(b"{not json"),
        safetensors(b"\xff\xfe"),
        safetensors([1, 2]),
        safetensors({}),
        safetensors({"__metadata__": {"format": "pt"}}),
        safetensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        safetensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 99]}}, bytes(8)),
    ],
)
def test_foreign_files(content, tmp_path):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="foreign"):
        fnn.load(path)


def test_missing_places(tmp_path):
    with pytest.raises(FileNotFoundError):
        fnn.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        trained().save(tmp_path / "none" / "net")


def test_an_own_loss_cannot_be_saved(tmp_path):
    loss = fnn.Loss(lambda y, t: (t * t).sum(axis=1), lambda y, t: 2 * t)
    net = nets.network([3, 2], loss=loss)
    with pytest.raises((ValueError, TypeError), match="loss"):
        net.save(tmp_path / "net")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_the_mode_of_a_file(tmp_path):
    """That of the umask, or of the file that it takes the place of; through a link."""
    path, link = tmp_path / "net", tmp_path / "link"
    before = os.umask(0o027)
    try:
        trained().save(path)
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        link.symlink_to(path)
        trained().save(link)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o604
    assert link.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "net"]


def test_paths_that_are_none(tmp_path):
    net = trained()
    for call in (net.save, fnn.load):
        with pytest.raises(TypeError, match="path"):
            call(3)
    with pytest.raises(FileNotFoundError, match=r"path.*no folder"):
        net.save(tmp_path / "nowhere" / "net")


@pytest.mark.parametrize(
    "change",
    [
        lambda description: "x",
        lambda description: None,
        lambda description: [1],
        lambda description: description | {"steps_begun": float("inf")},
        lambda description: description | {"steps_begun": 2**70},
        lambda description: description | {"epochs_begun": -1},
        lambda description: description | {"layers": [{"kind": "Dense", "units": 2**40}]},
        lambda description: description | {"layers": [{"kind": "Dense", "units": 3}]},
    ],
)
def test_descriptions_that_none_of_ours_is(change, tmp_path):
    path = tmp_path / "net"
    trained().save(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header["__metadata__"]["network"])
    header["__metadata__"]["network"] = json.dumps(change(description))
    path.write_bytes(safetensors(header, content[8 + length :]))
    with pytest.raises(ValueError, match="damaged"):
        fnn.load(path)


def test_a_file_of_others_in_a_dtype_of_others(tmp_path):
    path = tmp_path / "net"
    header = {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    path.write_bytes(safetensors(header, bytes(4)))
    with pytest.raises(ValueError, match="format"):
        fnn.load(path)
