"""collapse-bench: generative image models retrained on their own samples, measured under one protocol.

What a script or a notebook needs has its name here; nothing is loaded before it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collapse_bench.analysis.figures import plot_against as plot_against
    from collapse_bench.analysis.figures import plot_class_shares as plot_class_shares
    from collapse_bench.analysis.figures import plot_curves as plot_curves
    from collapse_bench.analysis.figures import plot_samples as plot_samples
    from collapse_bench.analysis.figures import plot_standing as plot_standing
    from collapse_bench.analysis.runs import Run as Run
    from collapse_bench.analysis.runs import find_runs as find_runs
    from collapse_bench.analysis.runs import load_run as load_run
    from collapse_bench.analysis.runs import to_frame as to_frame
    from collapse_bench.analysis.tables import summary_frame as summary_frame
    from collapse_bench.analysis.tables import verdict_matrix as verdict_matrix
    from collapse_bench.analysis.tables import verdict_table as verdict_table
    from collapse_bench.api import FittedModel as FittedModel
    from collapse_bench.api import Samples as Samples
    from collapse_bench.api import load_model as load_model
    from collapse_bench.api import run as run
    from collapse_bench.errors import CollapseBenchError as CollapseBenchError

_HOMES = {
    "analysis.figures": ("plot_against", "plot_class_shares", "plot_curves", "plot_samples", "plot_standing"),
    "analysis.runs": ("Run", "find_runs", "load_run", "to_frame"),
    "analysis.tables": ("summary_frame", "verdict_matrix", "verdict_table"),
    "api": ("FittedModel", "Samples", "load_model", "run"),
    "errors": ("CollapseBenchError",),
}
_HOME_OF = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
