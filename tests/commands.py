"""The package's commands, called in this process, which has loaded torch: one of its own takes ten seconds for that.

What must have a process of its own, because it is killed or its imports are the question, starts one.
"""

import contextlib
import io
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch


def call(program: str, *arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a command leaves behind when it is called in a folder, with the cache there.

    Args:
        program: ``collapse-run``, ``collapse-measure`` or ``collapse-report``.
        arguments: of the command line.
        folder: the working folder.
        environment: variables to set beside ours.
    """
    main = import_module(f"collapse_bench.cli.{program.removeprefix('collapse-')}").main
    out, err, num_threads = io.StringIO(), io.StringIO(), torch.get_num_threads()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")  # as where nobody has set it
        for name, value in {
            "COLLAPSE_BENCH_CACHE": str(folder / "cache"),
            "COLUMNS": "200",
            "HYDRA_FULL_ERROR": "1",  # the commands set it themselves, for good
            **environment,
        }.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", [program, *arguments])
        patch.chdir(folder)
        try:
            status = main()
        except SystemExit as stop:
            status = stop.code
        if isinstance(status, str):  # as Python does with what is left with
            print(status, file=err)
    torch.set_num_threads(num_threads)
    code = 1 if isinstance(status, str) else status or 0
    return subprocess.CompletedProcess([program, *arguments], code, out.getvalue(), err.getvalue())
