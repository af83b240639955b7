"""Wrong descriptions of convolutions and pools."""

import numpy as np
import pytest
from test_errors_descriptions import INF, NAN, says

import fnn_core as fnn


def network(layer, input_shape=(8, 9, 4)):
    return fnn.Network([layer], input_shape=input_shape)


KINDS = [fnn.Conv, fnn.ConvTranspose]
SIZES = [0, -1, 2.5, "two", None, (), (2, 0), (2, -1), (2, 1.5), (1, 2, 3, 4), NAN, True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [0, -3, 2.5, "x", None, NAN, True, (3,)])
def test_filters(kind, wrong):
    says(lambda: network(kind(wrong, 3)), "filters", str(wrong))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", SIZES)
@pytest.mark.parametrize("name", ["kernel_size", "stride", "dilation"])
def test_sizes(name, wrong, kind):
    given = {"kernel_size": 3, name: wrong}
    says(lambda: network(kind(4, **given)), name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [(3,), (3, 3, 3)])
@pytest.mark.parametrize("name", ["kernel_size", "stride", "dilation", "padding"])
def test_one_size_for_each_axis(name, wrong, kind):
    """The image has two."""
    given = {"kernel_size": 3, name: wrong}
    says(lambda: network(kind(4, **given)), "layers[0]", name, str(wrong), "2")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wrong",
    [
        "full",
        "SAME",
        -1,
        1.5,
        None,
        True,
        NAN,
        (),
        (1, -1),
        (1, 1.5),
        (1, "same"),
        ((1, 0),),
        ((1, 0), (0, -1)),
        ((1, 0), (0,)),
        ((1, 0), (0, 1, 2)),
        ((1, 0), 1),
        ((1, 0), None),
        ((0.5, 0), (0, 1)),
    ],
)
def test_padding(wrong, kind):
    says(lambda: network(kind(4, 3, padding=wrong)), "padding", str(wrong))


def test_padding_comes_with_what_is_known():
    says(lambda: fnn.Conv(4, 3, padding="full"), "valid", "same")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [0, -1, 1.5, "all", None, NAN, True, (2, 2)])
def test_groups(wrong, kind):
    says(lambda: network(kind(4, 3, groups=wrong)), "groups", str(wrong))


@pytest.mark.parametrize("kind", KINDS)
def test_groups_divide(kind):
    says(lambda: network(kind(6, 3, groups=4)), "groups", "4", "6")
    says(lambda: network(kind(6, 3, groups=3)), "layers[0]", "groups", "3", "channels", "4")


@pytest.mark.parametrize("kind", KINDS)
def test_what_every_layer_takes(kind):
    says(lambda: network(kind(4, 3, "rellu")), "activation", "relu", "rellu")
    says(lambda: network(kind(4, 3, bias="no")), "bias", "no")
    says(lambda: network(kind(4, 3, trainable=1)), "trainable", "1")
    says(lambda: network(kind(4, 3, initializer="he")), "initializer", "he_uniform")
    says(lambda: network(kind(4, 3, initializer=lambda rng, shape: np.zeros(3))), "initializer")
    with pytest.raises(TypeError):
        kind(4, 3, "relu", 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [8, (8,), (2, 2, 2, 2, 2)])
def test_inputs_that_are_no_images(kind, shape):
    written = str((8,)) if shape == 8 else str(shape)
    says(lambda: network(kind(4, 1), shape), "layers[0]", kind.__name__, written)


def test_windows_that_do_not_fit():
    says(lambda: network(fnn.Conv(4, 10)), "layers[0]", "10", "(8, 9)")
    says(lambda: network(fnn.Conv(4, 3, dilation=5)), "layers[0]", "11", "(8, 9)")
    says(lambda: network(fnn.Conv(4, (9, 1))), "layers[0]", "9", "8")
    network(fnn.Conv(4, 10, padding="same"))
    network(fnn.Conv(4, 10, padding=1))
    says(lambda: network(fnn.AvgPool(9)), "layers[0]", "9", "8")
    says(lambda: network(fnn.MaxPool((1, 10))), "layers[0]", "10", "9")


