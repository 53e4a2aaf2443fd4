"""Which host is to serve which partitions: one record, which all follow; `perdure scale` changes it."""

import msgspec

from perdure.cluster.adoption import adopted
from perdure.cluster.inbox import Lanes
from perdure.cluster.registry import Changed, Registry
from perdure.events.subjects import PARTITIONS

Assignment = dict[str, list[int]]
"""The partitions of each host, by its name."""

_KEY = "assignment"
_FIRST = "host0"


async def assignment(registry: Registry) -> Assignment:
    """Return what the store's hosts are to serve; nothing where no host was ever started."""
    data, _ = await registry.read(_KEY)
    return _decoded(data)


async def assign(registry: Registry, hosts: int, *, anew: bool = True) -> Assignment:
    """Spread the partitions over so many hosts, moving as few as can be, and return who serves what from now on.

    anew: change what is recorded already; otherwise that is returned as it is.
    """
    while True:
        data, revision = await registry.read(_KEY)
        before = _decoded(data)
        after = balanced(before, hosts) if anew or not before else before
        if after == before:
            return before
        try:
            await registry.swap(_KEY, msgspec.json.encode(after), revision)
        except Changed:
            continue
        return after


async def assigned(registry: Registry, host: str) -> Lanes:
    """Return the lanes that one host is to serve; the first host's with those that were adopted."""
    lanes = Lanes.of_partitions((await assignment(registry)).get(host, []))
    if host != _FIRST:
        return lanes
    return Lanes((*lanes.names, *await adopted(registry)))


def balanced(before: Assignment, hosts: int) -> Assignment:
    """Return an assignment to `host0` up to the last of so many, as equal as can be, that moves as little as can be."""
    names = [f"host{number}" for number in range(hosts)]
    kept = {name: list(before.get(name, [])) for name in names}
    held = {part for parts in kept.values() for part in parts}
    free = [part for part in range(PARTITIONS) if part not in held]
    by_size = sorted(names, key=lambda name: -len(kept[name]))
    for place, name in enumerate(by_size):  # the largest ones may keep one more
        share = PARTITIONS // hosts + (place < PARTITIONS % hosts)
        free += kept[name][share:]
        kept[name] = kept[name][:share]
    for place, name in enumerate(by_size):
        share = PARTITIONS // hosts + (place < PARTITIONS % hosts)
        missing = share - len(kept[name])
        kept[name], free = sorted(kept[name] + free[:missing]), free[missing:]
    return kept


def _decoded(data: bytes | None) -> Assignment:
    return msgspec.json.decode(data, type=Assignment) if data else {}
