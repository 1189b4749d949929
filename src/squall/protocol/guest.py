"""Between a container and the server, relayed by the agent as they are.

    guest                                server
      GuestWaiting (to the agent) ───────▶   of a fork that is not told yet who it is
      GuestHello (to the agent) ─────────▶
      ◀───────────────────────────── Boot
      Ready or StartupFailed ────────────▶
      ◀───────────────────────────── Inputs, TakeBack, CancelInputs, ItemCredit, GuestStop
      Outputs, Items, GivenBack, Heartbeat ▶
      Holding (after a reconnect) ───────▶

All are events. The agent reads the first frame only: it checks the token and opens a channel to the server. After a
broken connection the guest comes back with the same token, says what it runs (Holding) and sends the outputs it could
not deliver; it gets no second Boot but must send Ready again, after these.

A fork of a template connects before it knows who it is, and says so (GuestWaiting). One that is parked is introduced to
the server when it is told, by its agent: its Boot, and inputs if it has said that it takes some, are at the agent when
it is there. The agent tells the server then (GuestCame), and lets them pass: what has not come has been given nothing.
"""

from __future__ import annotations

from squall.protocol.call import Failure
from squall.protocol.function import Definition
from squall.protocol.records import field, record
from squall.protocol.web import WebSpec

SOCKET_DIR = "/run/squall/agent"
SOCKET_PATH = SOCKET_DIR + "/agent.sock"
LIBRARY_DIR = "/run/squall/lib"
"""Where squall (protocol, sdk, guest) and cloudpickle are mounted."""
CODE_DIR = "/root"
HEARTBEAT_S = 15.0

ROLE_GUEST = "guest"
ROLE_CLIENT = "client"
ROLE_TEMPLATE = "template"

TEMPLATE_GUEST, TEMPLATE_FUNCTION = "guest", "function"
"""How far a template goes: until the guest is loaded, or the user's function, too."""

ENV_CONTAINER_ID = "SQUALL_CONTAINER_ID"
ENV_TOKEN = "SQUALL_CONTAINER_TOKEN"
ENV_IS_REMOTE = "SQUALL_IS_REMOTE"
ENV_TEMPLATE = "SQUALL_TEMPLATE"
"""In a template only: how far it is to go."""
ENV_TEMPLATE_FD = "SQUALL_TEMPLATE_FD"
"""And its socket to the one who forks it, by number."""
ENV_TEMPLATE_DIR = "SQUALL_TEMPLATE_DIR"
"""Or, of one that is saved and restored, the directory in which it finds what is for it."""
TEMPLATE_REPORT, TEMPLATE_IDENTITY = "report.json", "identity.json"
"""There: what it says of itself, as over the socket; and who it is, once it has been restored."""


@record
class Ready:
    """The function is loaded; inputs may come."""

    credit_max: int
    """Inputs that may be handed out ahead, at most."""
    import_ms: float = 0.0
    python_version: str = ""
    enter_ms: float = 0.0
    """Of a class: how long its enter hooks have run."""


@record
class GuestHello:
    """The first frame on a container's connection."""

    token: str
    role: str
    """`guest` serves inputs; `client` is the SDK in the container, with the rights of its app; `template` wants its
    Boot and nothing else."""
    container_id: str
    version: str
    protocol_version: int
    client_id: str = ""
    pid: int = 0
    python_version: str = ""
    is_reconnect: bool = False
    ready: Ready | None = None
    """Of a fork that has nothing left to do before it takes inputs: it does not say this again."""


@record
class GuestWaiting:
    """Before the hello of a fork: it has no identity yet, and no token, but a connection."""

    ready: Ready | None = None
    """What it will say when it has one, if nothing is left that could fail before that; the agent says it in its
    place, and it does not say it again."""


@record
class Boot:
    """Everything the guest needs to load the function."""

    container_id: str
    app_id: str
    app_name: str
    function_id: str
    function_name: str
    definition: Definition
    functions: dict[str, str] = field(default_factory=dict)
    """Name to id of every function of the app, so that the module's own objects know theirs."""
    image_id: str = ""
    timeout_s: float = 300.0
    max_inputs: int = 1
    is_interactive: bool = False
    parameters: str = ""
    """Of a class, as in `FunctionSpec`."""
    is_batched: bool = False
    """Its inputs come in batches (`InputBatch.batch`) and are run as lists."""
    environment: str = ""
    """That its app is of."""
    web: WebSpec | None = None
    """As of `FunctionSpec`."""


@record
class BootRefused:
    """To a template, in place of its Boot: there is nothing to load any more, and the connection ends."""

    cause: str
    """In words for the user."""


@record
class Holding:
    """After a reconnect, before Ready: inputs of one call that the guest has begun, so that nobody else is given them.

    What it had been handed and has not begun it has forgotten: that is handed out again.
    """

    call_id: str
    indexes: tuple[int, ...]
    attempts: tuple[int, ...]
    running_s: tuple[float, ...]
    """For how long each has run."""
    method: str = ""
    """Of a class, the one that runs."""


@record
class StartupFailed:
    """The function could not be loaded, or an enter hook raised; the guest exits after this.

    The body is the user's exception, pickled, if it was one of a hook.
    """

    failure: Failure


@record
class Heartbeat:
    """The guest lives; says how many inputs it runs and how many wait in it."""

    running_inputs: int = 0
    held_inputs: int = 0


@record
class GuestStop:
    """Take no more inputs, finish what runs within `grace_s`, then exit."""

    grace_s: float = 30.0


@record
class TerminalOpen:
    """The guest asks for the client's terminal, for an input that called `breakpoint()` or `interact()`."""

    input_id: str = ""


@record
class TerminalData:
    """Bytes of a terminal session in the body, either way; or a size; or its end."""

    rows: int = 0
    columns: int = 0
    is_open: bool = False
    is_end: bool = False
    message: str = ""
    """Why there is no terminal, with `is_end`."""
