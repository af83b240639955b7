"""The command ``fnn``: train a net on a data file, or see what memory training would take."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fnn_core import Dense, Dropout, Network, NonFiniteLossError, activations, optimizers
from fnn_core.planning import MEMORY_MODES, UPDATES
from fnn_core.preparation import fold_scaling, prepare, r2_on_validation
from fnn_core.tables import MissingExtraError, digits, read_table
from fnn_core.version import __version__

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print one line to stderr and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``fnn``.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line without the program's name, by default ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit code: 0, 1 if the loss became infinite or NaN, 130 if interrupted, 141 if nobody
        reads the output. Bad flags and bad files raise ``SystemExit(2)``.
    """
    options = build_parser().parse_args(arguments)
    try:
        options.command(options)
        sys.stdout.flush()
    except NonFiniteLossError as error:
        print(f"fnn {options.name}: {error}; try a lower --learning-rate", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"fnn {options.name}: interrupted; nothing was saved", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except (ValueError, OSError, MissingExtraError, MemoryError) as error:
        options.parser.error(str(error) or type(error).__name__)
    return 0


def train(options: argparse.Namespace) -> None:
    """``fnn train``: train on a data set, and print the score, the speed and the memory."""
    if options.file is None and options.target is not None:
        raise ValueError("--target needs a FILE")
    if options.save is not None:
        check_writable(options.save)
    table = digits() if options.file is None else read_table(options.file, options.target)
    data = prepare(
        table,
        task=options.task,
        validation=options.validation,
        seed=options.seed,
        dtype=options.dtype,
    )
    features, target = data.train
    net = build_net(options, features.shape[1], data.n_outputs, data.task, options.memory)
    optimizer = build_optimizer(options)
    batch_size = min(options.batch_size, len(features))
    memory = net.memory_plan(batch_size=batch_size, optimizer=optimizer, update=options.update)
    if not options.quiet:
        kind = f"{data.n_outputs} classes" if data.task == "classification" else "regression"
        print(
            f"{table.name}: {len(features)} samples to train on, {len(data.validation[0])} to "
            f"validate on, {features.shape[1]} features, {kind}"
        )

    start = time.perf_counter()
    history = net.fit(
        features,
        target,
        epochs=options.epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        validation_data=data.validation,
        metrics=("accuracy",) if data.task == "classification" else (),
        update=options.update,
        progress=not options.quiet and sys.stderr.isatty(),
    )
    seconds = time.perf_counter() - start
    score = None if data.task == "classification" else r2_on_validation(net, data)
    if options.save is not None:  # before anything is printed that nobody may read
        fold_scaling(net, data)
        net.save(options.save)

    if data.task == "classification":
        print(f"validation accuracy {history['val_accuracy'][-1]:.4f}")
    else:
        print(f"validation R² {score:.4f}")
    print(f"samples a second {len(features) * len(history['loss']) / seconds:,.0f}")
    if not options.quiet:
        print(f"\n{memory}")


def plan(options: argparse.Namespace) -> None:
    """``fnn plan``: print the memory table of every mode for one net and batch size."""
    task = "classification" if options.outputs > 1 else "regression"
    net = build_net(options, options.inputs, options.outputs, task, "recompute")
    for mode in MEMORY_MODES:
        try:
            net.memory = mode
        except ValueError as error:
            print(f"{mode}: not possible: {' '.join(str(error).split())}\n")
            continue
        table = net.memory_plan(
            batch_size=options.batch_size, optimizer=options.optimizer, update=options.update
        )
        print(f"{mode}: {table.total_bytes:,} bytes in all\n{table}\n")


def build_net(
    options: argparse.Namespace, n_inputs: int, n_outputs: int, task: str, memory: str
) -> Network:
    """The net that the flags describe: hidden layers, each with dropout if asked for, and a last.

    Its outputs are logits of classes, or quantities as they are.
    """
    layers: list[Any] = []
    for units in options.layers:
        layers.append(Dense(units, options.activation))
        if options.dropout:
            layers.append(Dropout(options.dropout))
    return Network(
        [*layers, Dense(n_outputs)],
        input_shape=n_inputs,
        loss="softmax_cross_entropy" if task == "classification" else "squared_error",
        dtype=options.dtype,
        memory=memory,
        n_threads=options.threads,
        seed=options.seed,
    )


def build_optimizer(options: argparse.Namespace) -> Any:
    """The optimizer of the flags, with its own default rate where none is given."""
    kind = optimizers.REGISTRY[options.optimizer]
    return kind() if options.learning_rate is None else kind(options.learning_rate)


def check_writable(path: Path) -> None:
    """Refuse before the training what could not be written after it."""
    folder = path.parent
    if path.suffix != ".safetensors":
        raise ValueError(f"--save {path}: the file name must end in .safetensors")
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--save {path}: cannot be written")


def build_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(prog="fnn", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fnn_core {__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    add_train(commands)
    add_plan(commands)
    return parser


def add_train(commands: Any) -> None:
    """Add the subcommand ``train``."""
    parser = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train a net on a data file",
        description="Train a net on a data file, by default on scikit-learn's handwritten digits.",
    )
    parser.set_defaults(command=train, parser=parser)
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="a .csv, .parquet, .npy or .npz file")
    add(
        "--target",
        help="the target: a column's name or index (the last column); in an .npz "
        "file, an array's name (y, beside the features X)",
    )
    add(
        "--task",
        choices=("auto", "classification", "regression"),
        default="auto",
        help="what the target is; auto: names and few whole numbers are classes",
    )
    add_net_flags(parser)
    add(
        "--memory",
        choices=MEMORY_MODES,
        default="auto",
        help="what the forward pass keeps (%(default)s)",
    )
    add("--learning-rate", type=positive, metavar="RATE", help="(the optimizer's own)")
    add("--epochs", type=whole_number(1), default=30, metavar="N", help="(%(default)s)")
    add(
        "--validation",
        type=inner_share,
        default=0.2,
        metavar="SHARE",
        help="the share of the samples to validate on (%(default)s)",
    )
    add(
        "--save",
        type=Path,
        metavar="PATH",
        help="write the net to a .safetensors file; it takes "
        "features that are not scaled, categories one-hot after all others, and gives classes "
        "in sorted order",
    )
    add("--quiet", action="store_true", help="print only the score and the speed")


def add_plan(commands: Any) -> None:
    """Add the subcommand ``plan``."""
    parser = commands.add_parser(
        "plan",
        allow_abbrev=False,
        help="print the memory that training would take",
        description="Print the memory table of every mode, without training.",
    )
    parser.set_defaults(command=plan, parser=parser)
    parser.add_argument("--inputs", type=whole_number(1), metavar="N", required=True)
    parser.add_argument("--outputs", type=whole_number(1), metavar="N", required=True)
    add_net_flags(parser)


def add_net_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that describe a net and a step."""
    add = parser.add_argument
    add(
        "--layers",
        type=widths,
        default=(100,),
        metavar="N,N,...",
        help="units of the hidden layers (100); '' for none",
    )
    add(
        "--activation",
        choices=sorted(activations.REGISTRY),
        default="relu",
        metavar="NAME",
        help="%(choices)s (%(default)s)",
    )
    add("--dropout", type=outer_share, default=0.0, metavar="RATE", help="after hidden layers (0)")
    add(
        "--optimizer",
        choices=sorted(optimizers.REGISTRY),
        default="adam",
        metavar="NAME",
        help="%(choices)s (%(default)s)",
    )
    add(
        "--update",
        choices=UPDATES,
        default="auto",
        help="a layer's gradient is applied at once, or after the whole pass (%(default)s)",
    )
    add("--batch-size", type=whole_number(1), default=32, metavar="N", help="(%(default)s)")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--threads", type=whole_number(1), metavar="N", help="(all that the process may use)")
    add("--seed", type=whole_number(0), default=0, metavar="N", help="(%(default)s)")


def whole_number(minimum: int) -> Callable[[str], int]:
    """A parser of whole numbers that refuses those below a minimum."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {minimum}, got {text!r}")
        return value

    return parse


def real_number(meaning: str, accepts: Callable[[float], bool]) -> Callable[[str], float]:
    """A parser of real numbers that refuses those that are not what is meant."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"expected {meaning}, got {text!r}")
        return value

    return parse


positive = real_number("a number > 0", lambda value: 0 < value < math.inf)
inner_share = real_number("a number between 0 and 1", lambda value: 0 < value < 1)
outer_share = real_number("a number >= 0 and < 1", lambda value: 0 <= value < 1)


def widths(text: str) -> tuple[int, ...]:
    """Parse ``"256,128"`` into ``(256, 128)``."""
    return tuple(map(whole_number(1), text.split(","))) if text.strip() else ()
