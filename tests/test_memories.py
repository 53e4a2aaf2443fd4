"""What agents remember of a session: cut to so many tokens, counted once, summed up."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from perdure.actors.memories import Record, add, recall, records_of, remembered, size_of
from perdure.actors.replies import AskedFor
from perdure.actors.transcripts import Said
from perdure.definitions.agent_parts import Memory

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Sessions:
    """A log of sessions in memory, that may keep a record twice."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, bytes]] = []

    async def read(self, session: str, upto: int | None = None) -> list[tuple[int, bytes]]:
        numbered = [(number, data) for number, (name, data) in enumerate(self.stored, 1) if name == session]
        return [each for each in numbered if upto is None or each[0] <= upto]

    async def append(self, session: str, record: bytes, key: str) -> None:
        self.stored.append((session, record))


def record(key: str, *texts: str, number: int = 0) -> Record:
    said = [Said("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(texts)]
    return Record(key, "a", NOW, said, number=number)


def test_the_end_of_what_was_said_is_remembered_as_far_as_it_fits() -> None:
    records = [record(str(number), f"ask {number}", f"answer {number}") for number in range(9)]
    assert [each.text for each in remembered(records, 30)] == ["ask 7", "answer 7", "ask 8", "answer 8"]
    assert remembered(records, 3) == []


def test_of_a_record_that_is_too_long_the_question_and_the_answer_are_remembered() -> None:
    calls = [Said("assistant", "", [AskedFor("1", "look", "{}")]), Said("tool", "x" * 1000, call="1")]
    long = Record("1", "a", NOW, [Said("user", "ask"), *calls, Said("assistant", "answer")])
    assert [each.text for each in remembered([long], 20)] == ["ask", "answer"]
    assert len(remembered([long], 1000)) == 4


@given(st.lists(st.lists(st.text(max_size=40), min_size=1, max_size=4), max_size=6), st.integers(0, 60))
def test_what_is_remembered_fits_and_is_the_end_of_what_was_said(texts: list[list[str]], tokens: int) -> None:
    records = [record(str(number), *each) for number, each in enumerate(texts)]
    said = remembered(records, tokens)
    assert size_of(said) <= tokens
    if records and size_of(records[-1].said) <= tokens:
        assert said[-len(records[-1].said) :] == records[-1].said


async def test_a_record_that_was_added_twice_counts_once_and_others_are_told_apart() -> None:
    log = Sessions()
    for name, each in (("s", record("1", "one")), ("s", record("1", "one")), ("t", record("2", "two"))):
        await add(log, name, each)
    assert [each.said[0].text for each in await records_of(log, "s")] == ["one"]
    assert await recall(log, "t", "a", Memory(), "k", None) == {"upto": 3, "said": 1}


async def test_a_summary_stands_for_what_came_before_it_and_not_for_what_comes_after() -> None:
    log = Sessions()
    asked: list[str] = []

    async def summarise(text: str) -> str:
        asked.append(text)
        return "short"

    for number in range(4):
        await add(log, "s", record(str(number), f"ask {number}", "word " * 20))
    assert await recall(log, "s", "a", Memory(tokens=40), "k", summarise) == {"upto": 5, "said": 1}
    await add(log, "s", record("later", "more", "yes"))
    texts = [said.text for each in await records_of(log, "s") for said in each.said]
    assert texts == ["Summary of what was said before: short", "more", "yes"]
    assert await recall(log, "s", "a", Memory(tokens=40), "k2", summarise) == {"upto": 6, "said": 3}
    assert len(asked) == 1
    assert asked[0].startswith("user: ask 0\nassistant: word")


async def test_a_summary_that_is_too_long_is_cut_to_what_the_agent_may_remember() -> None:
    log = Sessions()

    async def summarise(text: str) -> str:
        return "long " * 1000

    await add(log, "s", record("1", "ask", "word " * 100))
    for _ in range(2):  # a summary that fits is not summed up again
        await recall(log, "s", "a", Memory(tokens=40), "k", summarise)
    records = await records_of(log, "s")
    assert [each.text[:40] for each in remembered(records, 40)] == ["Summary of what was said before: long lo"]
    assert len(log.stored) == 2
