"""Nets in files: safetensors, the description as JSON in the metadata. Nothing is executed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from fnn_core.layers import REGISTRY, Layer, connect
from fnn_core.losses import Loss
from fnn_core.maps import BilinearMap

if TYPE_CHECKING:
    from fnn_core.network import Network

FORMAT = "fnn_core 1"

#: What a description that `save` has not written may raise.
DAMAGES = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)


def _as_path(path: Any) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise TypeError(f"path: expected a str or path-like, got {path!r}") from None


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
    target = _as_path(path).resolve()  # of a link, the file that it points to
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path = {str(path)!r}: there is no folder {str(target.parent)!r}")
    content = to_bytes(tensors, {"format": FORMAT, "network": json.dumps(description)})
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
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
    TypeError
        Where `path` is not a path.
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
    place = f"path = {str(path)!r}"
    if not _as_path(path).is_file():
        raise FileNotFoundError(f"{place}: there is no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            # Of a file of others nothing more is read.
            names = file.keys() if metadata.get("format") == FORMAT else ()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, TypeError) as error:  # TypeError: of a dtype that NumPy has not
        raise ValueError(f"{place}: not a whole safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{place}: expected the format {FORMAT!r}, got {metadata.get('format')!r}")
    try:
        return _restore(json.loads(metadata["network"]), tensors)
    except DAMAGES as error:
        raise ValueError(f"{place}: its description is damaged ({error})") from None


def _restore(description: Any, tensors: dict[str, np.ndarray]) -> Network:
    from fnn_core.network import Network

    counts = {name: int(description.pop(name)) for name in ("steps_begun", "epochs_begun")}
    layers = [
        REGISTRY[settings["kind"]](
            **{name: value for name, value in settings.items() if name != "kind"}
        )
        for settings in description.pop("layers")
    ]
    input_shape = tuple(description.pop("input_shape"))
    described = sum(place.n_parameters for place in connect(layers, input_shape))
    held = sum(tensor.size for tensor in tensors.values())
    if described != held:  # before as much is allocated
        raise ValueError(f"{described} parameters are described, {held} are there")
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
