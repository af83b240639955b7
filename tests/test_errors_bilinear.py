"""Wrong descriptions of a user's own maps."""

import numpy as np
import pytest
from test_errors_descriptions import NAN, says

import fnn_core as fnn


class Map(fnn.BilinearMap):
    """A dense layer of 4 to 3, some of whose members may be replaced or removed."""

    input_shape, weight_shape, output_shape = (4,), (3, 4), (3,)

    def __init__(self, **members):
        for name, value in members.items():
            setattr(self, name, value)

    def apply(self, x, w):
        return x @ w.T

    def adjoint_input(self, h, w):
        return h @ w

    def adjoint_weight(self, x, h):
        return h.T @ x


def of(chosen):
    return fnn.Network([fnn.Bilinear(chosen)], input_shape=4, dtype="float64")


@pytest.mark.parametrize("wrong", [None, 3, "dense", np.ones((3, 4)), Map, lambda x, w: x])
def test_bilinear_takes_a_map(wrong):
    says(lambda: of(wrong), "map", "BilinearMap")


@pytest.mark.parametrize("name", ["input_shape", "weight_shape", "output_shape"])
@pytest.mark.parametrize("wrong", [None, "4", (0,), (2.5,), -1, ()])
def test_shapes_of_a_map(name, wrong):
    says(lambda: of(Map(**{name: wrong})), name)


@pytest.mark.parametrize("name", ["apply", "adjoint_input", "adjoint_weight"])
def test_members_of_a_map(name):
    says(lambda: of(Map(**{name: None})), name)


def test_a_map_on_another_input():
    says(lambda: fnn.Network([fnn.Bilinear(Map())], input_shape=5), "layers[0]", "(4,)", "(5,)")


def test_what_every_layer_takes_of_a_map():
    says(lambda: fnn.Bilinear(Map(), "rellu"), "activation", "rellu", "relu")
    says(lambda: fnn.Bilinear(Map(), bias="no"), "bias", "no")
    says(lambda: fnn.Bilinear(Map(), trainable="no"), "trainable", "no")
    says(lambda: fnn.Bilinear(Map(), initializer="he"), "initializer", "he")


def test_a_bias_map_comes_whole():
    says(lambda: of(Map(spread=lambda b: b)), "bias_shape")
    says(lambda: of(Map(bias_shape=(1,), spread=lambda b: np.full(3, b[0]))), "gather")
    says(lambda: of(Map(bias_shape=(1,), gather=lambda h: h.sum(keepdims=True))), "spread")
    whole = Map(
        bias_shape=(0,), spread=lambda b: np.full(3, b[0]), gather=lambda h: h.sum(keepdims=True)
    )
    says(lambda: of(whole), "bias_shape")


@pytest.mark.parametrize(
    "wrong", [None, 3, "t", np.ones((2, 3)), np.ones((2, 3, 4, 5)), np.full((2, 3, 4), NAN),
              np.full((2, 3, 4), "a"), np.ones((2, 3, 4), complex), np.ones((2, 0, 4))]
)  # fmt: skip
def test_tensors(wrong):
    says(lambda: fnn.BilinearMap.from_tensor(wrong), "tensor")


def test_sparse_tensors():
    from scipy import sparse

    t = sparse.random_array((2, 12), density=0.5, rng=np.random.default_rng(0))
    says(lambda: fnn.BilinearMap.from_tensor(t), "shape")
    for wrong in ((2, 3, 5), (3, 4, 2), (2, 12), 24, "abc", (2, -3, -4), (2, 3.0, 4.0)):
        says(lambda wrong=wrong: fnn.BilinearMap.from_tensor(t, shape=wrong), "shape")


def test_functions():
    shapes = {"input_shape": (4,), "weight_shape": (3, 4), "output_shape": (3,)}
    for wrong in (None, 3, "apply", np.ones(3)):
        says(lambda wrong=wrong: fnn.BilinearMap.from_function(wrong, **shapes), "apply")
    for name in shapes:
        for wrong in (None, "4", (0,), (2.5,), -1):
            given = {**shapes, name: wrong}
            says(lambda g=given: fnn.BilinearMap.from_function(lambda x, w: x @ w.T, **g), name)
