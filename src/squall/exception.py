"""What Squall raises in your program.

    Error
    ├── InvalidError                  the program asks for something that cannot be right
    │   ├── ConflictError             ... in the state that things are in
    │   └── WrongParameter            ... by a parameter that there is not. The builtin TypeError, too
    ├── NotFoundError                 no such app, function or call
    ├── AlreadyExistsError            there is one of that name
    ├── AuthError                     say who you are
    ├── PermissionDeniedError         known, but not allowed
    ├── ResourceExhaustedError        a limit is reached; later it may work
    ├── RequestSizeError              the request is larger than the server takes
    ├── UnimplementedError            this server, or this machine, cannot do that
    ├── VersionError                  client and server do not fit together
    ├── ConnectionError               the server cannot be reached or started
    ├── ClientClosed                  the client was closed before the answer came
    ├── ServiceError                  the server did not answer as it should; repeating may help
    │   (InternalError, DataLossError: siblings of it, and ours to mend)
    ├── ExecutionError                the function cannot be run from here, or its value cannot be read here
    ├── InternalFailure               the platform lost the input, after trying again
    ├── SerializationError            a value cannot be pickled
    ├── DeserializationError          a pickled value cannot be read
    ├── RemoteError                   something failed in a container that has no exception to raise here
    │   └── ImageBuildError           a step of an image failed
    ├── LogsFetchError                * log lines of the past cannot be read
    ├── SandboxFilesystemError        * a file of a sandbox cannot be read, written or listed
    │   └── SandboxFilesystem…Error   * DirectoryNotEmpty, FileTooLarge, IsADirectory, NotADirectory, NotFound,
    │                                   PathAlreadyExists, Permission
    ├── SandboxTerminatedError        * the sandbox was ended by somebody
    ├── SnapshotCreationError         * a snapshot cannot be made
    ├── WorkspaceManagementError      * members or settings of a workspace cannot be changed
    ├── TerminalMissing               `breakpoint()` or `interact()` in a container that nobody lends a terminal
    └── TimeoutError                  not ready in time (not the builtin)
        ├── ExecTimeoutError          * a command in a sandbox ran longer than its `timeout`
        ├── FunctionTimeoutError      an input ran longer than its function's `timeout`
        ├── InteractiveTimeoutError   nobody took the terminal
        ├── MountUploadTimeoutError   the files of a function were not taken in time
        ├── OutputExpiredError        the result was kept for a while, and is gone
        ├── OutputTimeoutError        `FunctionCall.get(timeout=…)`: no result yet. The builtin TimeoutError, too
        ├── SandboxTimeoutError       * the sandbox reached the end of its `timeout`, or was not ready in time
        └── VolumeUploadTimeoutError  * the files for a volume were not taken in time

    * of a later part of Squall: a program may name it today, and nothing raises it yet

An exception of the user's own function is none of these: it is raised again as what it was.
"""

from __future__ import annotations

import builtins

# Not from typing: every container imports this module.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from types import FrameType


class Error(Exception):
    """Root of everything Squall raises."""


class InvalidError(Error):
    """The program asks for something that cannot be right."""


class ConflictError(InvalidError):
    """The thing is in a state that does not allow this."""


class WrongParameter(InvalidError, TypeError):
    """It has no such parameter, or needs one that is not given. Also what Python itself would raise, for programs that
    find out in this way what there is."""


class NotFoundError(Error):
    """There is no such app, function or call."""


class AlreadyExistsError(Error):
    """There is one of that name already."""


class AuthError(Error):
    """The server does not know who is asking."""


class PermissionDeniedError(Error):
    """The server knows who is asking, and refuses."""


class ResourceExhaustedError(Error):
    """A limit or budget is used up; later it may work."""


class RequestSizeError(Error):
    """The request is larger than the server takes."""


class UnimplementedError(Error):
    """This version, or this machine, cannot do that."""


class VersionError(Error):
    """Client and server are of versions that do not fit together."""


class ConnectionError(Error):  # noqa: A001 - the name programs catch; told apart by its module
    """The server cannot be reached or started. Not the builtin of this name."""


class ClientClosed(Error):
    """The client was closed before the answer came."""


class ServiceError(Error):
    """The server could not answer now; repeating may help."""


class InternalError(Error):
    """A mistake of ours in the server; the message names the request to look for in its log."""


class DataLossError(Error):
    """Stored data is damaged or missing."""


class ExecutionError(Error):
    """The function cannot be run from here, or its value cannot be read here."""


class InternalFailure(Error):
    """The platform lost an input, after trying again by itself."""


class SerializationError(Error):
    """A value cannot be pickled."""


class DeserializationError(Error):
    """A pickled value cannot be read, mostly because a module is missing here."""


class RemoteError(Error):
    """Something failed in a container that cannot be raised here as the exception it was."""


class ImageBuildError(RemoteError):
    """A step of an image failed; its log has been shown, or is in the message."""


class LogsFetchError(Error):
    """Log lines of the past cannot be read. Nothing raises it yet: `.logs` comes in a later version."""


