"""Wrong arguments of the operators, the factors and what is built on them."""

import nets
import numpy as np
import pytest
from test_errors import refuses
from test_errors_descriptions import INF, NAN, says

import fnn_core as fnn
from fnn_core import testing

N, D, OUT = 6, 4, 3


def network(loss="squared_error", dtype="float64"):
    return nets.network([D, 5, OUT], "tanh", loss, dtype=dtype)


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, D)), rng.normal(size=(N, OUT))


X, Y = data()

WITH_TARGETS = {
    "gauss_newton": lambda net, X, y, **options: net.gauss_newton(X, y, **options),
    "hessian": lambda net, X, y, **options: net.hessian(X, y, **options),
    "objective": lambda net, X, y, **options: net.objective(X, y, **options),
    "gradient_factors": lambda net, X, y: net.gradient_factors(X, y),
    "norms": lambda net, X, y: net.per_sample_gradient_norms(X, y),
    "check_gradient": lambda net, X, y: testing.check_gradient(net, X, y),
}
WITHOUT = {
    "jvp": lambda net, X: net.jvp(X, net.theta),
    "vjp": lambda net, X: net.vjp(X, np.zeros((N, OUT))),
    "jacobian": lambda net, X: net.jacobian(X),
}


@pytest.mark.parametrize("call", [*WITH_TARGETS, *WITHOUT])
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((N, D + 1)),
        np.zeros(D),
        np.zeros((N, D, 1)),
        3.0,
        None,
        "X",
        np.zeros((N, D), complex),
        [[1.0] * D, [1.0]],
        np.where(np.arange(D) == 1, NAN, np.ones((N, D))),
        np.where(np.arange(D) == 1, INF, np.ones((N, D))),
    ],
)
def test_inputs(wrong, call):
    net = network()
    if call in WITHOUT:
        refuses(net, lambda: WITHOUT[call](net, wrong), "X")
    else:
        refuses(net, lambda: WITH_TARGETS[call](net, wrong, Y), "X")


@pytest.mark.parametrize("call", WITH_TARGETS)
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((N - 1, OUT)),
        np.zeros((N, OUT + 1)),
        np.zeros(N),
        None,
        np.zeros((N, OUT), complex),
        np.where(np.arange(OUT) == 1, NAN, np.ones((N, OUT))),
    ],
)
def test_targets(wrong, call):
    net = network()
    refuses(net, lambda: WITH_TARGETS[call](net, X, wrong), "y")


@pytest.mark.parametrize("call", WITH_TARGETS)
def test_labels(call):
    net = network("softmax_cross_entropy")
    y = np.array([0, 1, 2, 7, 0, 1])
    refuses(net, lambda: WITH_TARGETS[call](net, X, y), "y[3] = 7", "0..2")


@pytest.mark.parametrize("call", WITH_TARGETS)
def test_no_samples(call):
    net = network()
    refuses(net, lambda: WITH_TARGETS[call](net, np.empty((0, D)), np.empty((0, OUT))), "X")


@pytest.mark.parametrize("call", ["gauss_newton", "hessian", "objective"])
@pytest.mark.parametrize(
    "wrong", [np.ones(N - 1), np.ones((N, 2)), -np.ones(N), np.zeros(N), np.full(N, NAN), "s", 3]
)
def test_sample_weights(wrong, call):
    net = network()
    refuses(net, lambda: WITH_TARGETS[call](net, X, Y, sample_weight=wrong), "sample_weight")


# --- directions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [np.zeros(3), np.zeros((43, 1)), 3.0, "v", np.zeros(43, complex), np.full(43, NAN)]
)
def test_dtheta(wrong):
    net = network()
    assert net.n_parameters == 43
    refuses(net, lambda: net.jvp(X, dtheta=wrong), "dtheta")


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((N - 1, D)),
        np.zeros((N, D + 1)),
        np.zeros(D),
        3.0,
        "v",
        np.zeros((N, D), complex),
        np.full((N, D), INF),
    ],
)
def test_dx(wrong):
    net = network()
    refuses(net, lambda: net.jvp(X, dX=wrong), "dX")


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((N - 1, OUT)),
        np.zeros((N, OUT + 1)),
        np.zeros(N * OUT),
        3.0,
        None,
        "v",
        np.zeros((N, OUT), complex),
        np.full((N, OUT), NAN),
    ],
)
def test_cotangent(wrong):
    net = network()
    refuses(net, lambda: net.vjp(X, wrong), "cotangent")


