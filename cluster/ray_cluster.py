"""The Ray side of a client: joins or starts Ray, and starts the host actors on it."""

import asyncio
import contextlib
import hashlib
import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from perdure.cluster.inbox import Lanes
from perdure.cluster.settings import Settings
from perdure.errors import EnvironmentProblem, PerdureError


class _Thread:
    """One daemon thread for all of Ray's calls, and for as long: Ray's servers die with the thread that started them.

    A daemon, because a start that hangs cannot be stopped and must not keep the process from ending.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="perdure-ray", daemon=True).start()

    async def call(self, function: Callable[[], None]) -> None:
        await asyncio.wrap_future(self.post(function))

    def post(self, function: Callable[[], None]) -> "Future[None]":
        done: Future[None] = Future()
        self._calls.put((done, function))
        return done

    def end(self) -> None:
        self._calls.put(None)

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            done, function = item
            if not done.set_running_or_notify_cancel():
                continue
            try:
                function()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)


class RayCluster:
    """A connection to Ray. A local Ray that it started ends with it; in a foreign one only its hosts do."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = _Thread()
        self._started = False
        self._opened = False
        self._hosts: list[Any] = []  # every handle: one that was looked up by name does not keep its actor alive

    async def open(self) -> None:
        """Join or start Ray; raises EnvironmentProblem when it does not answer within `ray_start_timeout` seconds."""
        if self._opened:
            return
        self._opened = True
        seconds = self._settings.ray_start_timeout
        try:
            await asyncio.wait_for(self._thread.call(self._init), seconds)
        except TimeoutError:
            address = self._settings.ray_address
            what = f"Ray at {address} did not answer" if address else "Ray did not start"
            mend = (
                "check RAY_ADDRESS (and RAY_AUTH_MODE=token where it asks for tokens)"
                if address
                else "see its logs under /tmp/ray"
            )
            raise EnvironmentProblem(f"{what} within {seconds:g} s; {mend}, or run without it: --local") from None
        except Exception as error:
            raise EnvironmentProblem(f"Ray did not start: {error}; or run without it: --local") from error

    @property
    def has_our_environment(self) -> bool:
        """Whether it has hosts on a Ray that was started here: its processes inherit our environment."""
        return self._started and not self._settings.ray_address and bool(self._hosts)

    async def start(self, hosts: dict[str, Lanes | None], settings: Settings) -> None:
        """Start one detached host actor per name, and wait until each serves its lanes; see hosting.Start."""
        await self.open()  # where a cluster was up at first, and nobody sees to it any more
        await self._thread.call(lambda: self._start_hosts(hosts, settings))

    async def supervise(self, settings: Settings) -> None:
        """Start the supervisor, or find it: a detached actor, which starts the hosts and outlives this process."""
        await self._thread.call(lambda: self._start_supervisor(settings))

    async def close(self) -> None:
        """Stop the hosts, and a Ray that was started here."""
        if self._opened:
            await self._thread.call(self._close)
        self._thread.end()

    def abandon(self) -> None:
        """Close as soon as an opening that is still under way is over; nobody waits for it."""
        if self._opened:
            self._thread.post(self._close)
        self._thread.end()

    def _init(self) -> None:
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        if ray.is_initialized():
            return  # the program's own; it stays when we go
        self._started = True
        options: dict[str, Any] = {
            "namespace": namespace_of(self._settings),
            "logging_level": logging.ERROR,
            "log_to_driver": False,
        }
        if self._settings.ray_address:
            ray.init(address=self._settings.ray_address, **options)
        else:
            # Never one that somebody started on this machine, which Ray joins where no address is given: its processes
            # may be elsewhere, and our embedded server is not.
            ray.init(
                address="local", include_dashboard=self._settings.ray_dashboard, configure_logging=False, **options
            )

    def _start_supervisor(self, settings: Settings) -> None:
        import ray

        from perdure.actors.spawn import spawn
        from perdure.cluster.ray_actors import HostConfig, SupervisorActor

        namespace = namespace_of(self._settings)
        supervisor = spawn(
            SupervisorActor, HostConfig("supervisor", _plain(settings), namespace, supervised=True),
            name="perdure-supervisor", namespace=namespace, get_if_exists=True, max_restarts=-1,
            **self._how("supervisor"),
        )  # fmt: skip
        ray.get(supervisor.ready.remote())

    def _start_hosts(self, hosts: dict[str, Lanes | None], settings: Settings) -> None:
        import ray

        from perdure.actors.spawn import spawn
        from perdure.cluster.ray_actors import HostActor, HostConfig

        started = []
        namespace = namespace_of(self._settings)
        for name, lanes in hosts.items():
            config = HostConfig(name, _plain(settings), namespace, lanes)
            host = spawn(
                HostActor, config, name=f"perdure-{name}", namespace=namespace,
                get_if_exists=True, max_restarts=-1, max_concurrency=16, **self._how(name),
            )  # fmt: skip
            started.append(host)
            self._hosts.append(host)
        try:
            ray.get([host.wait_open.remote() for host in started])
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, PerdureError) else error from None

    def _how(self, name: str) -> dict[str, Any]:
        """Return the options that make a host outlive its driver, unless it drives only one execution of the driver's.

        A key that the settings were given, and not the environment, goes along as the hosts' environment.
        """
        options: dict[str, Any] = {} if name.startswith("solo-") else {"lifetime": "detached"}
        key = self._settings.openai_api_key
        if key is not None and os.environ.get("OPENAI_API_KEY") != key.get_secret_value():
            options["runtime_env"] = {"env_vars": {"OPENAI_API_KEY": key.get_secret_value()}}
        return options

    def _close(self) -> None:
        import ray

        if not ray.is_initialized():
            return
        for host in self._hosts:
            with contextlib.suppress(Exception):  # it may be gone already; Ray says so in many ways
                ray.kill(host, no_restart=True)
        if self._started:
            ray.shutdown()


def _plain(settings: Settings) -> dict[str, Any]:
    """Return the settings as what a process on Ray needs of them, without secrets."""
    unset = {"secrets_dir"} if settings.secrets_dir is None else set()  # then the hosts' own environment says it
    return settings.model_dump(mode="json", exclude={"openai_api_key", *unset})


def namespace_of(settings: Settings) -> str:
    """Return the Ray namespace of a store: the same for all who use it, and nobody else's."""
    store = settings.nats_url or str(settings.store.absolute())
    return f"perdure-{hashlib.sha256(store.encode()).hexdigest()[:8]}"
