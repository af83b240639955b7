"""A user's own maps in their three forms: the same tensor, and its adjoints."""

import nets
import numpy as np
import pytest
from bilinear_nets import Circular, forms

import fnn_core as fnn
from fnn_core.testing import check_map

FORMS = list(forms(np.random.default_rng(0))[1])


@pytest.mark.parametrize("form", FORMS)
def test_forms(form, rng):
    t, maps = forms(rng)
    chosen = maps[form]
    assert (chosen.output_shape, chosen.input_shape, chosen.weight_shape) == ((5,), (4,), (7,))
    x, h, w = rng.normal(size=(6, 4)), rng.normal(size=(6, 5)), rng.normal(size=7)
    nets.assert_close(chosen.apply(x, w), np.einsum("oiw,ni,w->no", t, x, w), terms=28)
    nets.assert_close(chosen.adjoint_input(h, w), np.einsum("oiw,no,w->ni", t, h, w), terms=28)
    nets.assert_close(chosen.adjoint_weight(x, h), np.einsum("oiw,ni,no->w", t, x, h), terms=99)
    check_map(chosen)
    check_map(chosen, np.random.default_rng(5))


def test_a_function_on_shapes_of_several_axes(rng):
    """Both adjoints by Equation (3)."""
    circular = Circular()
    shapes = {
        name: getattr(circular, name) for name in ("input_shape", "weight_shape", "output_shape")
    }
    derived = fnn.BilinearMap.from_function(circular.apply, **shapes)
    x, h = rng.normal(size=(5, 6, 2)), rng.normal(size=(5, 6, 3))
    w = rng.normal(size=(3, 4, 2))
    nets.assert_close(derived.apply(x, w), circular.apply(x, w), terms=99)
    nets.assert_close(derived.adjoint_input(h, w), circular.adjoint_input(h, w), terms=99)
    nets.assert_close(derived.adjoint_weight(x, h), circular.adjoint_weight(x, h), terms=999)
    check_map(derived)


def test_numbers_for_shapes(rng):
    chosen = fnn.BilinearMap.from_function(
        lambda x, w: x * w, input_shape=3, weight_shape=1, output_shape=3
    )
    net = fnn.Network([fnn.Bilinear(chosen)], input_shape=3, dtype="float64")
    net.weights[0][...] = 2
    net.biases[0][...] = [1, 2, 3]
    nets.assert_close(net.predict([[1.0, 2.0, 3.0]]), [[3, 6, 9]])
