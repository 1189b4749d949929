"""Errors that a server answers, as exceptions of `squall.exception`."""

from __future__ import annotations

from squall import exception
from squall.protocol.errors import PlatformError

_BY_CODE: dict[str, type[exception.Error]] = {
    "invalid": exception.InvalidError,
    "not_found": exception.NotFoundError,
    "expired": exception.OutputExpiredError,
    "conflict": exception.ConflictError,
    "unauthenticated": exception.AuthError,
    "forbidden": exception.PermissionDeniedError,
    "exhausted": exception.ResourceExhaustedError,
    "timed_out": exception.ServiceError,
    "unavailable": exception.ServiceError,
    "unsupported": exception.UnimplementedError,
    "internal": exception.InternalError,
}

_IN_WORDS = {
    "AppCreate": "cannot run the app",
    "AppGet": "cannot find the app",
    "AppHistory": "cannot find the app",
    "AppPrepare": "cannot deploy the app",
    "AppPublish": "cannot deploy the app",
    "AppRollback": "cannot go back",
    "AppStop": "cannot stop the app",
    "AppTagsPut": "cannot change the tags",
    "BlobGet": "cannot fetch a value",
    "BlobPut": "cannot send a value",
    "CallCancel": "cannot cancel the call",
    "CallGet": "cannot get the call's outputs",
    "CallExtend": "cannot add inputs to the call",
    "CallInfo": "cannot find the call",
    "CallRead": "cannot get the call's outputs",
    "CallSpawn": "cannot spawn the call",
    "CallSpawnMany": "cannot spawn the call",
    "ContainerExec": "cannot run the command",
    "ContainerList": "cannot list containers",
    "ContainerStop": "cannot stop the container",
    "FunctionCreate": "cannot create the function",
    "FunctionGet": "cannot find the function",
    "FunctionStats": "cannot find the function",
    "ImageBuild": "cannot build the image",
    "ImageDelete": "cannot remove images",
    "ImageGc": "cannot remove images",
    "ImageGet": "cannot find the image",
    "ImageLogRead": "cannot read the build log",
    "ImageNameDelete": "cannot delete the name",
    "ImagePublish": "cannot publish the image",
    "ImageShell": "cannot open the shell",
    "ImageStoreGc": "cannot remove images",
    "LogRead": "cannot read the logs",
    "MountCreate": "cannot send the files",
    "ScheduleList": "cannot list schedules",
    "ScheduleRun": "cannot run the function",
    "ServerStop": "cannot stop the server",
    "TerminalOffer": "cannot lend the terminal",
}
"""What people asked for, who know no methods."""


def translate(error: PlatformError) -> exception.Error:
    """The exception of `squall.exception` that an error of the wire is raised as."""
    return _BY_CODE.get(error.code, exception.ServiceError)(_in_words(error.message))


def _in_words(message: str) -> str:
    method, colon, rest = message.partition(": ")
    return f"{_IN_WORDS.get(method, method)}{colon}{rest}"
