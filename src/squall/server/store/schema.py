"""The tables of the store, as statements are made from them.

A change here is a change of two more files: a numbered migration in `migrations/versions/`, and `SCHEMA_VERSION`.
tests/server/test_store_migrations.py compares what the migrations make with what is written here.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

SCHEMA_VERSION = "0025"
"""The newest migration. A database of this version is used as it is, without loading the migrations."""

_IS_UNFINISHED = "unfinished_count > 0"
_IS_IN_BLOB = "blob_sha256 <> ''"

METADATA = MetaData()

APPS = Table(
    "apps",
    METADATA,
    Column("app_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("state", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("stopped_at", Float),
    Column("tags", Text, nullable=False),
    # Of an app made inside a container: the apps above it, as JSON, and the first of them. Empty for all others.
    Column("ancestors", Text, nullable=False, server_default="[]"),
    Column("root_app_id", String, nullable=False, server_default=""),
    Column("created_by", String, nullable=False, server_default=""),
    Column("web_suffix", String, nullable=False, server_default=""),
    Index("apps_by_name", "name", "environment"),
    Index("apps_by_age", "created_at"),
    Index("apps_by_root", "root_app_id"),
)

# Besides the default, which always is.
ENVIRONMENTS = Table(
    "environments",
    METADATA,
    Column("name", String, primary_key=True),
    Column("created_at", Float, nullable=False),
)

FUNCTIONS = Table(
    "functions",
    METADATA,
    Column("function_id", String, primary_key=True),
    Column("app_id", String, ForeignKey("apps.app_id"), nullable=False),
    Column("name", String, nullable=False),
    Column("blob_sha256", String, nullable=False),
    Column("spec", Text, nullable=False),
    # Of a function that is held to a version of its app; 0 for all others.
    Column("pinned_version", Integer, nullable=False, server_default="0"),
    UniqueConstraint("app_id", "name", name="functions_by_name"),
)

# What autoscalers go by instead of what the specs of their functions say.
SCALING = Table(
    "scaling",
    METADATA,
    # Of a function or a variant, which are kept apart.
    Column("function_id", String, primary_key=True),
    Column("app_id", String, ForeignKey("apps.app_id"), nullable=False),
    Column("scaling", Text, nullable=False),
    Index("scaling_by_app", "app_id"),
)

VERSIONS = Table(
    "versions",
    METADATA,
    Column("app_id", String, ForeignKey("apps.app_id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("deployed_at", Float, nullable=False),
    Column("deploy_id", String, nullable=False),
    Column("strategy", String, nullable=False),
    Column("tag", String, nullable=False),
    Column("client_version", String, nullable=False),
    Column("deployed_by", String, nullable=False),
    # As JSON; empty where nothing is known of a repository.
    Column("git_commit", Text, nullable=False),
    Column("restored_version", Integer, nullable=False),
    Column("function_count", Integer, nullable=False),
    # What it needs, as JSON: asked for more often than the functions, which are long.
    Column("image_ids", Text, nullable=False),
    Column("mount_ids", Text, nullable=False),
    Column("blob_sha256s", Text, nullable=False),
    # The records of all its functions, as JSON, compressed.
    Column("functions", LargeBinary, nullable=False),
)

VARIANTS = Table(
    "variants",
    METADATA,
    Column("function_id", String, primary_key=True),
    # No foreign keys: a call outlives the app it was made for, and so does what it was made of.
    Column("base_id", String, nullable=False),
    Column("app_id", String, nullable=False),
    Column("parameters", Text, nullable=False),
    # As JSON; empty where it has none of its own.
    Column("options", Text, nullable=False),
    # The one it is held to; 0 for none.
    Column("version", Integer, nullable=False),
    Column("used_at", Float, nullable=False),
    Index("variants_by_app", "app_id", "version"),
    Index("variants_by_use", "used_at"),
    Index("variants_by_base", "base_id", "used_at"),
)

MOUNTS = Table(
    "mounts",
    METADATA,
    Column("mount_id", String, primary_key=True),
    Column("manifest", Text, nullable=False),
    # When it was made, or was about to be named by a function.
    Column("used_at", Float, nullable=False, server_default="0"),
)

IMAGES = Table(
    "images",
    METADATA,
    Column("image_id", String, primary_key=True),
    # No foreign key: an image outlives the app it was built for.
    Column("app_id", String, nullable=False),
    Column("spec", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("layers", Text, nullable=False),
    Column("built_at", Float, nullable=False),
    Column("used_at", Float, nullable=False),
    Index("images_by_use", "used_at"),
)

IMAGE_NAMES = Table(
    "image_names",
    METADATA,
    Column("environment", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("tag", String, primary_key=True),
    # Counts what the name has pointed to; the last one is current, unless the name was taken away.
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("image_id", String, nullable=False),
    Column("published_at", Float, nullable=False),
    Column("is_current", Boolean, nullable=False),
    Index("image_names_by_image", "image_id"),
)

CALLS = Table(
    "calls",
    METADATA,
    Column("call_id", String, primary_key=True),
    # No foreign keys from calls: a call outlives the app it was made for.
    Column("function_id", String, nullable=False),
    Column("app_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("parent_input_id", String, nullable=False),
    Column("input_count", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    # Counted here so that neither a start nor an expiry reads inputs that are long done.
    Column("unfinished_count", Integer, nullable=False),
    Column("finished_at", Float, nullable=False),
    Column("is_cancelled", Boolean, nullable=False, server_default=false()),
    Column("method", String, nullable=False, server_default=""),
    Column("is_growing", Boolean, nullable=False, server_default=false()),
    Index("calls_by_progress", "unfinished_count", "finished_at"),
    Index("calls_by_function", "function_id", "unfinished_count"),
    Index("calls_by_age", "created_at"),
)

PORTIONS = Table(
    "portions",
    METADATA,
    Column("call_id", String, ForeignKey("calls.call_id"), primary_key=True),
    Column("first_index", Integer, primary_key=True, autoincrement=False),
    Column("function_id", String, nullable=False),
    Column("made_at", Float, nullable=False),
    Column("unfinished_count", Integer, nullable=False),
    # Of each input, as JSON: its size, and the blobs of those that are in one.
    Column("sizes", Text, nullable=False),
    Column("blobs", Text, nullable=False),
    # Of all of them, end to end: a row for each would be most of what a call of many inputs costs.
    Column("value", LargeBinary, nullable=False),
    # Of what waits, page by page; nothing of what is done is in it.
    Index(
        "portions_waiting",
        "function_id",
        "made_at",
        "call_id",
        "first_index",
        sqlite_where=text(_IS_UNFINISHED),
    ),
)

OUTPUTS = Table(
    "outputs",
    METADATA,
    Column("call_id", String, ForeignKey("calls.call_id"), primary_key=True),
    Column("input_index", Integer, primary_key=True, autoincrement=False),
    Column("status", Integer, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("blob_sha256", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    # An Integer of PostgreSQL ends at 36 minutes.
    Column("run_us", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Column("finished_at", Float, nullable=False),
    Column("queued_at", Float, nullable=False, server_default="0"),
    Column("container_id", String, nullable=False, server_default=""),
)

FLIGHTS = Table(
    "flights",
    METADATA,
    Column("call_id", String, primary_key=True),
    Column("function_id", String, nullable=False),
    Column("app_id", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float, nullable=False),
    Column("is_failed", Boolean, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("summary", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index("flights_by_age", "finished_at"),
)

# No foreign key: what failed is kept of calls that are in no other table.
FAILED_INPUTS = Table(
    "failed_inputs",
    METADATA,
    Column("call_id", String, primary_key=True),
    Column("input_index", Integer, primary_key=True, autoincrement=False),
    Column("value", LargeBinary, nullable=False),
    Column("blob_sha256", String, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("kept_at", Float, nullable=False),
    Index("failed_inputs_by_age", "kept_at"),
)

FUNCTION_MINUTES = Table(
    "function_minutes",
    METADATA,
    Column("function_id", String, primary_key=True),
    Column("began_at", Float, primary_key=True),
    Column("detail", Text, nullable=False),
    # Of a variant, the function it is of; empty for others.
    Column("base_id", String, nullable=False, server_default=""),
    Index("function_minutes_by_age", "began_at"),
    Index("function_minutes_by_base", "base_id", "began_at"),
)

SCHEDULES = Table(
    "schedules",
    METADATA,
    # No foreign key: a deploy that takes the function away need not know of it.
    Column("function_id", String, primary_key=True),
    Column("schedule", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("began_at", Float, nullable=False),
    Column("next_at", Float),
    Column("last_at", Float),
    Column("last_call_id", String, nullable=False),
    Column("last_outcome", String, nullable=False),
    Column("skipped_count", Integer, nullable=False),
)

ASSETS = Table(
    "assets",
    METADATA,
    Column("asset_id", String, primary_key=True),
    Column("kind", String, nullable=False),
    # None of an ephemeral one: to both databases no two of these are the same.
    Column("name", String),
    Column("environment", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("owner", String, nullable=False),
    # Under which id the rows of a dict or queue are: another one after each time it was cleared.
    Column("content_id", String, nullable=False, server_default=""),
    UniqueConstraint("kind", "environment", "name", name="assets_by_name"),
    Index("assets_by_age", "kind", "environment", "created_at", "asset_id"),
    Index("assets_by_owner", "owner"),
)

# Assets that are forgotten, and contents that were cleared out of them, while something of what was in them is left.
ASSET_GARBAGE = Table(
    "asset_garbage",
    METADATA,
    Column("asset_id", String, primary_key=True),
    Column("kind", String, nullable=False),
)

VOLUME_VERSIONS = Table(
    "volume_versions",
    METADATA,
    Column("volume_id", String, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("root", String, nullable=False),
    Column("commit_id", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("cause", String, nullable=False),
    Column("created_by", String, nullable=False),
    Column("entry_count", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("put_count", BigInteger, nullable=False),
    Column("removed_count", BigInteger, nullable=False),
    UniqueConstraint("volume_id", "commit_id", name="volume_versions_by_commit"),
)

VOLUME_RETENTIONS = Table(
    "volume_retentions",
    METADATA,
    Column("volume_id", String, primary_key=True),
    Column("retention", Text, nullable=False),
)

# Directories of all versions of all volumes, by what is in them.
VOLUME_NODES = Table(
    "volume_nodes",
    METADATA,
    Column("sha256", String, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

VOLUME_NODE_BLOCKS = Table(
    "volume_node_blocks",
    METADATA,
    Column("node_sha256", String, primary_key=True),
    Column("block_sha256", String, primary_key=True),
    Index("volume_node_blocks_by_block", "block_sha256"),
)

# What is in secrets. No foreign key: of those without a name none is an asset.
SECRETS = Table(
    "secrets",
    METADATA,
    Column("secret_id", String, primary_key=True),
    # Of one without a name; empty for others.
    Column("app_id", String, nullable=False),
    Column("names", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("key_id", String, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("content_mark", String, nullable=False),
    Column("kept_at", Float, nullable=False),
    Column("last_used_at", Float),
    Index("secrets_by_content", "app_id", "content_mark"),
)

DICT_ENTRIES = Table(
    "dict_entries",
    METADATA,
    # No foreign keys to assets: what is in one that is deleted is purged some at a time.
    Column("dict_id", String, primary_key=True),
    Column("key_hash", LargeBinary, primary_key=True),
    # The request that put it.
    Column("put_id", String, nullable=False),
    Column("used_at", Float, nullable=False),
    Column("blob_sha256", String, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Index("dict_entries_by_use", "used_at"),
    Index("dict_entries_in_blobs", "blob_sha256", sqlite_where=text(_IS_IN_BLOB)),
)

# What was done to assets lately that must not be done twice, and what was taken out of them.
ASSET_ANSWERS = Table(
    "asset_answers",
    METADATA,
    Column("asset_id", String, primary_key=True),
    Column("request_id", String, primary_key=True),
    Column("answered_at", Float, nullable=False),
    Column("blob_sha256", String, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Index("asset_answers_by_age", "answered_at"),
    Index("asset_answers_in_blobs", "blob_sha256", sqlite_where=text(_IS_IN_BLOB)),
)

QUEUES = Table(
    "queues",
    METADATA,
    Column("queue_id", String, primary_key=True),
    # Counted here: nobody counts a hundred thousand rows before each new one.
    Column("partition_count", Integer, nullable=False),
)

QUEUE_PARTITIONS = Table(
    "queue_partitions",
    METADATA,
    Column("queue_id", String, primary_key=True),
    Column("partition", LargeBinary, primary_key=True),
    Column("next_number", BigInteger, nullable=False),
    Column("item_count", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("queue_partitions_by_expiry", "expires_at"),
)

QUEUE_ITEMS = Table(
    "queue_items",
    METADATA,
    Column("queue_id", String, primary_key=True),
    Column("partition", LargeBinary, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("value", LargeBinary, nullable=False),
)

# What opens web functions. `environment_ids` is a list in JSON; without one a token opens all environments.
PROXY_TOKENS = Table(
    "proxy_tokens",
    METADATA,
    Column("token_id", String, primary_key=True),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("environment_ids", Text),
    Column("last_used_at", Float),
)

SETTINGS = Table(
    "settings",
    METADATA,
    Column("name", String, primary_key=True),
    Column("value", Text, nullable=False),
)


def complete_for(url: str) -> None:
    """Add what only the database of this URL understands.

    Here and not above: SQLAlchemy loads PostgreSQL's dialect to look at an option of its indexes, a tenth of the time
    that a server on SQLite needs to start.
    """
    if not url.startswith("sqlite"):
        for index in (index for table in METADATA.tables.values() for index in table.indexes):
            where = index.dialect_kwargs.get("sqlite_where")
            if where is not None:
                index.dialect_kwargs["postgresql_where"] = where
