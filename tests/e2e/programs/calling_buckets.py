"""Calls the functions of `bucket_user.py`, and prints what came of it."""

import json
import os

import squall

functions = {name: squall.Function.from_name("bucket-user", name) for name in ("write", "read", "misses")}
answers: dict[str, object] = {"write": functions["write"].remote("a", "one")}
answers["read"] = functions["read"].remote("in/a")
elsewhere = squall.CloudBucketMount(
    "the-bucket",
    "http://s3.us-east-1.amazonaws.com",
    key_prefix="elsewhere/",
    secret=squall.Secret.from_dict(
        {"AWS_ACCESS_KEY_ID": "variant", "AWS_SECRET_ACCESS_KEY": os.environ["PLANTED_VARIANT"]}
    ),
)
functions["write"].with_options(volumes={"/data": elsewhere}).remote("b", "two")
print("called", flush=True)
try:
    functions["misses"].remote()
except squall.Error as error:
    answers["misses"] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
