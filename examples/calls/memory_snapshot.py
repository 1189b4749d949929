"""What takes long to load is loaded once on a node; containers begin as copies of it.

squall run examples/calls/memory_snapshot.py
"""

import squall

app = squall.App("memory-snapshot")


@app.cls(enable_memory_snapshot=True)
class Squares:
    @squall.enter(snap=True)
    def load(self):
        # Before the snapshot: imports, models, tables. No threads, no open connections.
        self.table = [number * number for number in range(100_000)]

    @squall.enter()
    def connect(self):
        # In each container: what cannot be copied, such as connections, and what must differ.
        self.was_loaded = bool(self.table)

    @squall.method()
    def of(self, number: int) -> tuple[int, bool]:
        return self.table[number], self.was_loaded


@app.local_entrypoint()
def main():
    square, was_loaded = Squares().of.remote(12)
    assert square == 144
    print(f"loaded before the hook of each container: {was_loaded}")
