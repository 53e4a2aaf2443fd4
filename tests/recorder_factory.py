"""Recorders as the `eventsourcing` library makes them: by the environment."""

import os

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment

from perdure.events.recorder import JetStreamFactory


def factory(name: str = "", **more: str) -> JetStreamFactory:
    """Return the factory of an application, whose environment is the process's with `more`."""
    made = InfrastructureFactory.construct(Environment(name, {**os.environ, **more}))
    assert isinstance(made, JetStreamFactory)
    return made
