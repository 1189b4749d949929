"""What is loaded before the snapshot, and what each container does for itself.

squall run examples/cold_starts/snap_hooks.py
"""

import os
import time
import uuid

import squall

app = squall.App("cold-start-hooks")


@app.cls(enable_memory_snapshot=True, single_use_containers=True)
class Dictionary:
    @squall.enter(snap=True)
    def load(self):
        # Before the snapshot, once on a node: what takes long and is the same for all. A model, a table, an index.
        # No threads, no open connections: a copy would have neither.
        time.sleep(0.5)
        self.words = {"zwei": "two", "drei": "three"}

    @squall.enter(snap=False)
    def connect(self):
        # In each container: connections, temporary files, names. Nothing here was there before the copy was made.
        self.container = uuid.uuid4().hex
        self.place = f"/tmp/{self.container}"
        os.mkdir(self.place)

    @squall.method()
    def translate(self, word: str) -> tuple[str, str, int]:
        return self.words[word], self.container, len(os.listdir("/tmp"))


@app.local_entrypoint()
def main():
    answers = [Dictionary().translate.remote(word) for word in ("zwei", "drei", "zwei")]
    print("translated:", *(word for word, _, _ in answers))
    own = len({container for _, container, _ in answers})
    print(f"{own} containers, each with files of its own: {all(files == 1 for _, _, files in answers)}")
