"""Makes calls of every kind, whatever happens to the server: `chaos_calls.py CALLS SEED` prints one JSON object.

It makes so many, and more of each kind until its standard input ends.

Each output says which input it is of, and carries a token that its run has made up: two outputs of one input differ.
A call is *lost* when its output does not come, is a failure or is another input's; it is *duplicated* when an output
comes twice, or a durable call says two different things when it is asked twice. Generators that have yielded are not
begun again when their container dies: the program does what the error says, and calls again (`repeated`).
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import squall

app = squall.App("chaos")
deployed = squall.App("chaos-deployed")
"""Another app, whose function is called by name."""

ITEMS = 5
MAP_INPUTS = 250
SPAWNED_AT_ONCE = 40
REMOTE_THREADS = 4
GENERATOR_THREADS = 2
BY_NAME_THREADS = 2
RESULT_S = 300.0
REASONS_MAX = 20

Value = tuple[int, str]


def work(number: int, pause_s: float) -> Value:
    """The number and a token of this run."""
    time.sleep(pause_s)
    return number, os.urandom(8).hex()


@app.function(max_containers=3)
def soon(number: int, pause_s: float = 0.0) -> Value:
    """Short."""
    return work(number, pause_s)


@app.function(max_containers=2, retries=2)
async def later(number: int, pause_s: float = 0.0) -> Value:
    """Another pool, with retries and async code."""
    return work(number, pause_s)


@app.function(max_containers=2)
def several(number: int, pause_s: float = 0.0) -> Iterator[Value]:
    """A few items."""
    for item in range(ITEMS):
        yield work(number * ITEMS + item, pause_s)


@app.function(max_containers=2, enable_memory_snapshot=True, single_use_containers=True)
def forked(number: int, pause_s: float = 0.0) -> Value:
    """Each in another container, a fork wherever there is a template."""
    return work(number, pause_s)


@deployed.function(max_containers=2)
def by_name(number: int, pause_s: float = 0.0) -> Value:
    """As `soon`, of another app."""
    return work(number, pause_s)


class Account:
    """What became of every call; filled by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.reasons: list[str] = []

    def add(self, what: str, count: int = 1) -> None:
        """So many more of a kind."""
        with self._lock:
            self.counts[what] += count

    def lose(self, why: str) -> None:
        """An output that should have come."""
        with self._lock:
            self.counts["lost"] += 1
            if len(self.reasons) < REASONS_MAX:
                self.reasons.append(why[:300])

    def check(self, number: int, value: object, what: str) -> None:
        """An output of that input."""
        self.add("calls")
        if not (isinstance(value, tuple) and len(value) == 2 and value[0] == number):
            self.lose(f"{what} {number}: {value!r}")


