"""Nets with a user's own map: copies, files, and what they say of themselves."""

import copy
import pickle

import nets
import numpy as np
import pytest
from bilinear_nets import around, data, dense_tensor, forms

import fnn_core as fnn
from fnn_core.testing import check_gradient


def test_copies_and_files(tmp_path, rng):
    """A map of one's own cannot be in a file; it can be pickled where Python can."""
    net, _ = around("methods")
    X = data()[0]
    for again in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        nets.assert_same_bits(again.predict(X), net.predict(X))
    with pytest.raises((ValueError, TypeError), match=r"map.*layers\[1\]|layers\[1\].*map"):
        net.save(tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_repr_and_equality(rng):
    chosen = forms(rng)[1]["tensor"]
    layer = fnn.Bilinear(chosen, "tanh")
    assert "Bilinear" in repr(layer)
    assert layer == fnn.Bilinear(chosen, "tanh")
    assert layer != fnn.Bilinear(chosen, "relu")


def test_initial_weights(rng):
    t = dense_tensor(rng)
    seen = []

    def mine(rng, shape):
        seen.append(shape)
        return np.arange(7.0)

    chosen = fnn.BilinearMap.from_tensor(t)
    net = fnn.Network([fnn.Bilinear(chosen, initializer=mine)], input_shape=4, dtype="float64")
    assert seen == [(7,)]
    assert net.weights[0].tolist() == list(range(7))
    net = fnn.Network([fnn.Bilinear(chosen)], input_shape=4, dtype="float64")
    assert np.isfinite(net.weights[0]).all()
    assert len(set(net.weights[0].tolist())) == 7


def test_the_plan_names_what_it_cannot_know():
    net, _ = around("methods")
    assert "Python functions" in str(net.memory_plan())


def test_check_gradient_of_a_net_with_a_map():
    check_gradient(around("methods")[0], *data())
