"""Programs that make bytecode of Python packages once for all images, run by an image's own Python.

A package is compiled where it lies in the shared cache, when it is fetched; installing takes the bytecode with it.
Links lose nothing. What a copy loses is the time of the source that bytecode is checked by: it is set again. So nothing
is compiled twice, and a source that somebody changes afterwards is still noticed. The first is started with `-I -S`:
where all images take from, no package can get a word in.
"""

from __future__ import annotations

IN_CACHE = """
import compileall, glob, os, sys
for about in glob.glob(sys.argv[1] + "/*.dist-info/METADATA"):
    compileall.compile_dir(os.path.dirname(os.path.dirname(os.path.realpath(about))), quiet=2, workers=0)
"""
"""Compile the packages that the directory in the first argument has links to, but for what has bytecode already."""

AFTER_INSTALL = """
import compileall, concurrent.futures, contextlib, importlib.util, os, sys, sysconfig
began_ns = os.stat(sys.argv[1]).st_ctime_ns
todo = []
for top in {os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if not name.endswith(".py") or os.lstat(path).st_ctime_ns <= began_ns:
                continue
            found = os.stat(path)
            try:
                with open(importlib.util.cache_from_source(path), "rb") as file:
                    head = file.read(16)
            except OSError:
                head = b""
            number = [int.from_bytes(head[at : at + 4], "little") for at in (4, 8, 12)]
            if head[:4] == importlib.util.MAGIC_NUMBER and number[0] == 0 and number[2] == found.st_size & 0xFFFFFFFF:
                if int(found.st_mtime) & 0xFFFFFFFF != number[1]:
                    os.utime(path, (found.st_atime, number[1]))
            else:
                with contextlib.suppress(OSError):
                    os.unlink(importlib.util.cache_from_source(path))
                todo.append(path)
if len(todo) < 100:
    for path in todo:
        compileall.compile_file(path, quiet=2)
else:
    with concurrent.futures.ProcessPoolExecutor() as pool:
        list(pool.map(compileall.compile_file, todo, [None] * len(todo), [False] * len(todo), [None] * len(todo),
                      [2] * len(todo), chunksize=32))
"""
"""Settle the bytecode of sources that were installed since the file in the first argument was written."""
