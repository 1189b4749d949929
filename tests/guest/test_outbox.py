"""Outputs leave as the record that the server reads."""

from __future__ import annotations

from squall.guest.outbox import Outbox
from squall.protocol.call import FAILED, IN_BLOB, SUCCEEDED, OutputBatch
from squall.protocol.codec import JsonCodec
from squall.protocol.frames import FrameDecoder

CALL = "fc-0VbtttttRRRRRRRRRRRRRR"


class Wire:
    """A link that keeps what is sent, or has none to send over."""

    def __init__(self) -> None:
        self.sent = b""
        self.is_connected = True

    def send_bytes(self, data: bytes) -> bool:
        """As `Link`."""
        if self.is_connected:
            self.sent += data
        return self.is_connected

    def batches(self) -> list[tuple[OutputBatch, bytes]]:
        """What was sent, decoded."""
        codec = JsonCodec()
        return [
            (codec.record(OutputBatch, codec.decode(frame.header).params), frame.body)
            for frame in FrameDecoder().feed(self.sent)
        ]


def test_outputs_of_a_call_leave_as_one_batch() -> None:
    link = Wire()
    outbox = Outbox(link)  # type: ignore[arg-type]

    outbox.add(CALL, 0, 0, SUCCEEDED, b"first", 12)
    outbox.add(CALL, 7, 2, FAILED, b"no", 5)
    outbox.add(CALL, 8, 0, SUCCEEDED, b"", 40, "ab12")
    outbox.flush()

    ((batch, body),) = link.batches()
    assert batch == OutputBatch(
        CALL, (0, 7, 8), (SUCCEEDED, FAILED, SUCCEEDED), (5, 2, IN_BLOB), (0, 2, 0), (12, 5, 40), {"8": "ab12"}
    )
    assert body == b"firstno"


def test_what_could_not_be_sent_is_sent_over_the_next_connection_first() -> None:
    link = Wire()
    outbox = Outbox(link)  # type: ignore[arg-type]
    link.is_connected = False
    outbox.add(CALL, 0, 0, SUCCEEDED, b"a", 1)
    outbox.flush()

    link.is_connected = True
    outbox.add(CALL, 1, 0, SUCCEEDED, b"b", 1)
    outbox.flush()

    assert [batch.indexes for batch, _ in link.batches()] == [(0,), (1,)]
