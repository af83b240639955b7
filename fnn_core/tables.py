"""Reading data files into matrices of complete, finite numbers.

pandas, pyarrow and scikit-learn are optional, so they are imported where they are needed.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A column of text with more distinct values than this is an identifier rather than a category.
MAX_CATEGORIES = 1000


class TableError(ValueError):
    """A data set that cannot be used. The message names the file and, where it can, the column."""


class MissingExtraError(ImportError):
    """An optional package is not installed. The message says how to install it."""


@dataclass(frozen=True)
class Table:
    """A data set as it was read: complete and finite, but not scaled.

    Attributes
    ----------
    name : str
        What to call it in messages.
    features : ndarray, shape (N, n_features)
        Real numbers. Categories are one-hot, after all other columns.
    target : ndarray, shape (N,) or (N, n_outputs)
        Numbers, or class names.
    """

    name: str
    features: NDArray[Any]
    target: NDArray[Any]


def optional(module: str) -> Any:
    """Import a module of the extra ``train``, or say how to install it.

    Parameters
    ----------
    module : str
        The module's full name, such as ``"sklearn.metrics"``.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{package} is not installed: pip install 'fnn_core[train]'"
        ) from error


def digits() -> Table:
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""
    features, target = optional("sklearn.datasets").load_digits(return_X_y=True)
    return Table("digits", features, target)


def read_table(path: str | Path, target: str | None = None) -> Table:
    """Read a data set from a CSV, Parquet, NPY or NPZ file; its ending says which.

    Parameters
    ----------
    path : str or Path
        The file. A CSV file may lack the line of column names if all its values are numbers; a
        first line of 0, 1, 2 and so on, three columns at least, is taken for one.
    target : str, optional
        The target column's name or index, by default the last column. In an NPZ file, the name of
        the target's array, by default ``y``; the features are its array ``X``.

    Raises
    ------
    TableError
        If the file cannot be read, or holds values that are missing, infinite or not numbers.
    """
    path = Path(path)
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise TableError(f"{path}: the file name must end in one of {', '.join(READERS)}")
    if not path.is_file():
        raise TableError(f"{path}: no such file")
    try:
        features, values = read(path, target)
        if len(features) < 2:
            raise TableError(f"expected at least 2 rows, got {len(features)}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TableError(f"{path}: {error}") from error
    return Table(path.name, features, values)


def _read_csv(path: Path, target: str | None) -> tuple[NDArray[Any], NDArray[Any]]:
    pandas = optional("pandas")
    first = pandas.read_csv(path, header=None, nrows=1)
    # Columns without names of their own are often written as 0, 1, 2 and so on; two could be data.
    names = list(pandas.read_csv(path, header=None, nrows=1, dtype=str).iloc[0])
    numbered = len(names) > 2 and names == [str(index) for index in range(len(names))]
    numeric = not numbered and all(map(pandas.api.types.is_numeric_dtype, first.dtypes))
    frame = pandas.read_csv(path, header=None if numeric else "infer", low_memory=False)
    return _split_frame(frame, target)


def _read_parquet(path: Path, target: str | None) -> tuple[NDArray[Any], NDArray[Any]]:
    optional("pyarrow")
    return _split_frame(optional("pandas").read_parquet(path, engine="pyarrow"), target)


def _read_npy(path: Path, target: str | None) -> tuple[NDArray[Any], NDArray[Any]]:
    with path.open("rb") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.ndim != 2 or array.shape[1] < 2:
        raise TableError(f"expected a table of at least 2 columns, got shape {array.shape}")
    names = [str(index) for index in range(array.shape[1])]
    _check_numbers(array, names)
    position = _column_position(names, target)
    return np.delete(array, position, axis=1), array[:, position]


def _read_npz(path: Path, target: str | None) -> tuple[NDArray[Any], NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise TableError("not an NPZ archive")
    target = target or "y"
    with np.load(path, allow_pickle=False) as arrays:
        for name in ("X", target):
            if name not in arrays:
                raise TableError(f"no array {name!r}; it has {', '.join(arrays.files) or 'none'}")
        features, values = arrays["X"], arrays[target]
    if features.ndim < 2 or features.size == 0:
        raise TableError(f"expected X with rows and columns, got shape {features.shape}")
    if values.ndim not in (1, 2) or len(values) != len(features):
        raise TableError(
            f"expected {target} with one entry for each of the {len(features)} rows of X, "
            f"got shape {values.shape}"
        )
    features = features.reshape(len(features), -1)
    _check_numbers(features, [f"{index} of X" for index in range(features.shape[1])])
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind != "U":
        columns = values.reshape(len(values), -1)
        _check_numbers(columns, [f"{index} of {target}" for index in range(columns.shape[1])])
    return features, values


READERS: dict[str, Callable[[Path, str | None], tuple[NDArray[Any], NDArray[Any]]]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".npy": _read_npy,
    ".npz": _read_npz,
}


def _split_frame(frame: Any, target: str | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Take the target out of a data frame and turn the other columns into one matrix."""
    pandas = optional("pandas")
    types = pandas.api.types
    frame = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    if frame.shape[1] < 2:
        raise TableError(f"expected at least 2 columns, got {frame.shape[1]}")
    for name, count in frame.isna().sum().items():
        if count:
            raise TableError(f"column {name!r} has {count} missing values of {len(frame)}")

    name = frame.columns[_column_position(list(frame.columns), target)]
    values = frame.pop(name)
    if types.is_numeric_dtype(values.dtype):
        _check_numbers(values.to_numpy()[:, np.newaxis], [repr(name)])
    else:
        values = values.astype(str)

    categorical = [name for name in frame if not types.is_numeric_dtype(frame[name].dtype)]
    for name in categorical:
        if types.is_datetime64_any_dtype(frame[name].dtype):
            raise TableError(f"column {name!r} holds dates; turn them into numbers first")
        try:
            count = frame[name].nunique()
        except TypeError:
            raise TableError(f"column {name!r} holds neither numbers nor text") from None
        if count > MAX_CATEGORIES:
            raise TableError(
                f"column {name!r} holds text with {count} distinct values; "
                f"categories may have {MAX_CATEGORIES}"
            )
    frame = pandas.get_dummies(frame, columns=categorical, dtype=np.float64)
    features = frame.to_numpy(dtype=np.float64)
    _check_numbers(features, [repr(name) for name in frame])
    return features, values.to_numpy()


def _column_position(names: Sequence[str], target: str | None) -> int:
    """Where the target column is: a name is tried first, then an index."""
    if target is None:
        return len(names) - 1
    if target in names:
        return names.index(target)
    try:
        return range(len(names))[int(target)]
    except (ValueError, IndexError):
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise TableError(f"no column {target!r} among its {len(names)}: {shown}") from None


def _check_numbers(columns: NDArray[Any], names: Sequence[str]) -> None:
    if columns.dtype.kind not in "biuf":
        raise TableError(f"column {names[0]}: expected real numbers, got {columns.dtype}")
    good = np.isfinite(columns).all(axis=0)
    if not good.all():
        position = int(np.argmin(good))
        bad = columns[~np.isfinite(columns[:, position]), position]
        kind = "missing" if np.isnan(bad).any() else "infinite"
        raise TableError(
            f"column {names[position]} has {kind} values: {len(bad)} of {len(columns)}"
        )
