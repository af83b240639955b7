"""Nets of any layers in any order, drawn at random: all that the engine computes of them."""

import images
import nets
import numpy as np
import reference
import reference_operators
from hypothesis import given, settings

import fnn_core as fnn


def of(drawn, dtype="float64", loss="squared_error"):
    net = images.network(
        drawn.specs,
        drawn.input_shape,
        loss,
        scale=0.5,
        seed=drawn.seed,
        dtype=dtype,
        memory=drawn.mode,
        n_threads=drawn.n_threads,
    )
    rng = np.random.default_rng(drawn.seed)
    X = rng.normal(size=(drawn.n, *net.input_shape)).astype(dtype)
    y = rng.normal(size=(drawn.n, *net.output_shape)).astype(dtype)
    return net, images.mirror(net, drawn.specs), X, y


def close(got, want, scale, what):
    """Where all cancels, relative to what was added up."""
    error = np.linalg.norm(np.asarray(got) - want)
    assert error <= 1e-12 * (np.linalg.norm(want) + 0.01 * (1 + scale)), f"{what}: {error:.2e}"


def moving(net):
    """Which entries of θ are trained."""
    mask = np.zeros(net.theta.size, bool)
    for places in nets.places_in_theta(net):
        for where, layer in zip(places, net.layers, strict=True):
            if where is not None:
                mask[where] = layer.trainable
    return mask


@given(images.stacks())
@settings(max_examples=150)
def test_gradients_and_steps(drawn):
    net, layers, X, y = of(drawn)
    F = reference.predict(layers, X)
    close(net.predict(X), F, 1, "F")
    want = images.flat_gradient(net, layers, "squared_error", X, y)
    scale = np.linalg.norm(want)
    value, grads = net.gradients(X, y)
    close(value, reference.loss(layers, "squared_error", X, y), 1, "loss")
    close(grads.theta, want, scale, "G")
    if not want.size:
        return
    for clip in (None, 0.1):
        before = net.theta.copy()
        engine = fnn.SGD(0.5, clip_norm=clip)
        net.fit(X, y, batch_size=drawn.n, optimizer=engine, update=drawn.update, shuffle=False)
        step = want if clip is None else reference.clip(want, clip)
        close((before - net.theta) / 0.5, step, scale + np.linalg.norm(before), "the step")
        net.theta[:] = before


@given(images.stacks([name for name in nets.ACTIVATIONS if name not in reference.KINKED]))
@settings(max_examples=80)
def test_operators(drawn):
    net, layers, X, y = of(drawn)
    rng = np.random.default_rng(drawn.seed + 1)
    trained = moving(net)
    v, dx = trained * rng.normal(size=net.theta.size), rng.normal(size=X.shape)
    _, F, _, dF = reference_operators.tangent(layers, X, *images.split(net, v), dx)
    got = net.jvp(X, v, dx)
    close(got[0], F[-1], 1, "F")
    close(got[1], dF[-1], np.linalg.norm(v) + np.linalg.norm(dx), "jvp")
    h = rng.normal(size=y.shape)
    G, g, T = reference.backward(layers, *reference.forward(layers, X), h)
    dtheta, dX = net.vjp(X, h)
    close(dtheta, nets.theta_of(G, g, net), np.linalg.norm(h), "vjp in θ")
    close(dX, T, np.linalg.norm(h), "vjp in X")
    for kind, gauss_newton in (("hessian", False), ("gauss_newton", True)):
        want = images.second_derivative(
            net, layers, "squared_error", X, y, gauss_newton=gauss_newton, directions=v[:, None]
        )
        got = getattr(net, kind)(X, y) @ v
        close(got, trained * want[:, 0], np.linalg.norm(v), kind)


@given(images.stacks())
@settings(max_examples=80)
def test_norms_and_factors(drawn):
    net, layers, X, y = of(drawn)
    norms = net.per_sample_gradient_norms(X, y)
    factors = net.gradient_factors(X, y)
    assert len(factors) == len(layers)
    for i in {0, drawn.n // 2, drawn.n - 1}:
        want = images.flat_gradient(net, layers, "squared_error", X[i : i + 1], y[i : i + 1])
        close(norms[i], np.linalg.norm(want), 1, "norm")
        for factor, layer, W in zip(factors, layers, images.split(net, want)[0], strict=True):
            if factor is not None and layer.trainable:
                close(factor.per_sample()[i], W, np.linalg.norm(want), "G of a sample")
                close(factor.norms()[i], np.linalg.norm(W), np.linalg.norm(want), "its norm")


@given(images.stacks())
@settings(max_examples=80)
def test_every_mode_and_any_number_of_threads(drawn):
    """The same bits: modes where σ' follows from σ, threads always."""
    reusable = not any(a in nets.NOT_REUSABLE for spec in drawn.specs for a in spec.args)
    first = None
    for mode in ["auto", "checkpoint", *(["store", "recompute", "reuse"] if reusable else [])]:
        for n_threads in {1, drawn.n_threads}:
            net, _, X, y = of(drawn._replace(mode=mode, n_threads=n_threads), "float32")
            gradient = net.gradients(X, y)[1].theta.copy()
            net.fit(X, y, batch_size=16, optimizer=fnn.SGD(1e-3), update=drawn.update)
            parts = gradient, net.theta.copy(), net.predict(X)
            first = first or parts
            for got, want in zip(parts, first, strict=True):
                nets.assert_same_bits(got, want, f"{mode}, {n_threads} threads")


@given(images.stacks())
@settings(max_examples=60)
def test_plans(drawn):
    """What the plan says is what is allocated."""
    net, _, X, y = of(drawn)
    optimizer = fnn.Adam(1e-4)
    plan = net.memory_plan(batch_size=drawn.n, optimizer=optimizer, update=drawn.update)
    own = sum(buffer.bytes for buffer in plan.buffers if buffer.shares_with is None)
    assert own == plan.total_bytes
    before = fnn.testing.allocation_counts()
    net.fit(X, y, batch_size=drawn.n, optimizer=optimizer, update=drawn.update)
    after = fnn.testing.allocation_counts()
    assert after.bytes - before.bytes == plan.workspace_bytes