def test_a_transpose_that_leaves_nothing():
    says(lambda: network(fnn.ConvTranspose(4, 1, padding=4)), "layers[0]", "padding", "4")
    says(
        lambda: network(fnn.ConvTranspose(4, 3, padding=((0, 10), (0, 0)))), "layers[0]", "padding"
    )
    network(fnn.ConvTranspose(4, 3, padding=((0, 9), (0, 0))))


@pytest.mark.parametrize("kind", [fnn.AvgPool, fnn.MaxPool])
def test_pools(kind):
    for wrong in SIZES:
        says(lambda wrong=wrong: network(kind(wrong)), "size")
        if wrong is not None:
            says(lambda wrong=wrong: network(kind(2, wrong)), "stride")
    for wrong in ((2,), (2, 2, 2)):
        says(lambda wrong=wrong: network(kind(wrong)), "layers[0]", "size", str(wrong), "2")
        says(lambda wrong=wrong: network(kind(2, wrong)), "layers[0]", "stride", str(wrong), "2")
    says(lambda: network(kind(1), (8,)), "layers[0]", kind.__name__, "(8,)")


def test_layers_without_arguments():
    says(lambda: network(fnn.GlobalAvgPool(), (8,)), "layers[0]", "GlobalAvgPool", "(8,)")
    for kind in (fnn.GlobalAvgPool, fnn.Flatten):
        with pytest.raises(TypeError):
            kind(3)


def test_a_dense_layer_on_an_image():
    says(lambda: network(fnn.Dense(3)), "layers[0]", "Dense", "(8, 9, 4)", "latten")


def test_layers_that_do_not_fit_each_other():
    def after_a_flat_one():
        fnn.Network([fnn.Conv(4, 3), fnn.Flatten(), fnn.Conv(4, 3)], input_shape=(8, 9, 4))

    says(after_a_flat_one, "layers[2]", "Conv", "(168,)")


def test_sizes_that_overflow():
    """Refused by arithmetic, before memory is asked for."""
    says(lambda: network(fnn.Conv(2**40, 3), (2**20, 2**10)), "layers[0]")
    says(lambda: network(fnn.Conv(2**20, 2**20, padding="same"), (2**20, 2**20)), "layers[0]")
    says(lambda: network(fnn.Conv(10**30, 3)), "filters")
    says(lambda: network(fnn.Conv(4, 3, padding=2**62)), "padding")
    says(lambda: network(fnn.Conv(4, 3, stride=10**30)), "stride")
    says(lambda: network(fnn.ConvTranspose(4, 3, stride=2**40)), "layers[0]")
    says(lambda: network(fnn.Conv(2**30, 1), (2**10, 2**10, 1)), "layers[0]")


def test_images_of_another_shape():
    net = network(fnn.Conv(4, 3))
    for wrong in ((2, 9, 8, 4), (2, 8, 9), (8, 9, 4), (2, 288)):
        says(lambda wrong=wrong: net.predict(np.zeros(wrong)), "X", "8, 9, 4", str(wrong))
    X = np.zeros((2, 8, 9, 4))
    for wrong in ((2, 6, 7, 3), (2, 168), (3, 6, 7, 4)):
        says(lambda wrong=wrong: net.loss(X, np.zeros(wrong)), "y", str(wrong))


@pytest.mark.parametrize("bad", [NAN, INF])
def test_images_must_be_finite(bad):
    net = network(fnn.Conv(4, 3))
    X, y = np.zeros((5, 8, 9, 4)), np.zeros((5, 6, 7, 4))
    X[3, 7, 0, 2] = bad
    before = net.theta.copy()
    for call in (net.fit, net.step):
        says(lambda call=call: call(X, y, optimizer="sgd"), "X[3, 7, 0, 2]", str(bad))
    assert np.array_equal(net.theta, before)
