"""A class loads once what all its calls use: the life of an instance in a container.

squall run examples/calls/classes.py
"""

import squall

app = squall.App("classes")


@app.cls(max_containers=1, scaledown_window=2)
class Counter:
    @squall.enter()
    def load(self):
        # Once in each container, before its first call: open a model, a connection, a file.
        print("enter")
        self.count = 0

    @squall.method()
    def add(self, number: int) -> int:
        self.count += number
        return self.count

    @squall.method()
    def steps(self):
        yield from range(self.count)

    @squall.method()
    def twice(self, number: int) -> int:
        # Another method of the same instance, without a detour.
        return self.add.local(number) + self.add.local(number)

    @squall.exit()
    def leave(self):
        # Once, when the container is not needed any more: 30 s to put things away.
        print(f"exit at {self.count}")


@app.local_entrypoint()
def main():
    counter = Counter()
    # All of it is run by one instance, so it adds up.
    sums = list(counter.add.map([1, 1, 1]))
    twice = counter.twice.remote(1)
    steps = len(list(counter.steps.remote_gen()))
    later = counter.add.spawn(5).get()
    here = Counter().add.local(7)
    print(f"{sorted(sums)}, {twice}, {steps} steps, {later}, and {here} here")
