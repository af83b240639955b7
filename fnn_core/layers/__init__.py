"""The kinds of layers, a file each."""

from fnn_core.layers.base import Connection, Layer
from fnn_core.layers.dense import Dense
from fnn_core.layers.dropout import Dropout

#: Every kind of layer, by the name that a saved file uses.
REGISTRY: dict[str, type[Layer]] = {kind.__name__: kind for kind in (Dense, Dropout)}

__all__ = ["REGISTRY", "Connection", "Dense", "Dropout", "Layer"]
