"""The sink on Kafka, with the package aiokafka (`perdure[kafka]`)."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from perdure.errors import SinkUnavailable
from perdure.events.cloud_events import CONTENT_TYPE, Message


class KafkaSink:
    """Sends to one topic; the key is the execution, so that its events stay in order within a partition.

    options: of AIOKafkaProducer, such as bootstrap_servers, security_protocol, ssl_context. Every in-sync replica has
    an event before it counts as taken, unless they say otherwise.
    """

    def __init__(self, topic: str, **options: Any) -> None:
        self._topic = topic
        self._options: dict[str, Any] = {"acks": "all", **options}
        self._producer: Any = None

    async def put(self, messages: Sequence[Message]) -> None:
        """See EventSink."""
        try:
            producer = await self._started()
            sending = [
                await producer.send(
                    self._topic, message.body, key=message.execution.encode(),
                    headers=[("ce_id", message.id.encode()), ("content-type", CONTENT_TYPE.encode())],
                )
                for message in messages
            ]  # fmt: skip
            await asyncio.gather(*sending)
        except (KafkaError, OSError) as error:
            await self.close()
            raise SinkUnavailable(f"Kafka's topic {self._topic!r} did not take events: {error!r}") from error

    async def close(self) -> None:
        """See EventSink."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _started(self) -> Any:
        if self._producer is None:
            producer = AIOKafkaProducer(**self._options)
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer
