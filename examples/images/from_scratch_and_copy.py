"""An image without a file, for what is copied into it. Neither function nor shell runs in it; others can start from it.

It is built here for its own sake, by no app, and its id names it for as long as it is kept.
"""

from pathlib import Path

import squall

HERE = Path(__file__).parent

data = squall.Image.from_scratch().add_local_dir(HERE / "local_files" / "words", "/words", copy=True)

app = squall.App("from-scratch-and-copy")


@app.local_entrypoint()
def main() -> None:
    image = data.build(app)
    again = squall.Image.from_id(image.object_id).build(app)
    print("built", image.object_id[:3], "and found it again:", image.object_id == again.object_id)
