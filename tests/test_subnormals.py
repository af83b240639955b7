"""Numbers too small to be normal, which take processors long: zeros in training, kept elsewhere."""

import platform

import nets
import numpy as np
import pytest

import fnn_core as fnn

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64", "arm64"), reason="no setting known here"
)


def are_kept(one=1.0):
    """Whether this thread's arithmetic keeps them at the moment."""
    return 5e-324 * one > 0


def sure(dtype, n_threads=1):
    """A net whose second class has a subnormal probability, and a batch of its first class."""
    net = fnn.Network(
        [fnn.Dense(3)], 2, loss="softmax_cross_entropy", dtype=dtype, n_threads=n_threads, seed=None
    )
    net.biases[0][:] = [0, {"float32": -95, "float64": -720}[np.dtype(dtype).name], -5]
    return net, np.ones((40, 2), dtype), np.zeros(40, int)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_what_training_sends_back_has_none(dtype, n_threads):
    net, X, y = sure(dtype, n_threads)
    assert 0 < np.exp(net.biases[0][1]) < np.finfo(dtype).tiny
    _, grads = net.gradients(X, y)
    assert grads.biases[0][1] == 0
    assert grads.biases[0][2] > 0
    before = net.biases[0].copy()
    net.fit(X, y, batch_size=20, optimizer=fnn.Adam(1e-3), shuffle=False)
    assert net.biases[0][1] == before[1]
    assert net.biases[0][2] < before[2]
    assert are_kept()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_callers_arithmetic_is_as_before(n_threads, rng):
    net = nets.network([7, 11, 3], n_threads=n_threads)
    X, y = rng.normal(size=(24, 7)), rng.normal(size=(24, 3))
    net.step(X, y, fnn.SGD(0.01))
    assert are_kept()
    net.gradients(X, y)
    assert are_kept()
    net.fit(X, y, epochs=2, batch_size=5, optimizer=fnn.SGD(0.01))
    assert are_kept()
    net.fit(X, y, epochs=2, batch_size=5, optimizer=fnn.DPSGD(0.01, 1.0, 1.0))
    assert are_kept()


def test_the_users_own_functions_keep_them(rng):
    seen = []

    def value(y, t):
        seen.append(are_kept())
        return ((y - t) ** 2).sum(axis=1)

    def slope(y, t):
        seen.append(are_kept())
        return 2 * (t - y)

    def apply(x, w):
        seen.append(are_kept())
        return x * w

    product = fnn.BilinearMap.from_function(
        apply, input_shape=(4,), weight_shape=(4,), output_shape=(4,)
    )
    net = fnn.Network([fnn.Bilinear(product)], 4, loss=fnn.Loss(value, slope))
    X, y = rng.normal(size=(12, 4)), rng.normal(size=(12, 4))
    seen.clear()
    net.fit(X, y, batch_size=5, optimizer=fnn.SGD(0.01))
    net.gradients(X, y)
    assert len(seen) > 6
    assert all(seen)
