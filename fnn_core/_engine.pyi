"""The compiled engine (src/engine.pyx), as the package sees it."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypedDict, type_check_only

import numpy as np

from fnn_core.layers.geometry import Geometry
from fnn_core.plan import PassPlan

@type_check_only
class BuildFacts(TypedDict):
    isa: str
    compiled_isas: list[str]
    openmp: bool

def activation_table() -> list[tuple[str, bool]]: ...
def loss_table() -> list[tuple[str, bool]]: ...
def run_length() -> int: ...
def product_scratch(rows: int, inputs: int, outputs: int, real_bytes: int) -> int: ...
def convolution_scratch(geometry: Geometry | None, real_bytes: int) -> int: ...
def use_blas(sgemm: object, dgemm: object, integer_bytes: int) -> None: ...
def build_facts() -> BuildFacts: ...
def allocations() -> tuple[int, int]: ...
def vector_function(name: str, x: np.ndarray) -> np.ndarray: ...
def all_finite(x: np.ndarray) -> bool: ...
def label_outside(labels: np.ndarray, classes: int) -> int: ...
def weight_product(
    compiled: CompiledPlan, inputs: np.ndarray, delta: np.ndarray, gradient: np.ndarray
) -> None: ...
def scale_rows(x: np.ndarray, weights: np.ndarray | None, scale: float) -> None: ...

class Memory:
    @property
    def size(self) -> int: ...
    def __new__(cls, size: int) -> Memory: ...
    def array(self, dtype: np.dtype) -> np.ndarray: ...

class CompiledPlan:
    @property
    def description(self) -> PassPlan: ...
    @property
    def uses_blas(self) -> bool: ...
    def __new__(cls, description: PassPlan) -> CompiledPlan: ...

class OptimizerState:
    step: int
    @property
    def arrays(self) -> list[np.ndarray | None]: ...
    def __init__(
        self, name: str, dtype: np.dtype, parameters: int, arrays: list[np.ndarray | None]
    ) -> None: ...
    def configure(
        self,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        beta1: float = 0.0,
        beta2: float = 0.0,
        epsilon: float = 0.0,
        rate_decay: float = 0.0,
        nesterov: bool = False,
        centered: bool = False,
    ) -> None: ...

class Writer:
    steps: int
    epochs: int
    def __enter__(self) -> None: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

class Samples:
    @property
    def count(self) -> int: ...
    def __init__(
        self,
        compiled: CompiledPlan,
        inputs: np.ndarray,
        targets: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> None: ...

class Session:
    progress: Callable[[int], None] | None
    @property
    def compiled(self) -> CompiledPlan: ...
    @property
    def optimizer(self) -> OptimizerState | None: ...
    @property
    def rows(self) -> int: ...
    def __init__(
        self,
        compiled: CompiledPlan,
        theta: np.ndarray,
        optimizer: OptimizerState | None = None,
        writer: Writer | None = None,
        *,
        max_grad_norm: float = 0.0,
        noise_multiplier: float = 0.0,
        noise_seed: int = 0,
        immediate: bool = False,
        clip_norm: float = 0.0,
        mask_seed: int = 0,
        shuffle_seed: int = 0,
        user_loss: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None: ...
    def load(
        self,
        samples: Samples,
        batch_rows: int,
        *,
        shuffled: bool = False,
        outputs: np.ndarray | None = None,
    ) -> None: ...
    def unload(self) -> None: ...
    def run(
        self, rates: np.ndarray, validation: Forward | None = None
    ) -> tuple[list[tuple[float, float]], float | None, int, float | None]: ...
    def step(self, samples: Samples, rate: float) -> tuple[float, bool]: ...
    def try_step(self, X: Any, y: Any, rate: float) -> float | None: ...
    def differentiate(self, scale: float, gradient: np.ndarray) -> float: ...
    def factors(
        self,
        norms: np.ndarray | None,
        deltas: list[np.ndarray | None],
        inputs: list[np.ndarray | None],
    ) -> None: ...
    def pull_back(
        self, cotangent: np.ndarray, gradient: np.ndarray, input_slope: np.ndarray
    ) -> None: ...
    def close(self) -> None: ...

class Forward:
    def __init__(
        self,
        compiled: CompiledPlan,
        theta: np.ndarray,
        samples: Samples,
        *,
        outputs: np.ndarray | None = None,
        losses: bool = False,
        weight: float = 1.0,
        probabilities: bool = False,
    ) -> None: ...
    def run(self) -> None: ...
    def mean_loss(self) -> float | None: ...
    def close(self) -> None: ...
    @staticmethod
    def try_one(compiled: CompiledPlan, theta: np.ndarray, X: Any) -> np.ndarray | None: ...

class TangentPass:
    def __init__(self, compiled: CompiledPlan, theta: np.ndarray, samples: Samples) -> None: ...
    def push(
        self,
        theta_tangent: np.ndarray | None,
        input_tangent: np.ndarray | None,
        outputs: np.ndarray,
        output_tangents: np.ndarray,
    ) -> None: ...
    def product(
        self,
        direction: np.ndarray,
        scale: float,
        gauss_newton: bool,
        slopes: np.ndarray | None = None,
        curvatures: np.ndarray | None = None,
    ) -> np.ndarray: ...
