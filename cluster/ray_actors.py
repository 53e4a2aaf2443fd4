"""What runs inside Ray's processes: the actors of hosts, and the one that supervises them."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import msgspec
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from perdure.actors.spawn import spawn
from perdure.cluster import logs
from perdure.cluster.connection import Connection
from perdure.cluster.garbage import keep_what_is_there, look_seldom
from perdure.cluster.inbox import Lanes
from perdure.cluster.node_keeper import node_actors
from perdure.cluster.ownership import Ownership
from perdure.cluster.projecting import NAME, keep_projecting
from perdure.cluster.ray_executions import Apart
from perdure.cluster.serving import Serving
from perdure.cluster.settings import Settings
from perdure.cluster.standby import HostProcess
from perdure.cluster.supervisor import Supervisor
from perdure.cluster.sweep import keep_sweeping
from perdure.cluster.tasks import stop
from perdure.cluster.telling import keep_telling
from perdure.cluster.wiring import Opener, connect_to, keep_serving

_log = logging.getLogger("perdure.host")
_OPEN_AGAIN_AFTER = 2.0  # seconds
_ANSWER_SECONDS = 5.0
_LIVE_SECONDS = 10.0  # of one call: those of a supervisor that is gone take no room for longer
_GIVE_WAY = 5  # of nice: read models lag behind before executions do


class HostConfig(msgspec.Struct, frozen=True):
    """What a host's process needs to start, and to start again: plain data, and no secrets.

    lanes: of a host that serves one execution that is driven. supervised: it stands by when it has nothing to serve.
    """

    name: str
    settings: dict[str, Any]
    namespace: str
    lanes: Lanes | None = None
    supervised: bool = False


class OwnLoop:
    """An event loop of our own in a thread, so that Ray's way of running actors does not matter."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on it, and return its future."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)


class HostActor:
    """The named actor that runs a host. When its process dies Ray, or its supervisor, starts another."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._settings = Settings(**config.settings)
        self._loop = OwnLoop()
        self._process: HostProcess | None = None
        logs.configure(self._settings.log_format)
        if config.supervised:
            self._loop.submit(self._stand_by())
        else:
            self._begin()

    def wait_open(self) -> int:
        """Return this process's id once the host serves; raise what keeps it from opening, and try again when asked."""
        if self._config.supervised:
            return os.getpid()  # the supervisor sees to it that somebody serves
        if self._opened.done() and self._opened.exception():
            self._begin()
        self._opened.result()
        return os.getpid()

    async def serves(self) -> str | None:
        """Return which host this process serves, "" while it stands by, None before it is ready for either."""
        return self._process.serves if self._process is not None else None

    async def live(self, seconds: float) -> None:
        """Return after so many seconds: whoever waits for it learns at once when this process ends."""
        await asyncio.sleep(seconds)

    async def drain(self, seconds: float) -> None:
        """Let what is under way come to its end, for so many seconds, and stop serving."""
        if self._process is not None:
            await asyncio.wrap_future(self._loop.submit(self._process.drain(seconds)))

    def _begin(self) -> None:
        self._opened = self._loop.submit(self._open())
        self._opened.add_done_callback(self._go_on)

    def _go_on(self, opened: Any) -> None:
        if not opened.exception():
            self._loop.submit(self._serve(opened.result()))
        elif ray.get_runtime_context().was_current_actor_reconstructed:
            # Nobody waits for us any more: what kept us from opening may be over soon.
            self._loop.loop.call_soon_threadsafe(self._loop.loop.call_later, _OPEN_AGAIN_AFTER, self._begin)

    async def _open(self) -> Serving:
        self._opener = await self._connected()
        return await self._opener.open(self._config.name, self._config.lanes)

    async def _connected(self) -> Opener:
        connection = await connect_to(self._settings)
        look_seldom()
        elsewhere = node_actors(self._settings, self._config.namespace)
        return Opener(connection, self._settings, elsewhere, self._apart)

    async def _serve(self, serving: Serving) -> None:
        name, lanes = self._config.name, self._config.lanes
        async with _or_die(name):
            await keep_serving(serving, lambda: self._opener.open(name, lanes))
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)  # deposed: never come back

    async def _stand_by(self) -> None:
        async with _or_die(self._config.name):
            opener = await self._connected()
            logs.to_nats(opener.connection.nats, self._config.name)
            self._process = HostProcess(opener, self._config.name)
            await self._process.run()

    def _apart(self, execution: str, own: Ownership) -> Apart:
        return Apart(execution, own, self._config.settings, self._config.namespace)


@contextlib.asynccontextmanager
async def _or_die(name: str) -> AsyncIterator[None]:
    """End the process where something breaks that nobody foresaw: Ray starts it again, or the supervisor."""
    try:
        yield
    except BaseException:
        _log.exception("%s broke; it is started again", name)
        os._exit(1)


class SupervisorActor:
    """The named, detached actor that supervises the hosts; Ray restarts it, and it finds them as they are."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        logs.configure(config.settings["log_format"])
        OwnLoop().submit(self._run())

    def ready(self) -> int:
        """Return this process's id."""
        return os.getpid()

    async def _run(self) -> None:
        async with _or_die("supervisor"):
            connection = await connect_to(Settings(**self._config.settings))
            logs.to_nats(connection.nats, "supervisor")
            me = ray.get_runtime_context().current_actor

            async def close() -> None:
                await connection.close()
                ray.kill(me, no_restart=True)

            await Supervisor(connection, RayProcesses(self._config), close).run()


