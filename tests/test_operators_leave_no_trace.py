"""Operators change nothing, and depend on neither threads nor memory modes."""

import images
import nets
import pytest
from operator_cases import NETS, case, close


def test_nothing_is_changed(rng):
    net, _, X, y = case("image")
    theta, kept, v = net.theta.copy(), X.copy(), rng.normal(size=net.n_parameters)
    before = net.gradients(X, y)[1].theta.copy()
    J, B, H = net.jacobian(X), net.gauss_newton(X, y), net.hessian(X, y)
    objective = net.objective(X, y)
    results = [
        J @ v,
        B @ v,
        H @ v,
        *net.jvp(X, v, X),
        *net.vjp(X, y),
        objective.jac(2 * theta),
        objective.hessp(2 * theta, v),
    ]
    copies = [result.copy() for result in results]
    objective.fun(3 * theta)
    assert J @ v is not results[0]
    again = [J @ v, B @ v, H @ v, *net.jvp(X, v, X), *net.vjp(X, y)]
    for result, copied in zip(results, copies, strict=True):
        nets.assert_same_bits(result, copied, "a later call changed an earlier result")
    for result, copied in zip(again, copies, strict=False):
        nets.assert_same_bits(result, copied, "it depends on what ran before")
    nets.assert_same_bits(net.theta, theta)
    nets.assert_same_bits(X, kept)
    nets.assert_same_bits(net.gradients(X, y)[1].theta, before)


@pytest.mark.parametrize("name", NETS)
def test_same_bits_for_any_number_of_threads(name, rng):
    net, _, X, y = case(name, n=301)
    v, dx = rng.normal(size=net.n_parameters), rng.normal(size=X.shape)

    def results():
        return [
            *net.jvp(X, v, dx),
            *net.vjp(X, y),
            net.jacobian(X) @ v,
            net.jacobian(X).T @ y.ravel(),
            net.gauss_newton(X, y) @ v,
            net.hessian(X, y) @ v,
        ]

    one = results()
    for n_threads in (2, 3, 8):
        net.n_threads = n_threads
        for got, want in zip(results(), one, strict=True):
            nets.assert_same_bits(got, want, f"{n_threads} threads")


@pytest.mark.parametrize("mode", images.MODES)
def test_they_do_not_depend_on_the_memory_mode(mode, rng):
    net, _, X, y = case("decoder", memory="store")
    v = rng.normal(size=net.n_parameters)
    results = [
        (*net.jvp(X, v, X), *net.vjp(X, y), net.gauss_newton(X, y) @ v, net.hessian(X, y) @ v)
        for net.memory in ("store", mode)
    ]
    for got, want in zip(*results, strict=True):
        close(got, want)
