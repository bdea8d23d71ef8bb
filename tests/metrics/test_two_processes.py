"""Two processes with unequal numbers of batches give the numbers of one."""

import socket

import pytest
import torch
import torch.multiprocessing
from metric_sets import in_one_of_two, metrics, numbers, sets


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(in_one_of_two, args=(port, str(tmp_path)), nprocs=2)
    by_rank = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    images = sets()
    for name, metric in metrics().items():
        for side in metric.sides:
            metric.update(images[side], side=side)
        expected = numbers(metric)
        assert expected, name
        assert by_rank[0][name] == expected
        assert by_rank[1][name] == expected
