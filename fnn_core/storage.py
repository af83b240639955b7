"""Nets in files: safetensors, the description as JSON in the metadata. Nothing is executed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from fnn_core.layers import REGISTRY, Layer
from fnn_core.losses import Loss
from fnn_core.maps import BilinearMap

if TYPE_CHECKING:
    from fnn_core.network import Network

FORMAT = "fnn_core 1"


def _describe(layer: Layer, index: int) -> dict[str, Any]:
    settings = layer.settings()
    for name, value in settings.items():
        if isinstance(value, BilinearMap):
            raise ValueError(
                f"save: the map of layers[{index}] is made of functions, which a file cannot hold; "
                "pickle the net instead"
            )
        if callable(value):
            raise ValueError(
                f"save: {name} of layers[{index}] is a function, which a file cannot hold; "
                "pickle the net instead"
            )
    return {"kind": type(layer).__name__, **settings}


def save(net: Network, path: Any) -> None:
    """Write `net` to `path`, by way of a file beside it."""
    settings = net.settings()
    if isinstance(settings["loss"], Loss):
        raise ValueError(
            "save: the loss is made of functions, which a file cannot hold; pickle the net"
        )
    description = {
        **settings,
        "layers": [_describe(layer, index) for index, layer in enumerate(net.layers)],
        "input_shape": list(net.input_shape),
        "seed": net.seed.entropy,
        "steps_begun": net.sessions.writer.steps,
        "epochs_begun": net.sessions.writer.epochs,
    }
    tensors = {}
    for index, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        if weight is not None:
            tensors[f"layers.{index}.weight"] = np.ascontiguousarray(weight)
        if bias is not None:
            tensors[f"layers.{index}.bias"] = bias
    target = Path(path)
    content = to_bytes(tensors, {"format": FORMAT, "network": json.dumps(description)})
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(path: Any) -> Network:
    """Read a net that `Network.save` has written.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    Network
        With the parameters, the description, and the counts that seed its further training.

    Raises
    ------
    FileNotFoundError
    ValueError
        Where the file is not one of fnn_core's, or not whole.

    Examples
    --------
    >>> import os, tempfile, fnn_core as fnn
    >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
    >>> fnn.Network([fnn.Dense(3)], input_shape=2).save(path)
    >>> fnn.load(path).weights[0].shape
    (3, 2)
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path = {str(path)!r}: there is no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"path = {str(path)!r}: not a whole safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"path = {str(path)!r}: expected the format {FORMAT!r}, got {metadata.get('format')!r}"
        )
    try:
        return _restore(json.loads(metadata["network"]), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path = {str(path)!r}: its description is damaged ({error})") from None


def _restore(description: dict[str, Any], tensors: dict[str, np.ndarray]) -> Network:
    from fnn_core.network import Network

    counts = {name: int(description.pop(name)) for name in ("steps_begun", "epochs_begun")}
    layers = [
        REGISTRY[settings["kind"]](
            **{name: value for name, value in settings.items() if name != "kind"}
        )
        for settings in description.pop("layers")
    ]
    input_shape = tuple(description.pop("input_shape"))
    net = Network(layers, input_shape=input_shape, **description)
    for index, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        for name, view in (("weight", weight), ("bias", bias)):
            if view is not None:
                tensor = tensors[f"layers.{index}.{name}"]
                if tensor.shape != view.shape or tensor.dtype != view.dtype:
                    raise ValueError(
                        f"layers.{index}.{name} has shape {tensor.shape}, {tensor.dtype}"
                    )
                view[...] = tensor
    net.sessions.writer.steps, net.sessions.writer.epochs = counts.values()
    return net
