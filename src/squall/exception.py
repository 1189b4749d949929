"""What Squall raises in your program.

    Error
    ├── InvalidError                  the program asks for something that cannot be right
    │   └── ConflictError             ... in the state that things are in
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
    └── TimeoutError                  not ready in time (not the builtin)
        ├── FunctionTimeoutError      an input ran longer than its function's `timeout`
        ├── InteractiveTimeoutError   nobody took the terminal
        ├── MountUploadTimeoutError   the files of a function were not taken in time
        └── OutputExpiredError        the result was kept for a while, and is gone

An exception of the user's own function is none of these: it is raised again as what it was.
"""

from __future__ import annotations


class Error(Exception):
    """Root of everything Squall raises."""


class InvalidError(Error):
    """The program asks for something that cannot be right."""


class ConflictError(InvalidError):
    """The thing is in a state that does not allow this."""


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
