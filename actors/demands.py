"""What a call asks of its node actor, as plain data that names one pool."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from perdure.definitions.placement import placement_of
from perdure.definitions.plan import Plan
from perdure.definitions.plan_nodes import PlanNode

CODE = "code:"
"""What stands before the digest of a package where the places of an execution's tools name one."""


class Demand(msgspec.Struct, frozen=True, dict=True):
    """One pool: the tool at `place` in processes that take these resources and have this environment.

    takes: Ray's options for resources. env: Ray's runtime_env. code: packages by what they are for: the path of a tool
    file, `working_dir`, or `py_modules`. idle: in seconds; None for the setting's. grace: in seconds.
    """

    place: str
    takes: dict[str, Any] = {}
    env: dict[str, Any] = {}
    code: tuple[tuple[str, str], ...] = ()
    min: int = 0
    max: int | None = None
    idle: float | None = None
    concurrency: int = 1
    grace: float = 5.0

    @cached_property
    def key(self) -> str:
        """Its pool's name: demands that differ in anything have pools of their own."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]

    @cached_property
    def amounts(self) -> dict[str, float]:
        """How much it takes of each resource, by Ray's names."""
        takes = self.takes
        named = {"CPU": takes.get("num_cpus"), "GPU": takes.get("num_gpus"), "memory": takes.get("memory")}
        amounts = {name: float(amount) for name, amount in named.items() if amount}
        amounts.update({name: float(amount) for name, amount in takes.get("resources", {}).items() if amount})
        if takes.get("accelerator_type"):
            amounts[f"accelerator_type:{takes['accelerator_type']}"] = 0.001
        return amounts

    @property
    def needs(self) -> str:
        """What it waits for, in words: `num_gpus=1, memory=8589934592`."""
        words = [f"{key}={value:g}" for key, value in self.takes.items() if key in ("num_cpus", "num_gpus") and value]
        words += [f"memory={value}" for key, value in self.takes.items() if key == "memory" and value]
        words += [f"{name}={amount:g}" for name, amount in self.takes.get("resources", {}).items()]
        words += [f"accelerator_type={self.takes['accelerator_type']}"] if "accelerator_type" in self.takes else []
        words += [f"{name}={value!r}" for name, value in self.takes.get("label_selector", {}).items()]
        return ", ".join(words)


def demand_of(plan: Plan, node: PlanNode, place: str, places: Mapping[str, str]) -> Demand:
    """Return what a call of the tool at a place asks; `places` are those that its execution began with."""
    asked = placement_of(plan, node)
    resources, pool, env = asked.resources, asked.pool, asked.runtime_env
    takes = {
        key: value
        for key, value in resources.model_dump(exclude={"custom"}, exclude_none=True).items()
        if value not in ({}, None)
    }
    if resources.custom:
        takes["resources"] = dict(resources.custom)
    file = place.rpartition(":")[0]
    folders = [(each, f"py_modules:{each}") for each in env.py_modules]
    folders = [(file, file), ("working_dir", f"working_dir:{env.working_dir}"), *folders]
    code = tuple((what, places[name].removeprefix(CODE)) for what, name in folders if name in places)
    own = {key: value for key, value in (("pip", env.pip), ("env_vars", env.env_vars)) if value}
    return Demand(place, takes, own, code, pool.min, pool.max, pool.idle, pool.concurrency, pool.grace)
