"""The network: a description of layers, their parameters, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fnn_core import _engine, storage, training
from fnn_core.callbacks import History
from fnn_core.checks import as_choice, as_positive_int, as_seed, as_shape
from fnn_core.costs import SCHEDULES
from fnn_core.cutting import GEMMS
from fnn_core.data import as_data
from fnn_core.derivatives import Differentiable
from fnn_core.inference import Predictive
from fnn_core.layers import Layer, as_layers, connect
from fnn_core.losses import Loss, as_loss
from fnn_core.optimizers import Optimizer, as_optimizer
from fnn_core.parallelism import MOST_THREADS, available_threads
from fnn_core.plan import MemoryPlan
from fnn_core.planning import MEMORY_MODES, layer_memory
from fnn_core.sessions import Sessions

DTYPES = ("float32", "float64")


class Network(Predictive, Differentiable):
    """A feedforward network F_n(x) = f_n(… f_1(x)), f_k = σ_k(C_k(·, W_k) + ι_k(b_k)) (Section 4).

    Parameters
    ----------
    layers : sequence of Layer
    input_shape : int or tuple of int
        The shape of one sample; images are ``(height, width, channels)``.
    loss : str or Loss
        A name of `fnn_core.losses`, or a loss of your own.
    dtype : {"float32", "float64"}
    memory : {"auto", "recompute", "store", "reuse", "checkpoint"}
        What the forward pass keeps for the backward pass (Remark 8 i): a; σ(a) and σ'(a); or σ(a).
        "auto": "reuse" for layers whose activation allows it, "recompute" for the others.
        "checkpoint": so for every √n-th layer, and those between go forward again; with the
        schedules "auto" and "blocks". Can be set later.
    n_threads : int, optional
        By default one for each core that the process may use, or `OMP_NUM_THREADS`. Results do
        not depend on it. Can be set later.
    seed : int or None
        Of the weights, of shuffling and of dropout, in streams of their own. None: a random one.
    gemm : {"auto", "blas", "native"}
        The matrix product of dense layers: SciPy's BLAS, or the engine's own. "auto": the one that
        was measured to be faster for the layer's size on the instruction set in use. Can be set
        later.
    schedule : {"auto", "blocks", "layers", "two_phase", "streaming"}
        The order in which a step does its work. "blocks": blocks of samples go forward through all
        layers, one after another; back, each layer goes for the whole batch. "layers": so it is
        forward too. "two_phase": blocks go forward and back through all layers, and then, with
        every delta and every input known (Remark 8 ii), all gradients are formed and applied.
        "streaming": blocks go forward and back, and chunks of them sum up the gradient, so that
        activations do not grow with the batch. "auto": the quickest for the batch and the threads
        by the cost model in `fnn_core/costs.py`, which may also sum the gradient in parts, for
        any number of threads, where some of them would stream. `memory_plan` shows which it is.
        Private steps (`DPSGD`), and immediate updates with a `clip_norm`, need the factors first in
        any case. "two_phase" and "streaming" want a loss and maps of the library; "streaming" sums
        the gradient, and is not for ``update="immediate"``. Can be set later.

    Attributes
    ----------
    weights, biases : tuple of numpy.ndarray or None
        Views of `theta` in the paper's shapes, to be written to in place; None where a layer has
        none.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as above, layers do not fit each other, or "reuse" cannot be had.
    RuntimeError
        By `fit` and `step`, where another thread is training the same net.

    Examples
    --------
    >>> import numpy as np, fnn_core as fnn
    >>> net = fnn.Network([fnn.Dense(8, "tanh"), fnn.Dense(1)], input_shape=2,
    ...                   loss="squared_error", dtype="float64", seed=0)
    >>> X = np.random.default_rng(0).standard_normal((200, 2))
    >>> y = X[:, 0] * X[:, 1]
    >>> history = net.fit(X, y, epochs=200, optimizer=fnn.Adam(1e-2))
    >>> history["loss"][-1] < 0.01 < history["loss"][0]
    True
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        input_shape: int | Sequence[int],
        loss: str | Loss = "squared_error",
        dtype: DTypeLike = "float32",
        memory: str = "auto",
        n_threads: int | None = None,
        seed: int | None = 0,
        *,
        gemm: str = "auto",
        schedule: str = "auto",
    ) -> None:
        self.layers = as_layers(layers)
        self.input_shape = as_shape(input_shape, "input_shape")
        self.loss_function = as_loss(loss)
        self.dtype = np.dtype(as_choice(_name_of_dtype(dtype), "dtype", DTYPES))
        self.connections = connect(self.layers, self.input_shape)
        self.output_shape = self.connections[-1].output_shape
        self.n_parameters = sum(connection.n_parameters for connection in self.connections)
        self.seed = as_seed(seed)
        weights, masks, shuffles = np.random.SeedSequence(self.seed.entropy).spawn(3)
        #: Tells this net from others, for the optimizers that belong to it.
        self.identity = object()
        #: With the writer's counts of steps and epochs they give dropout's masks and the shuffling.
        self.mask_seed = int(masks.generate_state(1, np.uint64)[0])
        self.shuffle_seed = int(shuffles.generate_state(1, np.uint64)[0])
        self._named_optimizers: dict[str, Optimizer] = {}
        self._allocate()
        self._gemm = as_choice(gemm, "gemm", GEMMS)
        self._schedule = as_choice(schedule, "schedule", SCHEDULES)
        self.memory = memory
        self.n_threads = n_threads
        rng = np.random.default_rng(weights)
        for connection in self.connections:
            connection.initialize(rng, self.theta)
        for layer in self.layers:
            layer.seal()

    def _allocate(self) -> None:
        self._theta = _engine.Memory(self.n_parameters * self.dtype.itemsize).array(self.dtype)
        self.weights = tuple(place.weight_view(self.theta) for place in self.connections)
        self.biases = tuple(place.bias_view(self.theta) for place in self.connections)
        self.sessions = Sessions(self)

    @property
    def theta(self) -> np.ndarray:
        """All parameters, shape (n_parameters,): writable, the storage itself."""
        return self._theta

    @property
    def memory(self) -> str:
        """What the forward pass keeps (Remark 8 i)."""
        return self._memory

    @memory.setter
    def memory(self, memory: str) -> None:
        layer_memory(self.connections, as_choice(memory, "memory", MEMORY_MODES))
        _require_compatible(memory, self._schedule)
        self._memory = memory
        self.sessions.forget()

    @property
    def gemm(self) -> str:
        """Which matrix product dense layers take."""
        return self._gemm

    @gemm.setter
    def gemm(self, gemm: str) -> None:
        self._gemm = as_choice(gemm, "gemm", GEMMS)
        self.sessions.forget()

    @property
    def schedule(self) -> str:
        """The order in which a step does its work."""
        return self._schedule

    @schedule.setter
    def schedule(self, schedule: str) -> None:
        _require_compatible(self._memory, as_choice(schedule, "schedule", SCHEDULES))
        self._schedule = schedule
        self.sessions.forget()

    @property
    def n_threads(self) -> int:
        """The most threads that a call uses."""
        return self._n_threads

    @n_threads.setter
    def n_threads(self, n_threads: int | None) -> None:
        self._n_threads = (
            available_threads()
            if n_threads is None
            else as_positive_int(n_threads, "n_threads", MOST_THREADS)
        )
        self.sessions.forget_training()

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: str | Optimizer = "adam",
        validation_data: Any = None,
        sample_weight: Any = None,
        shuffle: bool = True,
        metrics: Any = (),
        update: str = "auto",
        callbacks: Any = (),
        progress: bool = False,
    ) -> History:
        """Train: in each epoch, a step (Algorithm 2 and an update) on every batch of the data.

        Parameters
        ----------
        X : array_like, shape (N, *input_shape)
            Never written to; not copied where it is contiguous and of the net's dtype.
        y : array_like, shape (N, *output_shape)
            Or (N,) for labels, and where the output is one number.
        epochs, batch_size : int
            The last batch of an epoch may be short.
        optimizer : str or Optimizer
            A name stands for one with defaults, which the net keeps for later calls.
        validation_data : tuple, optional
            ``(X, y)`` or ``(X, y, sample_weight)``: its loss, and metrics, after every epoch.
        sample_weight : array_like, shape (N,), optional
            s_i of the mean Σ s_i ℓ_i / Σ s_i over a batch. One whose weights are all zero makes no
            step.
        shuffle : bool
            Whether each epoch takes the samples in a new order.
        metrics : names or functions of (y, t)
            "accuracy", "r2", "mean_absolute_error", or your own. Keeps the outputs of an epoch,
            (N, d_n).
        update : {"auto", "immediate", "deferred"}
            "immediate" applies each G_k as soon as it is known and forgets it (Remark 8 iii); the
            results are the same. "auto": "immediate", unless the optimizer has a `clip_norm`.
            Private steps (`DPSGD`) and nets with a user's map are deferred in any case.
        callbacks : functions of (net, history)
            Called after every epoch; one that returns True ends the training. See `EarlyStopping`.
        progress : bool
            Whether to show a bar.

        Returns
        -------
        History

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as above, before anything is changed.
        NonFiniteLossError
            Where the loss of a step is not finite; the parameters are as before that step.
        KeyboardInterrupt
            After the step in progress; the net is usable.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> net = fnn.Network([fnn.Dense(8, "tanh"), fnn.Dense(1)], input_shape=3)
        >>> history = net.fit(X, X.sum(axis=1), epochs=5, batch_size=20, metrics="r2")
        >>> len(history["loss"]), len(history["r2"])
        (5, 5)
        """
        return training.fit(
            self,
            as_data(self, X, y, sample_weight),
            epochs=epochs,
            batch_size=batch_size,
            optimizer=self._optimizer(optimizer),
            validation_data=validation_data,
            shuffle=shuffle,
            metrics=metrics,
            update=update,
            callbacks=callbacks,
            progress=progress,
        )

    def step(
        self,
        X: Any,
        y: Any,
        optimizer: str | Optimizer = "adam",
        *,
        sample_weight: Any = None,
        update: str = "auto",
    ) -> float:
        """One forward and backward pass and one update, on one batch; arguments as in `fit`.

        Returns
        -------
        float
            The loss of the batch, before the update.

        Raises
        ------
        TypeError, ValueError, NonFiniteLossError
            As in `fit`.

        Examples
        --------
        >>> import numpy as np, fnn_core as fnn
        >>> net, optimizer = fnn.Network([fnn.Dense(1)], input_shape=2), fnn.SGD(0.1)
        >>> X, y = np.ones((5, 2)), np.zeros((5, 1))
        >>> first, second = (net.step(X, y, optimizer) for _ in range(2))
        >>> second < first
        True
        """
        if sample_weight is None and update == "auto":
            known = self._named_optimizers.get(optimizer) if type(optimizer) is str else optimizer
            loss = self.sessions.try_step(X, y, known)
            if loss is not None:
                return loss
        return training.step(self, X, y, self._optimizer(optimizer), sample_weight, update)

    def memory_plan(
        self, batch_size: int = 32, optimizer: str | Optimizer = "adam", update: str = "auto"
    ) -> MemoryPlan:
        """The bytes that training with these arguments needs, before anything is allocated.

        Returns
        -------
        MemoryPlan
            Prints as a table. What it says is what a step allocates, on labels where the loss takes
            them. What grows with the data and not with the batch is not in it: the order of
            shuffled samples, copies of data of another dtype, and what validation and metrics take.

        Raises
        ------
        TypeError, ValueError
            Where an argument is not as in `fit`.

        Examples
        --------
        >>> import fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(100, "relu"), fnn.Dense(10)], input_shape=64,
        ...                   loss="softmax_cross_entropy")
        >>> plan = net.memory_plan(batch_size=200, optimizer="adam")
        >>> plan.parameter_bytes, plan.optimizer_bytes
        (30040, 60080)
        """
        return training.memory_plan(self, batch_size, as_optimizer(optimizer), update)

    def save(self, path: Any) -> None:
        """Write the net as a safetensors file, its description as JSON in the metadata.

        `fnn_core.load` reads it. The file is written beside `path` and renamed, so that an earlier
        one is never half overwritten.

        Raises
        ------
        ValueError
            Where the net holds functions (a loss or an initializer of your own): a file cannot.
        TypeError, OSError
            Where `path` is not a path, or cannot be written to.

        Examples
        --------
        >>> import os, tempfile, fnn_core as fnn
        >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
        >>> fnn.Network([fnn.Dense(3)], input_shape=2).save(path)
        >>> os.path.exists(path)
        True
        """
        storage.save(self, path)

    def settings(self) -> dict[str, Any]:
        """The arguments that make this net again, without its parameters.

        Examples
        --------
        >>> import fnn_core as fnn
        >>> net = fnn.Network([fnn.Dense(1)], input_shape=2)
        >>> fnn.Network(**net.settings()).n_parameters
        3
        """
        return {
            "layers": self.layers,
            "input_shape": self.input_shape,
            "loss": self.loss_function
            if isinstance(self.loss_function, Loss)
            else self.loss_function.name,
            "dtype": self.dtype.name,
            "memory": self.memory,
            "gemm": self.gemm,
            "schedule": self.schedule,
        }

    def __getstate__(self) -> dict[str, Any]:
        kept = ("seed", "mask_seed", "shuffle_seed", "n_threads")
        writer = self.sessions.writer
        return {
            "settings": self.settings(),
            "theta": self.theta.copy(),
            "kept": {name: getattr(self, name) for name in kept},
            "begun": (writer.steps, writer.epochs),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["settings"])  # type: ignore[misc]
        self.theta[...] = state["theta"]
        for name, value in state["kept"].items():
            setattr(self, name, value)
        self.sessions.writer.steps, self.sessions.writer.epochs = state["begun"]

    def _optimizer(self, optimizer: str | Optimizer) -> Optimizer:
        """A name stands for one optimizer a net, so that its state goes on from call to call."""
        if isinstance(optimizer, str) and optimizer in self._named_optimizers:
            return self._named_optimizers[optimizer]
        chosen = as_optimizer(optimizer)
        if isinstance(optimizer, str):
            self._named_optimizers[optimizer] = chosen
        return chosen

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self.layers))
        return (
            f"Network([{layers}], input_shape={self.input_shape}, loss={self.loss_function.name!r})"
        )


def _require_compatible(memory: str, schedule: str) -> None:
    """Raises ValueError where a memory mode does not go with a schedule."""
    if memory == "checkpoint" and schedule not in ("auto", "blocks"):
        raise ValueError(
            f"schedule = {schedule!r}: expected 'auto' or 'blocks' with memory = 'checkpoint'"
        )


def _name_of_dtype(dtype: Any) -> Any:
    """The name of a dtype, as "float32" of numpy.float32; anything else as it is."""
    try:
        return dtype if dtype is None else np.dtype(dtype).name
    except TypeError:
        return dtype
