"""PyTorch, eager and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.layers import Conv, Dense, Flatten, MaxPool, Place
from bench.nets import Parameters
from bench.rivals.base import LEARNING_RATE, Rival


def channels_second(images: NDArray[Any]) -> Any:
    """Images, or kernels, as a tensor: in PyTorch's order of axes, channels last in memory."""
    import torch

    return torch.tensor(images).permute(0, 3, 1, 2)


def module_at(place: Place) -> Any:
    """The layer as PyTorch has it."""
    import torch
    from torch import nn

    match place.layer:
        case Dense(units):
            return nn.Linear(place.input_shape[0], units)
        case Conv(filters, size, padding):
            around = size // 2 if padding == "same" else 0
            convolution = nn.Conv2d(place.input_shape[-1], filters, size, padding=around)
            return convolution.to(memory_format=torch.channels_last)
        case MaxPool(size):
            return nn.MaxPool2d(size)
        case Flatten():
            return flatten


def flatten(images: Any) -> Any:
    """One axis with channels last, as they lie in memory, so that nothing is copied."""
    return images.permute(0, 2, 3, 1).flatten(1)


class PyTorch(Rival):
    """PyTorch, eager, with its fused Adam; images with channels last in memory."""

    name = "torch"
    modules = ("torch",)

    def prepare(self) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(self.threads)
        activations = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
        stages: list[Any] = []
        self.weighted: list[Any] = []
        for place in self.net.places:
            stages.append(module_at(place))
            if place.weight_shape is not None:
                self.weighted.append(stages[-1])
            if place.activation != "identity":
                stages.append(activations[place.activation]())
        for module, (weight, bias) in zip(self.weighted, self.problem.parameters, strict=True):
            module.weight.data = self.tensor(weight)
            module.bias.data = torch.tensor(bias)

        def model(values: Any) -> Any:
            for stage in stages:
                values = stage(values)
            return values

        classes = self.net.loss == "softmax_cross_entropy"
        criterion = nn.CrossEntropyLoss() if classes else nn.MSELoss()
        trained = [parameter for module in self.weighted for parameter in module.parameters()]
        self.optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE, fused=True)
        self.features = self.tensor(self.problem.features)
        self.target = torch.tensor(self.problem.target)
        self.loss = self.compiled(lambda features, target: criterion(model(features), target))

    def tensor(self, array: NDArray[Any]) -> Any:
        """A weight or a batch as PyTorch wants it."""
        import torch

        return channels_second(array) if array.ndim == 4 else torch.tensor(array)

    def compiled(self, function: Any) -> Any:
        """The function as it is: eager."""
        return function

    def run(self) -> None:
        for _ in range(self.steps):
            self.optimizer.zero_grad(set_to_none=True)
            self.loss(self.features, self.target).backward()
            self.optimizer.step()

    def parameters(self) -> Parameters:
        return [(channels_last(m.weight.data), m.bias.data.numpy()) for m in self.weighted]

    def gradients(self) -> Parameters:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.features, self.target).backward()
        return [(channels_last(m.weight.grad), m.bias.grad.numpy()) for m in self.weighted]


def channels_last(weight: Any) -> NDArray[Any]:
    """A weight in the problem's order of axes."""
    array: NDArray[Any] = weight.numpy()
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array


class PyTorchCompiled(PyTorch):
    """PyTorch through ``torch.compile``, which wants a C++ compiler and takes its time to start."""

    name = "torch_compile"

    def compiled(self, function: Any) -> Any:
        """The function through the compiler."""
        import torch

        # It counts how often this very line's function was compiled, and after some nets gives up.
        # What was compiled before is forgotten: one is alive at a time.
        torch.compiler.reset()
        return torch.compile(function)
