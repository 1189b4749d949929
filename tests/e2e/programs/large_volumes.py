"""Much in a volume: very many files, a very large one, and names that are no text."""

import os

import squall

app = squall.App("large-volumes")
kept = squall.Volume.from_name("large", create_if_missing=True)
AT = b"/kept/many"
NAMES = (b"caf\xe9", b"\xff\xfe", b"new\nline", "ä".encode())
SIZE = 20 * 10**9
PLACES = (0, SIZE // 2 + 5, SIZE - 4)
PER_DIRECTORY = 1_000


@app.function(volumes={"/kept": kept}, timeout=600)
def write_many(count: int) -> None:
    for first in range(0, count, PER_DIRECTORY):
        directory = b"%s/%d" % (AT, first)
        os.makedirs(directory)
        for number in range(first, first + PER_DIRECTORY):
            with open(b"%s/%d" % (directory, number), "wb") as file:
                file.write(b"%d" % number)
    kept.commit()


@app.function(volumes={"/kept": kept}, timeout=600, startup_timeout=600)
def read_many() -> tuple[int, int]:
    """How many there are, and what is in them together."""
    found = [os.path.join(directory, name) for directory, _, names in os.walk(AT) for name in names]
    total = 0
    for path in found:
        with open(path, "rb") as file:
            total += int(file.read())
    return len(found), total


@app.function(volumes={"/kept": kept}, timeout=600)
def write_sparse() -> None:
    with open("/kept/sparse", "wb") as file:
        file.truncate(SIZE)
        for place in PLACES:
            file.seek(place)
            file.write(b"data")
    kept.commit()


@app.function(volumes={"/kept": kept}, timeout=600, startup_timeout=600)
def read_sparse() -> tuple[int, list[bytes], bytes]:
    with open("/kept/sparse", "rb") as file:
        found = []
        for place in PLACES:
            file.seek(place)
            found.append(file.read(4))
        file.seek(SIZE // 3)
        return os.stat("/kept/sparse").st_size, found, file.read(4)


@app.function(volumes={"/kept": kept})
def write_names() -> None:
    os.mkdir(b"/kept/names")
    for name in NAMES:
        with open(b"/kept/names/" + name, "wb") as file:
            file.write(name)
        os.symlink(name, b"/kept/names/to-" + name)
    kept.commit()
    os.rename(b"/kept/names/caf\xe9", b"/kept/names/th\xe9")
    kept.commit()


@app.function(volumes={"/kept": kept})
def read_names() -> dict[bytes, bytes]:
    found = {}
    for name in os.listdir(b"/kept/names"):
        path = b"/kept/names/" + name
        if os.path.islink(path):
            found[name] = os.readlink(path)
        else:
            with open(path, "rb") as file:
                found[name] = file.read()
    return found


@app.local_entrypoint()
def many(count: int) -> None:
    write_many.remote(count)
    print("many", *read_many.remote())


@app.local_entrypoint()
def sparse() -> None:
    write_sparse.remote()
    print("sparse", *read_sparse.remote())


@app.local_entrypoint()
def names() -> None:
    write_names.remote()
    expected = {name: name for name in NAMES[1:]} | {b"to-" + name: name for name in NAMES} | {b"th\xe9": b"caf\xe9"}
    print("names", read_names.remote() == expected)
    listed = {os.fsencode(entry.path) for entry in kept.listdir("names")}
    print("listed", listed == {b"names/" + name for name in expected})
    print("read", b"".join(kept.read_file(os.fsdecode(b"names/th\xe9"))))
