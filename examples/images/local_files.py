"""Files of this machine in a container: attached when it starts, or copied into the image so that steps see them."""

import sys
from pathlib import Path

import squall

HERE = Path(__file__).parent / "local_files"
sys.path.insert(0, str(HERE))

app = squall.App("local-files")

image = (
    squall.Image.debian_slim()
    # Part of the image: the next step reads them. A changed file builds the image anew from here.
    .add_local_dir(HERE / "words", "/srv/words", copy=True, ignore=["*.tmp", "old/"])
    .run_commands("cat /srv/words/*.txt > /srv/all.txt")
    # No part of the image: attached at every start, so a changed file builds nothing.
    .add_local_file(HERE / "words" / "notes.tmp", "/srv/notes.txt")
    .add_local_python_source("counting")
)


@app.function(image=image)
def count() -> tuple[int, list[str]]:
    from counting import count_words

    files = sorted(str(path.relative_to("/srv")) for path in Path("/srv").rglob("*") if path.is_file())
    return count_words(Path("/srv/all.txt").read_text()), files


@app.local_entrypoint()
def main() -> None:
    words, files = count.remote()
    print("counted", words, "words in", *files)
