"""Which calls a gathering asks about."""

from __future__ import annotations

from typing import Any

from squall.sdk._durable import GATHER_MAX, _Question
from squall.sdk._pending import Pending


class Silent:
    """A client whose server has no outputs yet."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def ask(self, method: str, record: Any) -> Pending[Any]:
        self.asked.append(record.call_ids)
        answer: Pending[Any] = Pending()
        answer.set(({"sizes": (), "statuses": (), "indexes": ()}, b""))
        return answer


def test_calls_behind_a_thousand_that_wait_are_asked_about_too() -> None:
    client = Silent()
    question = _Question(client)  # type: ignore[arg-type]
    question.waiting = {f"fc-{number}": [number] for number in range(GATHER_MAX + 500)}

    for _ in range(2):
        question.ask(lambda _: None)
        assert question.take() == []

    assert client.asked[1][0] == f"fc-{GATHER_MAX}"
    assert set(client.asked[0] + client.asked[1]) == question.waiting.keys()