class SandboxFilesystemError(Error):
    """A file of a sandbox cannot be read, written or listed. Nothing raises it yet: sandboxes come later."""


class SandboxFilesystemDirectoryNotEmptyError(SandboxFilesystemError):
    """A directory of a sandbox is to be removed, and there is something in it. Nothing raises it yet."""


class SandboxFilesystemFileTooLargeError(SandboxFilesystemError):
    """A file of a sandbox is larger than can be read or written at once. Nothing raises it yet."""


class SandboxFilesystemIsADirectoryError(SandboxFilesystemError):
    """A path in a sandbox is a directory, where a file is wanted. Nothing raises it yet."""


class SandboxFilesystemNotADirectoryError(SandboxFilesystemError):
    """A path in a sandbox is no directory, where one is wanted. Nothing raises it yet."""


class SandboxFilesystemNotFoundError(SandboxFilesystemError):
    """There is nothing at a path in a sandbox. Nothing raises it yet."""


class SandboxFilesystemPathAlreadyExistsError(SandboxFilesystemError):
    """There is something already at a path in a sandbox. Nothing raises it yet."""


class SandboxFilesystemPermissionError(SandboxFilesystemError):
    """The sandbox's user may not do that at a path. Nothing raises it yet."""


class SandboxTerminatedError(Error):
    """The sandbox that is waited for was ended by somebody. Nothing raises it yet: sandboxes come later."""


class SnapshotCreationError(Error):
    """A snapshot of a sandbox cannot be made. Nothing raises it yet: snapshots come in a later version."""


class WorkspaceManagementError(Error):
    """Members or settings of a workspace cannot be changed. Nothing raises it yet: they come in a later version."""


class TerminalMissing(Error, RuntimeError):
    """No client lends the container a terminal: run the program with `squall run -i`."""


class TimeoutError(Error):  # noqa: A001 - the name programs catch; told apart by its module
    """Not ready in the time given. Not the builtin of this name."""


class FunctionTimeoutError(TimeoutError):
    """An input ran longer than its function's `timeout`."""


class InteractiveTimeoutError(TimeoutError):
    """Nobody took the terminal that a container asked for."""


class MountUploadTimeoutError(TimeoutError):
    """The files of a function were not taken in time."""


class OutputExpiredError(TimeoutError):
    """The result was kept for a while, and is gone."""


class OutputTimeoutError(TimeoutError, builtins.TimeoutError):
    """There is no result yet; the call goes on.

    Programs that poll catch it as the builtin. It alone is that: a function that ran out of its own time, or a result
    that is gone, would else be waited for as one that is to come, and taken by each `except OSError`.
    """


class ExecTimeoutError(TimeoutError):
    """A command in a sandbox ran longer than its `timeout`. Nothing raises it yet: sandboxes come later."""


class SandboxTimeoutError(TimeoutError):
    """A sandbox reached the end of its `timeout`, or was not ready in time. Nothing raises it yet."""


class VolumeUploadTimeoutError(TimeoutError):
    """The files for a volume were not taken in time. Nothing raises it yet: volumes come in a later version."""


class ModuleNotMountable(Exception):
    """A module has no file that could be shipped."""


class InputCancellation(BaseException):
    """Raised in a container, inside the user's function, when its input is cancelled.

    Not an `Exception`, so that `except Exception` does not swallow it.
    """


class AsyncUsageWarning(UserWarning):
    """A blocking method was called inside a running event loop, which stands still meanwhile."""


class DeprecationError(UserWarning):
    """A warning, despite its name: something will go away."""


class ServerWarning(UserWarning):
    """The server has something to say."""


class InternalAPIWarning(UserWarning):
    """Something not meant for programs was used."""


PREEMPTION_GRACE_S = 30.0
"""What a container that is taken away has for its last words."""


def simulate_preemption(wait_seconds: float, jitter_seconds: float = 0) -> None:
    """Try out what a function does when its machine is taken away: KeyboardInterrupt in the main thread after a wait.

    The wait is up to `jitter_seconds` longer, by chance. Whoever goes on gets another one 30 s after the first. Takes
    the process's alarm and SIGALRM; to be called from the main thread.

    Raises:
        InvalidError: no time to wait, or one of the two is negative.
    """
    if wait_seconds <= 0 or jitter_seconds < 0:
        raise InvalidError(
            f"simulate_preemption({wait_seconds!r}, {jitter_seconds!r}): wait more than 0 s, with a jitter of 0 or more"
        )
    import random  # cold start: every container imports this module
    import signal  # cold start: as above

    def preempt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, insist)
        signal.setitimer(signal.ITIMER_REAL, PREEMPTION_GRACE_S)
        raise KeyboardInterrupt("a preemption is simulated")

    def insist(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("the time after a simulated preemption is over")

    signal.signal(signal.SIGALRM, preempt)
    signal.setitimer(signal.ITIMER_REAL, wait_seconds + random.uniform(0, jitter_seconds))