@pytest.mark.parametrize("kind", ["jacobian", "gauss_newton", "hessian"])
def test_operators_know_their_shape(kind):
    net = network()
    operator = net.jacobian(X) if kind == "jacobian" else getattr(net, kind)(X, Y)
    for method, size in (("matvec", 43), ("rmatvec", operator.shape[0])):
        for wrong in (size + 1, size - 1):
            with pytest.raises(ValueError, match=r"[Dd]imension"):
                getattr(operator, method)(np.zeros(wrong))


@pytest.mark.parametrize("method", ["fun", "jac", "hessp"])
@pytest.mark.parametrize(
    "wrong", [np.zeros(42), np.zeros((43, 1)), "θ", None, np.zeros(43, complex)]
)
def test_theta_of_an_objective(method, wrong):
    net = network()
    objective = net.objective(X, Y)
    more = (np.zeros(43),) if method == "hessp" else ()
    refuses(net, lambda: getattr(objective, method)(wrong, *more), "theta")


@pytest.mark.parametrize("wrong", [np.zeros(42), "v", None, np.zeros(43, complex)])
def test_direction_of_hessp(wrong):
    net = network()
    refuses(net, lambda: net.objective(X, Y).hessp(net.theta, wrong), "v")


# --- a loss of one's own --------------------------------------------------------------------------


def value(y, t):
    return ((y - t) ** 2).sum(axis=1)


def slope(y, t):
    return 2 * (t - y)


def test_second_order_needs_the_curvature():
    net = network(fnn.Loss(value, slope))
    for call in (net.gauss_newton, net.hessian):
        with pytest.raises(ValueError, match="curvature"):
            call(X, Y)
    objective = net.objective(X, Y)
    assert objective.fun(net.theta) == pytest.approx(net.loss(X, Y))
    assert objective.jac(net.theta).shape == (43,)
    with pytest.raises(ValueError, match="curvature"):
        objective.hessp(net.theta, np.zeros(43))


@pytest.mark.parametrize(
    "curvature", [lambda y, t, v: v[:, :1], lambda y, t, v: "text", lambda y, t, v: None]
)
def test_the_curvature_must_return_what_it_should(curvature):
    net = network(fnn.Loss(value, slope, curvature))
    for call in (net.gauss_newton, net.hessian):
        refuses(net, lambda call=call: call(X, Y) @ np.ones(43), "curvature")


def test_an_exception_in_the_curvature_surfaces():
    def fails(y, t, v):
        raise ZeroDivisionError("mine")

    net = network(fnn.Loss(value, slope, fails))
    for call in (net.gauss_newton, net.hessian):
        with pytest.raises(ZeroDivisionError, match="mine"):
            call(X, Y) @ np.ones(43)
    net.step(X, Y, "sgd")


# --- differential privacy -------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-0.1, NAN, INF, "x", None])
@pytest.mark.parametrize("name", ["lr", "noise_multiplier"])
def test_settings_of_dpsgd(name, wrong):
    given = {"lr": 0.1, "noise_multiplier": 1.0, "max_grad_norm": 1.0, name: wrong}
    says(lambda: fnn.DPSGD(**given), name, str(wrong))


@pytest.mark.parametrize("wrong", [0, -0.1, NAN, INF, "x", None])
def test_the_largest_norm(wrong):
    says(lambda: fnn.DPSGD(0.1, 1.0, wrong), "max_grad_norm", str(wrong))


@pytest.mark.parametrize("wrong", [-1, 1.5, "zero"])
def test_the_seed_of_the_noise(wrong):
    says(lambda: fnn.DPSGD(0.1, 1.0, 1.0, seed=wrong), "seed", str(wrong))


def test_dpsgd_has_no_defaults():
    with pytest.raises(TypeError):
        fnn.DPSGD(0.1)
    with pytest.raises(TypeError):
        fnn.DPSGD(0.1, 1.0)


@pytest.mark.parametrize("call", ["fit", "step"])
def test_sample_weights_have_no_place_in_dpsgd(call):
    """A weight would change how far a sample can move the sum, which the norm is to bound."""
    net = network()
    refuses(
        net,
        lambda: getattr(net, call)(
            X, Y, optimizer=fnn.DPSGD(0.1, 1.0, 1.0), sample_weight=np.arange(1.0, N + 1)
        ),
        "sample_weight",
        "DPSGD",
    )
