"""The kinds of layers, a file each."""

from fnn_core.layers.base import Connection, Layer
from fnn_core.layers.bilinear import Bilinear
from fnn_core.layers.chain import as_layers, connect
from fnn_core.layers.convolution import Conv, ConvTranspose
from fnn_core.layers.dense import Dense
from fnn_core.layers.dropout import Dropout
from fnn_core.layers.pooling import AvgPool, Flatten, GlobalAvgPool, MaxPool

#: Every kind of layer, by the name that a saved file uses.
REGISTRY: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (Dense, Conv, ConvTranspose, AvgPool, MaxPool, GlobalAvgPool, Flatten, Dropout)
}

__all__ = [
    "REGISTRY",
    "AvgPool",
    "Bilinear",
    "Connection",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Layer",
    "MaxPool",
    "as_layers",
    "connect",
]
