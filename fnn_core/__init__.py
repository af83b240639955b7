"""Train and differentiate feedforward networks on a CPU.

An implementation of Algorithms 1 and 2 of T. Hamm, "A Derivation of Feedforward Neural Network
Gradients Using Fréchet Calculus": in place, over preallocated buffers, with the memory modes of its
Remark 8.
"""

import os
import sys
from typing import Any

from fnn_core import (
    _blas,
    _engine,
    activations,
    initializers,
    losses,
    metrics,
    optimizers,
    schedules,
    testing,
)
from fnn_core.activations import Activation
from fnn_core.callbacks import EarlyStopping, History
from fnn_core.derivatives import Gradients
from fnn_core.errors import NonFiniteLossError
from fnn_core.factors import GradientFactors
from fnn_core.layers import (
    AvgPool,
    Bilinear,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    MaxPool,
)
from fnn_core.losses import Loss
from fnn_core.maps import BilinearMap
from fnn_core.network import Network
from fnn_core.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from fnn_core.parallelism import available_threads
from fnn_core.plan import MemoryPlan
from fnn_core.privacy import DPSGD
from fnn_core.storage import load
from fnn_core.version import __version__


def build_info() -> dict[str, Any]:
    """Versions, the instruction set in use and those compiled, OpenMP, BLAS, threads to be had.

    Examples
    --------
    >>> import fnn_core as fnn
    >>> fnn.build_info()["isa"] in fnn.build_info()["compiled_isas"]
    True
    """
    return {
        "version": __version__,
        "python": sys.version.split()[0],
        **_engine.build_facts(),
        "blas": _blas.THREADS.description,
        "threads": available_threads(),
        "forced_isa": os.environ.get("FNN_ISA") or None,
    }


__all__ = [
    "DPSGD",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "AvgPool",
    "Bilinear",
    "BilinearMap",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "Flatten",
    "GlobalAvgPool",
    "GradientFactors",
    "Gradients",
    "History",
    "Loss",
    "MaxPool",
    "MemoryPlan",
    "Network",
    "NonFiniteLossError",
    "RMSprop",
    "__version__",
    "activations",
    "build_info",
    "initializers",
    "load",
    "losses",
    "metrics",
    "optimizers",
    "schedules",
    "testing",
]
