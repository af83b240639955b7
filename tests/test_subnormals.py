"""Numbers too small to be normal, which take processors long: zeros in training, kept elsewhere."""

import nets
import numpy as np
import pytest

import fnn_core as fnn

pytestmark = pytest.mark.skipif(not nets.DROPS_SUBNORMALS, reason="no such setting is known here")


def are_kept(one=1.0):
    """Whether this thread's arithmetic keeps them at the moment."""
    return 5e-324 * one > 0


def sure(dtype, n_threads=1):
    """A net whose second class has a subnormal probability, and batches for one or more threads."""
    inputs, samples = (2, 40) if n_threads == 1 else (512, 1024)
    net = fnn.Network(
        [fnn.Dense(3)], inputs, loss="softmax_cross_entropy", dtype=dtype, n_threads=n_threads
    )
    net.theta[:] = 0
    net.biases[0][:] = [0, {"float32": -95, "float64": -720}[np.dtype(dtype).name], -5]
    return net, np.ones((samples, inputs), dtype), np.zeros(samples, int)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_what_training_sends_back_has_none(dtype, n_threads):
    net, X, y = sure(dtype, n_threads)
    assert 0 < np.exp(net.biases[0][1]) < np.finfo(dtype).tiny
    _, grads = net.gradients(X, y)
    assert grads.biases[0][1] == 0
    assert grads.biases[0][2] > 0
    assert are_kept()


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_moments_are_not_subnormal(dtype, n_threads):
    """The bias of a class without probability gets no moment."""
    net, X, y = sure(dtype, n_threads)
    adam = fnn.Adam(1e-3)
    net.fit(X, y, batch_size=len(X) // 2, optimizer=adam, shuffle=False)
    first, second = (array[nets.places_in_theta(net)[1][0]] for array in adam._state.arrays[:2])
    assert first[1] == second[1] == 0
    assert first[2] > 0
    assert second[2] > 0


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

    class Product(fnn.BilinearMap):
        input_shape = weight_shape = output_shape = (4,)

        def apply(self, x, w):
            seen.append(are_kept())
            return x * w

        def adjoint_input(self, h, w):
            seen.append(are_kept())
            return h * w

        def adjoint_weight(self, x, h):
            seen.append(are_kept())
            return (x * h).sum(axis=0)

    net = fnn.Network([fnn.Bilinear(Product())] * 2, 4, loss=fnn.Loss(value, slope))
    X, y = rng.normal(size=(12, 4)), rng.normal(size=(12, 4))
    seen.clear()
    net.fit(X, y, batch_size=5, optimizer=fnn.SGD(0.01))
    net.gradients(X, y)
    # Three batches and one: value and slope, two maps forward, two weights' sums, one signal back.
    assert len(seen) >= 4 * 7
    assert all(seen)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", nets.DTYPES)
def test_factors_and_curvature_are_of_the_gradient(dtype, n_threads):
    """What they are made of is as it is there."""
    net, X, y = sure(dtype, n_threads)
    gradients = net.gradients(X, y)[1]
    (factors,) = net.gradient_factors(X, y)
    assert factors.delta[0, 1] == factors.dense()[1, 0] == gradients.weights[0][1, 0] == 0
    direction = np.zeros_like(net.theta)
    direction[nets.places_in_theta(net)[1][0]] = [0, 1, 0]
    assert np.count_nonzero(net.hessian(X, y) @ direction) == 0
    assert are_kept()
