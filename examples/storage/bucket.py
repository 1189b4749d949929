"""Reports that one function writes into a bucket and another one reads: files for functions, objects for all others.

squall secret create example-bucket AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
BUCKET=my-bucket squall run examples/storage/bucket.py
BUCKET=my-bucket BUCKET_URL=https://account.r2.cloudflarestorage.com squall run examples/storage/bucket.py
"""

import json
import os
from pathlib import Path

import squall

app = squall.App("bucket")

KEYS = squall.Secret.from_name("example-bucket", required_keys=["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
BUCKET, URL = os.environ.get("BUCKET", "example-bucket"), os.environ.get("BUCKET_URL")
REPORTS = Path("/reports")

# Of the whole bucket, containers see what is below reports/; these keys are given to none of their code.
writable = squall.CloudBucketMount(BUCKET, URL, key_prefix="reports/", secret=KEYS, force_path_style=URL is not None)
read_only = squall.CloudBucketMount(
    BUCKET, URL, key_prefix="reports/", secret=KEYS, read_only=True, force_path_style=URL is not None
)


@app.function(volumes={"/reports": writable})
def report(day: int) -> str:
    """Write one. When the file is closed, it is in the bucket."""
    path = REPORTS / f"day-{day}.json"
    path.write_text(json.dumps({"day": day, "visitors": 100 * day}))
    return path.name


@app.function(volumes={"/reports": read_only})
def total() -> int:
    """Read all that there are."""
    return sum(json.loads(path.read_text())["visitors"] for path in sorted(REPORTS.glob("*.json")))


@app.local_entrypoint()
def main() -> None:
    names = sorted(report.map(range(1, 4)))
    print(f"{', '.join(names)}: {total.remote()} visitors")
