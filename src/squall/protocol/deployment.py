"""Deployments: apps that stay, and the versions that they go through.

A deploy is two requests. `AppPrepare` says which app it will be; images and files then come as for any app.
`AppPublish` makes all functions of the app what they are in its new version, at once. Before it is answered nobody sees
anything of the deploy, and nothing is left of one that gets no further.
"""

from __future__ import annotations

from squall.protocol.records import field, record

ROLLING = "rolling"
"""Containers of the version before finish what they run."""
RECREATE = "recreate"
"""They are ended, and what they run begins again in new ones."""
STRATEGIES = (ROLLING, RECREATE)

FUNCTIONS_MAX = 20_000
"""Of one app. Their records come in the body of `AppPublish`: a header has not the room."""


@record
class Commit:
    """What of a repository was deployed."""

    sha: str
    branch: str = ""
    is_dirty: bool = False
    """With changes that are not in the commit."""


@record
class AppPrepare:
    """Ask which app a deploy under a name is of: the one that is deployed, or one that there will be."""

    name: str
    environment: str = ""


@record
class AppPrepared:
    """The ids of its functions follow from its id and their names (`ids.function_id`)."""

    app_id: str
    version: int = 0
    """The one that is current; 0 before the first."""


@record
class AppPublish:
    """Make a new version of the app out of the functions in the body: a `FunctionCreate`, encoded as the parameters of
    an event. Repeating with the same `deploy_id` is harmless. With the id of an ephemeral app it stays one, and goes on
    with these functions (`squall serve`).

    Answered when inputs go to the new version only, and with `recreate` when the containers of the one before are gone,
    or the time for it is over. Errors: `conflict` when the app was stopped, or made by another deploy, meanwhile.
    """

    app_id: str
    name: str
    deploy_id: str
    environment: str = ""
    tag: str = ""
    strategy: str = ROLLING
    app_tags: dict[str, str] = field(default_factory=dict)
    client_version: str = ""
    deployed_by: str = ""
    commit: Commit | None = None


@record
class AppPublished:
    """The version is current."""

    app_id: str
    version: int
    url: str = ""
    """As in `AppCreated`."""
    is_unchanged: bool = False
    """It was before: nothing has changed, and no version was made."""
    left_container_count: int = 0
    """Containers of earlier versions that were to end and have not yet."""


@record
class AppRollback:
    """Publish an earlier version of a deployed app as a new one."""

    app: str
    deploy_id: str
    environment: str = ""
    version: int = 0
    """0 is the one before the current."""
    is_rollover: bool = False
    """The current version again: all its containers are replaced."""
    strategy: str = ROLLING
    client_version: str = ""
    deployed_by: str = ""


@record
class AppVersion:
    """One version as listed."""

    version: int
    deployed_at: float
    """Seconds since 1970."""
    strategy: str
    tag: str = ""
    client_version: str = ""
    deployed_by: str = ""
    commit: Commit | None = None
    restored_version: int = 0
    """The one that it repeats; 0 for one that was deployed."""
    function_count: int = 0


@record
class AppHistoryGet:
    """Ask for the versions of an app that are kept."""

    app: str
    environment: str = ""


@record
class AppHistory:
    """Newest first."""

    app_id: str
    versions: tuple[AppVersion, ...]


@record
class AppTagsPut:
    """Replace the tags of an app that lives."""

    app: str
    tags: dict[str, str]
    environment: str = ""
