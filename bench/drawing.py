"""How figures look, and what to do without matplotlib."""

from __future__ import annotations

from typing import Any


def prepared_pyplot() -> Any:
    """Pyplot, to draw into files; to be asked for before anything is measured.

    It imports NumPy, so threads are to be limited before.
    """
    try:
        import matplotlib as mpl
        from matplotlib import pyplot
    except ModuleNotFoundError:
        raise SystemExit("the figures want matplotlib: pip install matplotlib") from None
    pyplot.switch_backend("Agg")
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    return pyplot
