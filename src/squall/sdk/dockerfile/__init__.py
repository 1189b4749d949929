"""Dockerfiles: from text to records, and from the sources that they copy to files of this machine.

    parse.py       a whole file, or lines of one
    lines.py       what an instruction is: directives, comments, continuations, here-documents, flags
    stage.py       the instructions of a stage; run.py and copy.py those with much to them
    scope.py       which variables there are; expansion.py fills them in, text.py is what comes of it
    context.py     the files that COPY and ADD name; tree.py looks for them, pattern.py matches names with wildcards
    records.py     what comes of it all; error.py the one exception

Nothing here asks a server or runs anything. What an image would have to be asked (its variables, its working directory,
whether a path is a directory) is left open in the records. Whatever the text, it is read or refused with a
`DockerfileError`, in bounded time and memory.
"""

from __future__ import annotations

from squall.sdk.dockerfile.context import Context, Found, ignore_of
from squall.sdk.dockerfile.error import DockerfileError
from squall.sdk.dockerfile.parse import parse, parse_lines, read_text

__all__ = ["Context", "DockerfileError", "Found", "ignore_of", "parse", "parse_lines", "read_text"]
