"""The activations σ, as the kernels offer them.

`REGISTRY` maps each name to its `Activation`; each is also an attribute of this module
(`fnn_core.activations.relu`). Constants are PyTorch's defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fnn_core import _engine


@dataclass(frozen=True)
class Activation:
    """A pointwise non-linearity σ.

    Attributes
    ----------
    name : str
    reusable : bool
        Whether σ' follows from σ (Remark 8 i), so that ``memory="reuse"`` can have it.

    Examples
    --------
    >>> import fnn_core as fnn
    >>> fnn.activations.tanh.reusable, fnn.activations.gelu.reusable
    (True, False)
    """

    name: str
    reusable: bool
    index: int = field(repr=False)


REGISTRY: dict[str, Activation] = {
    name: Activation(name, reusable, index)
    for index, (name, reusable) in enumerate(_engine.activation_table())
}


def __getattr__(name: str) -> Activation:
    if name in REGISTRY:
        return REGISTRY[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def as_activation(activation: Any) -> Activation:
    """The activation of that name; one of the registry is returned as it is."""
    if isinstance(activation, Activation):
        if REGISTRY.get(activation.name) != activation:
            raise ValueError(
                f"activation: expected one of {', '.join(REGISTRY)}, got {activation!r}, which "
                "the kernels do not have"
            )
        return activation
    if not isinstance(activation, str):
        raise TypeError(
            f"activation: expected an Activation or one of {', '.join(REGISTRY)}, "
            f"got {activation!r}"
        )
    if activation not in REGISTRY:
        raise ValueError(f"activation = {activation!r}: expected one of {', '.join(REGISTRY)}")
    return REGISTRY[activation]
