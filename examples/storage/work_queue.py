"""A queue of work that several containers take from, a dict as a cache, and a lock so that nothing is done twice.

squall run examples/storage/work_queue.py
squall queue len example-work                      # what is left, also while it runs
squall dict items example-answers
"""

import time

import squall

app = squall.App("work-queue")

work = squall.Queue.from_name("example-work", create_if_missing=True)
answers = squall.Dict.from_name("example-answers", create_if_missing=True)
locks = squall.Dict.from_name("example-locks", create_if_missing=True)


def answer(number: int) -> bool:
    """Whether this container did the work. Of many who begin with the same number at the same time, one does."""
    if not locks.put(number, squall.current_input_id(), skip_if_exists=True):
        return False
    try:
        if number in answers:
            return False
        time.sleep(0.1)  # tidy: it stands for work that takes a while
        answers[number] = number * number
        return True
    finally:
        locks.pop(number)


@app.function(max_containers=4)
def worker() -> int:  # tidy: what programs of this kind call it
    """How many pieces of work this container did, until it is told that there are no more."""
    done = 0
    while (number := work.get()) is not None:
        done += answer(number)
    return done


@app.local_entrypoint()
def main() -> None:
    answers.clear()
    work.clear()
    calls = [worker.spawn() for _ in range(4)]
    # Each number twice: the second time somebody does it already, or its answer is known.
    work.put_many([number for number in range(20) for _ in range(2)])
    work.put_many([None] * 4)
    done = [call.get() for call in calls]
    print(f"{sum(done)} pieces of work, done in {len(done)} containers")
    print("the answers:", sorted(answers.values())[:5], "and so on,", answers.len(), "in all")
