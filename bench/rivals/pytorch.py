"""PyTorch, eager and compiled."""

from __future__ import annotations

from typing import Any

from bench.nets import Parameters
from bench.rivals.base import LEARNING_RATE, Rival


class PyTorch(Rival):
    """PyTorch, eager, with its fused Adam."""

    name = "torch"
    modules = ("torch",)

    def prepare(self) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(self.threads)
        activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[self.net.activation]
        layers: list[Any] = []
        for weight, bias in self.problem.parameters:
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight.data = torch.tensor(weight)
            linear.bias.data = torch.tensor(bias)
            layers += [linear, activation()]
        self.linears = layers[::2]
        model = nn.Sequential(*layers[:-1])
        classes = self.net.loss == "softmax_cross_entropy"
        criterion = nn.CrossEntropyLoss() if classes else nn.MSELoss()
        self.optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
        self.features = torch.tensor(self.problem.features)
        self.target = torch.tensor(self.problem.target)
        self.loss = self.compiled(lambda features, target: criterion(model(features), target))

    def compiled(self, function: Any) -> Any:
        """The function as it is: eager."""
        return function

    def run(self) -> None:
        for _ in range(self.steps):
            self.optimizer.zero_grad(set_to_none=True)
            self.loss(self.features, self.target).backward()
            self.optimizer.step()

    def parameters(self) -> Parameters:
        return [(layer.weight.data.numpy(), layer.bias.data.numpy()) for layer in self.linears]

    def gradients(self) -> Parameters:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.features, self.target).backward()
        return [(layer.weight.grad.numpy(), layer.bias.grad.numpy()) for layer in self.linears]


class PyTorchCompiled(PyTorch):
    """PyTorch through ``torch.compile``, which wants a C++ compiler and takes its time to start."""

    name = "torch_compile"

    def compiled(self, function: Any) -> Any:
        """The function through the compiler."""
        import torch

        return torch.compile(function)
