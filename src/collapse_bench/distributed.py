"""Several processes that run one chain together. ``torchrun`` starts them, and all go through the same program.

They hold the same state and take the same steps, so that each knows without asking what comes next. What costs time is
shared: every process does its own part and gets the parts of all (``gathered``), or Lightning and torchmetrics add up
what each has. What there must be only one of (files, caches, the screen, what is learnt once) is the main process's
alone, and the others are told what came out (``from_main``). An error in either is an error of all processes.

With one process all of this is a plain call.
"""

import atexit
import itertools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from collapse_bench.errors import CollapseBenchError, ConfigError, DivergenceError

T = TypeVar("T")

COMMAND = "torchrun --nproc_per_node=2 -m collapse_bench.cli.run"
"""How several processes are started, for errors."""

# The main process may be busy for as long as a fit takes, which another run does of which it waits for the result.
_TIMEOUT = timedelta(days=1)

# How much later than another process one may run into the same error.
_GRACE_S = 5.0

_apart = 0
_alarm: Store | None = None
_blocks = itertools.count()


class ProcessError(RuntimeError):
    """Another process has failed in a way that nobody foresaw; the message holds its traceback."""


def num_processes() -> int:
    """Processes that share the work at this place in the program."""
    return 1 if _apart or not dist.is_initialized() else dist.get_world_size()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return rank() == 0


def is_shared() -> bool:
    """Whether several processes share the work at this place in the program."""
    return num_processes() > 1


def own_part(count: int) -> slice:
    """The part of ``count`` things that is this process's; those of all processes follow each other in order."""
    size, rest = divmod(count, num_processes())
    first = rank() if is_shared() else 0
    start = first * size + min(first, rest)
    return slice(start, start + size + (first < rest))


@contextmanager
def apart() -> Iterator[None]:
    """Within the block this process works as if it were alone."""
    global _apart
    _apart += 1
    try:
        yield
    finally:
        _apart -= 1


def from_main(build: Callable[[], T]) -> T:
    """What ``build`` gives in the main process, which alone calls it; an error that it raises is raised in all.

    Args:
        build: may not count on the other processes; what it gives is copied.
    """
    if not is_shared():
        return build()
    message: list[tuple[T | None, Exception | None]] = [(None, None)]
    if is_main():
        try:
            with apart():
                value = build()
        except Exception as error:
            dist.broadcast_object_list([(None, _for_others(error))])
            raise
        dist.broadcast_object_list([(value, None)])
        return value
    dist.broadcast_object_list(message)
    value, error = message[0]
    if error is not None:
        raise error
    return value  # pyright: ignore[reportReturnType] (it may be None by right)


def gathered(build: Callable[[], T], what: str) -> list[T]:
    """What ``build`` gives in each process, in the order of the processes; an error in one is raised in all.

    Args:
        build: works as if its process were alone.
        what: names the work, the same in all processes.

    Raises:
        DivergenceError: if the processes are not at the same work.
    """
    if not is_shared():
        return [build()]
    value, own_error = None, None
    try:
        with apart():
            value = build()
    except Exception as error:
        own_error = error
    told: list[Any] = [None] * num_processes()
    dist.all_gather_object(told, (what, value, None if own_error is None else _for_others(own_error)))
    if len({work for work, _, _ in told}) > 1:
        raise DivergenceError(
            f"the processes are not at the same place: {'; '.join(work for work, _, _ in told)}. They need equal "
            "devices, libraries and command lines"
        )
    if own_error is not None:
        raise own_error
    for _, _, error in told:
        if error is not None:
            raise error
    return [value for _, value, _ in told]


def mean_of_all(tensor: Tensor) -> Tensor:
    """The mean of what the processes have, in place."""
    if is_shared():
        dist.all_reduce(tensor)
        tensor /= num_processes()
    return tensor


def _for_others(error: Exception) -> Exception:
    """The error as other processes raise it: an unforeseen one may not survive the journey."""
    if isinstance(error, CollapseBenchError):
        return error
    return ProcessError(f"process {rank()} failed:\n{_reason(error)}")


