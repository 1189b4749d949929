"""How long a commit of one changed file takes in a volume of many: `FILES TIMES`."""

from __future__ import annotations

import io
import json
import sys
import time

import squall
from bench.figure import p50, percentile

FOLDER_FILES = 500


def path_of(number: int) -> str:
    """Where a file is."""
    return f"data/{number // FOLDER_FILES:04}/{number:06}.json"


def put(volume: squall.Volume, numbers: range, text: str) -> float:
    """Put files, in one version; how long that took, in seconds."""
    begin_s = time.perf_counter()
    with volume.batch_upload(force=True) as batch:
        for number in numbers:
            batch.put_file(io.BytesIO(f"{text} {number}".encode()), path_of(number))
    return time.perf_counter() - begin_s


def main() -> None:
    """Print the numbers."""
    files, times = int(sys.argv[1]), int(sys.argv[2])
    with squall.Volume.ephemeral() as volume:
        all_s = put(volume, range(files), "first")
        took_ms = []
        for number in range(times):
            which = number * 7919 % files
            took_ms.append(put(volume, range(which, which + 1), f"changed {number}") * 1e3)
    print(json.dumps({"p50_ms": p50(took_ms), "p99_ms": percentile(took_ms, 99), "all_s": all_s}))


if __name__ == "__main__":
    main()
