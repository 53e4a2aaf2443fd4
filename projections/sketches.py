"""Quantiles of durations that can be added up: DDSketch (Masson and others, VLDB 2019), exact to 1 % of a value."""

from collections.abc import Iterable
from typing import Any

_ACCURACY = 0.01


def with_values(stored: bytes | None, values: Iterable[float], others: Iterable[bytes] = ()) -> bytes:
    """Return a stored sketch with more values, and other sketches, in it; their order makes no difference."""
    from ddsketch import DDSketch
    from ddsketch.pb.proto import DDSketchProto

    sketch = DDSketch(_ACCURACY)
    for value in values:
        sketch.add(value)
    for each in (stored, *others):
        if each:
            sketch.merge(_sketch(each))
    proto: Any = DDSketchProto.to_proto(sketch)  # type: ignore[no-untyped-call]
    _trim(proto.positiveValues)
    _trim(proto.negativeValues)
    data: bytes = proto.SerializeToString()
    return data


def _trim(store: Any) -> None:
    """Leave out the empty bins at both ends: how many there are tells in which order values came."""
    counts = list(store.contiguousBinCounts)
    filled = [number for number, count in enumerate(counts) if count]
    first, end = (filled[0], filled[-1] + 1) if filled else (0, 0)
    offset = store.contiguousBinIndexOffset + first if filled else 0
    store.ClearField("contiguousBinCounts")
    store.contiguousBinCounts.extend(counts[first:end])
    store.contiguousBinIndexOffset = offset


def quantiles(stored: Iterable[bytes], which: Iterable[float]) -> list[float | None]:
    """Return quantiles of all that is in some sketches, None where there is nothing."""
    from ddsketch import DDSketch

    sketch = DDSketch(_ACCURACY)
    for each in stored:
        sketch.merge(_sketch(each))
    return [sketch.get_quantile_value(each) for each in which]


def _sketch(stored: bytes) -> "DDSketch":  # type: ignore[name-defined] # noqa: F821 (imported where it is needed)
    from ddsketch.pb import ddsketch_pb2
    from ddsketch.pb.proto import DDSketchProto

    proto = ddsketch_pb2.DDSketch()
    proto.ParseFromString(stored)
    return DDSketchProto.from_proto(proto)  # type: ignore[no-untyped-call]
