"""Ids are told apart, in processes that were forked too."""

import multiprocessing
from multiprocessing.connection import Connection

import pytest

from perdure.events.ids import new_id


def tell(says: Connection) -> None:
    says.send([new_id() for _ in range(3)])


def test_no_two_ids_are_the_same() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == 10_000
    assert {len(each) for each in ids} == {32}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_makes_other_ids_than_the_one_before_and_its_siblings() -> None:
    forks = multiprocessing.get_context("fork")
    told = [new_id() for _ in range(3)]
    for _ in range(2):
        hears, says = forks.Pipe(duplex=False)
        child = forks.Process(target=tell, args=(says,))
        child.start()
        told += hears.recv()
        child.join(10)
    assert len(set(told)) == 9