async def keep_read_models(connection: Connection, settings: Settings) -> None:
    """Fold, tell webhooks of it, and wake by it whose timers are overdue, until cancelled."""
    await asyncio.gather(*(keep(connection, settings) for keep in (keep_projecting, keep_telling, keep_sweeping)))


class ProjectionActor:
    """The named, detached actor that folds the log into read models; Ray restarts it, and it goes on where it was."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        os.nice(_GIVE_WAY)
        logs.configure(config.settings["log_format"])
        OwnLoop().submit(self._run())

    async def _run(self) -> None:
        async with _or_die(NAME):
            settings = Settings(**self._config.settings)
            connection = await connect_to(settings)
            keep_what_is_there()  # but it looks as often as ever: SQLAlchemy leaves cycles, 1 kB for an entry
            logs.to_nats(connection.nats, NAME)
            await keep_read_models(connection, settings)


class RayProcesses:
    """The processes of hosts as Ray actors, `perdure-host0` and so on, spread over the nodes; see Processes."""

    def __init__(self, config: HostConfig) -> None:
        self.lost = asyncio.Event()
        self._config = config
        self._actors: dict[str, ActorHandle[HostActor]] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._projecting: ActorHandle[ProjectionActor] | None = None

    async def ensure(self, count: int) -> list[str]:
        """See Processes."""
        self._find_surplus(count)
        self._project()
        nodes = _nodes()
        for number in range(count):
            name = f"host{number}"
            self._actors[name] = spawn(
                HostActor, msgspec.structs.replace(self._config, name=name), name=f"perdure-{name}",
                namespace=self._config.namespace, get_if_exists=True, lifetime="detached",
                max_concurrency=16, **_on(nodes[number % len(nodes)]),
                # We start it again: Ray would at once, and so take the CPU from who takes over.
                max_restarts=0,
            )  # fmt: skip
            self._see(name)
        serve = dict(zip(self._actors, await asyncio.gather(*map(_serves, self._actors.values())), strict=True))
        for name in sorted(serve, key=_number, reverse=True):
            if _number(name) >= count and serve[name] == "" and list(serve.values()).count("") > 1:
                ray.kill(self._actors.pop(name), no_restart=True)
                del serve[name]
        return [host for host in serve.values() if host is not None]

    def _see(self, name: str) -> None:
        """Have it noticed when a process ends."""
        if name not in self._watching or self._watching[name].done():
            self._watching[name] = asyncio.create_task(self._notice(self._actors[name]), name=f"perdure-see-{name}")

    async def _notice(self, actor: "ActorHandle[HostActor]") -> None:
        with contextlib.suppress(RayActorError):
            while True:
                await _answer(actor.live.remote(_LIVE_SECONDS))
        self.lost.set()

    async def end(self, drain: float) -> None:
        """See Processes."""
        self._find_surplus(0)
        await stop(*self._watching.values())
        draining = [asyncio.ensure_future(_drained(actor, drain)) for actor in self._actors.values()]
        await asyncio.gather(*draining)
        for actor in [*self._actors.values(), *self._found(NAME)]:
            ray.kill(actor, no_restart=True)

    def _found(self, name: str) -> "list[ActorHandle[Any]]":
        try:
            return [ray.get_actor(f"perdure-{name}", self._config.namespace)]
        except ValueError:
            return []

    def _project(self) -> None:
        """See to it that the read models are kept: by one process a store."""
        self._projecting = spawn(
            ProjectionActor, msgspec.structs.replace(self._config, name=NAME), name=f"perdure-{NAME}",
            namespace=self._config.namespace, get_if_exists=True, lifetime="detached", max_restarts=-1,
            # Where the supervisor is: a SQLite file is read by those who brought the cluster up.
            **_on(ray.get_runtime_context().get_node_id()),
        )  # fmt: skip

    def _find_surplus(self, count: int) -> None:
        """Find the processes that a supervisor before this one started; a handle keeps each one's name."""
        for actor in ray.util.list_named_actors(all_namespaces=True):
            name = actor["name"].removeprefix("perdure-")
            ours = actor["namespace"] == self._config.namespace and name.startswith("host")
            if ours and name not in self._actors and _number(name) >= count:
                with contextlib.suppress(ValueError):  # it is gone already
                    self._actors[name] = ray.get_actor(actor["name"], self._config.namespace)


def _nodes() -> list[str]:
    """Return the ids of the nodes that are alive, always in the same order."""
    found = ray.nodes()  # type: ignore[no-untyped-call]
    return sorted(node["NodeID"] for node in found if node["Alive"])


def _on(node: str) -> dict[str, Any]:
    """Return Ray's options for an actor that prefers a node: so that not all processes are lost together.

    An actor that takes nothing at all is placed at random, whatever it prefers; so it takes a byte.
    """
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True), "memory": 1}


async def _serves(actor: "ActorHandle[HostActor]") -> str | None:
    try:
        serves: str | None = await asyncio.wait_for(_answer(actor.serves.remote()), _ANSWER_SECONDS)
    except (RayActorError, TimeoutError):  # it is being started again
        return None
    return serves


async def _drained(actor: "ActorHandle[HostActor]", seconds: float) -> None:
    try:
        await asyncio.wait_for(_answer(actor.drain.remote(seconds)), seconds + _ANSWER_SECONDS)
    except (RayActorError, TimeoutError) as error:
        _log.warning("a host was not drained: %s", error or type(error).__name__)


async def _answer(reference: Any) -> Any:
    return await reference


def _number(name: str) -> int:
    return int(name.removeprefix("host"))