def join(strategy: str, num_wanted: int, accelerator: str) -> None:
    """Makes this process one of those that ``torchrun`` has started; a second call, and one alone, does nothing.

    Args:
        strategy: ``"single"`` or ``"ddp"``.
        num_wanted: how many processes the configuration speaks of.
        accelerator: ``"cpu"``, or ``"cuda"``, which gives each process of a node its own device.

    Raises:
        ConfigError: if the processes are not those that the configuration speaks of.
    """
    global _alarm
    num_started = int(os.environ.get("WORLD_SIZE", "1"))
    if strategy == "single":
        if num_started > 1:
            raise ConfigError(
                f"{num_started} processes were started and trainer.strategy=single is for one; choose trainer=ddp or "
                "trainer=ddp_gpu, or start collapse-run without torchrun"
            )
        return
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= {*os.environ}:
        raise ConfigError(
            f"trainer.strategy=ddp is for processes that torchrun starts: {COMMAND} trainer=ddp (more options); or "
            "choose trainer=cpu or trainer=gpu"
        )
    if num_wanted != num_started:
        raise ConfigError(
            f"trainer.num_processes={num_wanted} and {num_started} were started; leave it out, torchrun says it"
        )
    if dist.is_initialized():
        return
    if accelerator == "cuda":
        local_rank, num_devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= num_devices:
            raise ConfigError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes were started on a node with {num_devices} GPUs, and each "
                f"needs its own; start torchrun with --nproc_per_node={num_devices}"
            )
        torch.cuda.set_device(local_rank)
    store, process, _ = next(rendezvous("env://", timeout=_TIMEOUT))
    store.set_timeout(_TIMEOUT)
    # Objects and metrics travel on the CPU, gradients from device to device.
    backend = "cpu:gloo,cuda:nccl" if accelerator == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=PrefixStore("group", store), rank=process, world_size=num_started, timeout=_TIMEOUT
    )
    # A connection of its own, because a waiting process keeps its connection to itself.
    _alarm = PrefixStore("alarm", next(rendezvous("env://", timeout=_TIMEOUT))[0])
    atexit.register(dist.destroy_process_group)


@contextmanager
def failing_together(note: Callable[[str], object] = lambda reason: None) -> Iterator[None]:
    """Ends all processes with one message where an error in the block is not that of all of them.

    The others would wait for the one that failed, some of them in places that no error reaches. So a process says that
    it has failed, and the main one, which alone speaks, listens while it works. An error that all processes run into is
    raised in each of them and ends none. Blocks may be nested.

    Args:
        note: told, in the main process, why all have to end.
    """
    if not is_shared():
        yield
        return
    assert _alarm is not None, "all processes have joined"
    alarm, block, finished = _alarm, str(next(_blocks)), threading.Event()
    if is_main():
        threading.Thread(target=_listen, args=(alarm, block, finished, note), daemon=True).start()
    try:
        yield
    except Exception as error:
        if "of_all" not in vars(error):
            reason = _reason(error)
            alarm.set(f"{block}/{rank()}", reason)
            if not _within(_GRACE_S, lambda: alarm.check([f"{block}/{k}" for k in range(num_processes())])):
                if is_main():
                    _end_all(reason, note)
                time.sleep(60)  # until the main process has spoken and torchrun ends this one
                os._exit(1)
            vars(error)["of_all"] = True  # an outer block has nothing to ask
        raise
    finally:
        finished.set()


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition holds at some time within so many seconds, at which this returns."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return holds


def _listen(alarm: Store, block: str, finished: threading.Event, note: Callable[[str], object]) -> None:
    """Ends the main process, wherever it is, once another one has failed and this one does not."""
    while not finished.wait(1.0):
        for process in range(1, dist.get_world_size()):
            if alarm.check([f"{block}/{process}"]):
                if not finished.wait(_GRACE_S) and not alarm.check([f"{block}/0"]):
                    _end_all(f"process {process}: {alarm.get(f'{block}/{process}').decode()}", note)
                return


def _end_all(reason: str, note: Callable[[str], object]) -> NoReturn:
    """Says why and ends this process, upon which torchrun ends the others."""
    note(reason)
    sys.stdout.flush()
    print(f"error: {reason}", file=sys.stderr, flush=True)
    os._exit(1)  # because an orderly exit may wait for the others


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, CollapseBenchError) else "".join(traceback.format_exception(error))