class Caller:
    """Makes a share of the calls, in an order and at a speed that its own seed decides."""

    def __init__(self, account: Account, seed: str) -> None:
        self.account = account
        self.rng = random.Random(seed)

    def pause_s(self) -> float:
        """Mostly none, so that inputs are handed out many at a time; some are in the middle when something dies."""
        return self.rng.choice((0.0, 0.0, 0.0, 0.001, 0.01, 0.1))

    def remote(self, function: Callable[..., Value], count: int, what: str) -> None:
        """One call after the other."""
        for number in range(count):
            try:
                value: object = function(number, self.pause_s())
            except Exception as error:  # noqa: BLE001 - whatever it is, the output did not come
                value = error
            self.account.check(number, value, what)

    def maps(self, function: squall.Function[..., Value], count: int) -> None:
        """Maps, in order and not."""
        for start in range(0, count, MAP_INPUTS):
            inputs = [(number, self.pause_s()) for number in range(start, min(count, start + MAP_INPUTS))]
            is_ordered = self.rng.random() < 0.5
            got: list[object] = []
            try:
                got += function.starmap(inputs, order_outputs=is_ordered, return_exceptions=True)
            except Exception as error:  # noqa: BLE001 - as above
                got.append(error)
            numbers = Counter(value[0] if isinstance(value, tuple) else -1 for value in got)
            self.account.add("calls", len(inputs))
            self.account.add("duplicated", sum(times - 1 for number, times in numbers.items() if number >= 0))
            failed = [value for value in got if not isinstance(value, tuple)]
            for number, _ in inputs:
                if number not in numbers:
                    self.account.lose(f"map {number}: {failed[0] if failed else 'nothing'!r}")
            if is_ordered and not failed and [value[0] for value in got] != [n for n, _ in inputs]:  # type: ignore[index]
                self.account.lose("a map has its results in another order")

    def spawns(self, function: squall.Function[..., Value], count: int) -> None:
        """Durable calls, each asked twice for its result."""
        for start in range(0, count, SPAWNED_AT_ONCE):
            calls: list[tuple[int, squall.FunctionCall[Value]]] = []
            for number in range(start, min(count, start + SPAWNED_AT_ONCE)):
                try:
                    calls.append((number, function.spawn(number, self.pause_s())))
                except Exception as error:  # noqa: BLE001 - as above
                    self.account.check(number, error, "spawn")
            for number, call in calls:
                first, second = self.result(call), self.result(call)
                self.account.check(number, first, "spawned")
                if isinstance(first, tuple) and first != second:
                    self.account.add("duplicated")

    def result(self, call: squall.FunctionCall[Value]) -> object:
        """What a durable call says now."""
        try:
            return call.get(timeout=RESULT_S)
        except Exception as error:  # noqa: BLE001 - as above
            return error

    def generators(self, count: int) -> None:
        """Generators, until each has come to its end."""
        for number in range(count):
            expected = [number * ITEMS + item for item in range(ITEMS)]
            while True:
                items: list[Value] = []
                try:
                    items += several.remote_gen(number, self.pause_s())
                except (squall.exception.InternalFailure, squall.exception.RemoteError):
                    self.account.add("repeated")
                    continue
                except Exception as error:  # noqa: BLE001 - as above
                    self.account.lose(f"generator {number}: {error!r}")
                break
            self.account.add("calls")
            got = [item[0] for item in items]
            if got != expected:
                self.account.lose(f"generator {number}: {got}")


def again_and_again(share: Callable[[Caller], None], caller: Caller, is_enough: threading.Event) -> None:
    """Make a share of the calls, and as many again as long as it is not enough."""
    share(caller)
    while not is_enough.is_set():
        share(caller)


def wait_end_of_input(is_enough: threading.Event) -> None:
    """Set it when nobody wants more."""
    # Not through `sys.stdin`: its lock would be in the way of an end that comes before.
    while os.read(0, 1):
        pass
    is_enough.set()


def main(count: int, seed: int) -> int:
    """Make so many calls; 0 when each had its one output."""
    account = Account()
    started = time.monotonic()
    is_enough = threading.Event()
    threading.Thread(target=wait_end_of_input, args=(is_enough,), daemon=True).start()
    deployed.deploy()
    with app.run():
        # A handle as another program has it.
        named = squall.Function.from_name("chaos-deployed", "by_name")
        shares: list[tuple[str, Callable[[Caller], None]]] = [
            ("map", lambda caller: caller.maps(soon, count * 4 // 10)),
            ("map-retried", lambda caller: caller.maps(later, count * 15 // 100)),
            ("map-forked", lambda caller: caller.maps(forked, count // 100)),
            ("spawn", lambda caller: caller.spawns(soon, count // 10)),
            ("spawn-by-name", lambda caller: caller.spawns(named, count // 10)),
        ]
        for name, threads, share in (("remote", REMOTE_THREADS, 10), ("by-name", BY_NAME_THREADS, 10)):
            function = soon if name == "remote" else named
            each = count * share // 100 // threads
            shares += [
                (f"{name}-{one}", lambda caller, f=function, n=each: caller.remote(f.remote, n, "remote"))  # type: ignore[misc]
                for one in range(threads)
            ]
        each = count * 5 // 100 // GENERATOR_THREADS
        shares += [
            (f"generator-{one}", lambda caller, n=each: caller.generators(n))  # type: ignore[misc]
            for one in range(GENERATOR_THREADS)
        ]
        threads_ = [
            threading.Thread(
                target=again_and_again, args=(share, Caller(account, f"{seed} {name}"), is_enough), name=name
            )
            for name, share in shares
        ]
        for thread in threads_:
            thread.start()
        for thread in threads_:
            thread.join()
    counts = {name: account.counts[name] for name in ("calls", "lost", "duplicated", "repeated")}
    print(json.dumps({**counts, "calls_s": time.monotonic() - started, "reasons": account.reasons}))
    return int(bool(counts["lost"] or counts["duplicated"]))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
