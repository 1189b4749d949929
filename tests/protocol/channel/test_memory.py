"""What only a channel inside one process has to care for."""

from __future__ import annotations

from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.frames import Frame
from tests.protocol.channel_pairs import Kept


async def test_a_receiver_in_memory_is_not_called_again_before_it_returns() -> None:
    ours, theirs = MemoryChannel.pair()
    depths: list[int] = []

    class Answering(Kept):
        depth = 0

        def frames_received(self, frames: list[Frame]) -> None:
            self.depth += 1
            depths.append(self.depth)
            super().frames_received(frames)
            if len(self.frames) < 3:
                theirs.send_now([Frame(b"{}", b"again")])
            self.depth -= 1

    class Echoing(Kept):
        def frames_received(self, frames: list[Frame]) -> None:
            ours.send_now(frames)

    receiver = Answering()
    theirs.start(receiver)
    ours.start(Echoing())

    ours.send_now([Frame(b"{}", b"first")])

    await receiver.wait(lambda kept: len(kept.frames) == 3)
    assert depths == [1, 1, 1]
