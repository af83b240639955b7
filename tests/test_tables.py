"""Reading data files: what is refused, by name, and which task a target stands for."""

import numpy as np
import pytest

from fnn_core.preparation import guess_task
from fnn_core.tables import TableError, read_table

pandas = pytest.importorskip("pandas")


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"X": np.ones((4, 2))}, "no array 'y'; it has X"),
        ({"X": np.ones(4), "y": np.ones(4)}, "X with rows and columns"),
        ({"X": np.ones((4, 2)), "y": np.ones(3)}, "each of the 4 rows of X, got shape (3,)"),
        ({"X": np.array([[1.0], [np.nan]]), "y": np.ones(2)}, "column 0 of X has missing values"),
        ({"X": np.ones((2, 1)), "y": np.array([1.0, np.inf])}, "column 0 of y has infinite"),
        ({"X": np.ones((2, 1), complex), "y": np.ones(2)}, "expected real numbers, got complex"),
    ],
)
def test_bad_arrays_are_named(tmp_path, arrays, complaint):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(TableError) as refused:
        read_table(tmp_path / "data.npz")
    assert complaint in str(refused.value)


def test_unknown_target_and_unusable_columns_are_named(tmp_path):
    frame = pandas.DataFrame({"day": pandas.to_datetime(["2020-01-01"] * 3), "b": [1, 2, 3]})
    frame.to_parquet(tmp_path / "days.parquet")
    with pytest.raises(TableError, match="column 'day' holds dates"):
        read_table(tmp_path / "days.parquet")
    with pytest.raises(TableError, match="no column 'c' among its 2: day, b"):
        read_table(tmp_path / "days.parquet", "c")
    names = pandas.DataFrame({"name": [f"n{i}" for i in range(1001)], "b": np.arange(1001)})
    names.to_csv(tmp_path / "names.csv", index=False)
    with pytest.raises(TableError, match="column 'name' holds text with 1001 distinct values"):
        read_table(tmp_path / "names.csv")


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (np.array(["a", "b"] * 5), "classification"),
        (np.array([True, False] * 5), "classification"),
        (np.arange(10) % 3, "classification"),
        (np.arange(10.0) % 3, "classification"),
        (np.arange(10), "regression"),
        (np.arange(200) % 51, "regression"),
        (np.arange(10) / 4, "regression"),
        (np.ones((10, 2)), "regression"),
    ],
)
def test_the_task_follows_from_the_target(target, task):
    assert guess_task(target) == task
