"""A mosaic of the sky as Montage makes it: a DAG of about 2,000 tasks, here no-ops.

Each image is projected (mProject), each overlap of two neighbours is fitted (mDiffFit), the fits are put together
(mConcatFit) and a model of the background is made of them (mBgModel), which each image is corrected by (mBackground);
then come the table of images (mImgtbl), their sum (mAdd), and that made smaller (mShrink), as a picture (mJPEG).
"""

from collections.abc import Iterator
from math import isqrt

from benchmarks.run import Run
from benchmarks.workloads import one_of_many

_LAST = 6  # tasks behind all others of their level


def dag(tasks: int) -> dict[str, list[str]]:
    """Return tasks and what each needs: of that grid of images which has the most nearly as many as wanted."""
    grids = [(width, height) for width in range(1, isqrt(tasks) + 1) for height in range(width, 2 * width + 1)]
    grid = min(grids, key=lambda each: abs(_size(*each) - tasks))
    return {task: needs for level in _levels(*grid) for task, needs in level}


def _size(width: int, height: int) -> int:
    overlaps = (width - 1) * height + width * (height - 1) + 2 * (width - 1) * (height - 1)
    return 2 * width * height + overlaps + _LAST


def _levels(width: int, height: int) -> Iterator[list[tuple[str, list[str]]]]:
    images = [(x, y) for x in range(width) for y in range(height)]
    overlaps = [
        (f"{x}_{y}", f"{x + dx}_{y + dy}")
        for x, y in images
        for dx, dy in ((0, 1), (1, 0), (1, 1), (1, -1))
        if (x + dx, y + dy) in images
    ]
    fits = [(f"mDiffFit_{a}_{b}", [f"mProject_{a}", f"mProject_{b}"]) for a, b in overlaps]
    corrected = [(f"mBackground_{x}_{y}", [f"mProject_{x}_{y}", "mBgModel"]) for x, y in images]
    yield [(f"mProject_{x}_{y}", []) for x, y in images]
    yield fits
    yield [("mConcatFit", [task for task, _ in fits])]
    yield [("mBgModel", ["mConcatFit"])]
    yield corrected
    yield [("mImgtbl", [task for task, _ in corrected])]
    yield [("mAdd", ["mImgtbl", *(task for task, _ in corrected)])]
    yield [("mShrink", ["mAdd"])]
    yield [("mJPEG", ["mShrink"])]


async def montage(run: Run) -> None:
    """Measure one mosaic; `n` becomes how many tasks it has."""
    tasks = dag(run.n)
    run.n = len(tasks)
    await one_of_many(run, run.definition("montage", {task: run.noop(needs) for task, needs in tasks.items()}))
