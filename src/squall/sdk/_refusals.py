"""Errors that a server answers, as exceptions of `squall.exception`."""

from __future__ import annotations

from squall import exception
from squall.protocol.errors import PlatformError

_BY_CODE: dict[str, type[exception.Error]] = {
    "invalid": exception.InvalidError,
    "not_found": exception.NotFoundError,
    "expired": exception.OutputExpiredError,
    "exists": exception.AlreadyExistsError,
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
    "AppList": "cannot list apps",
    "AppPrepare": "cannot deploy the app",
    "AppPublish": "cannot deploy the app",
    "AppRollback": "cannot go back",
    "AppStop": "cannot stop the app",
    "AppTagsPut": "cannot change the tags",
    "AppWindow": "cannot tell what the app did",
    "AutoscalerGet": "cannot find the autoscaler",
    "AutoscalerUpdate": "cannot change the autoscaler",
    "BlobGet": "cannot fetch a value",
    "BlobPut": "cannot send a value",
    "BlobStat": "cannot send a value",
    "CallCancel": "cannot cancel the call",
    "CallClose": "cannot end the call",
    "CallExtend": "cannot add inputs to the call",
    "CallGather": "cannot get the calls' outputs",
    "CallGet": "cannot get the call's outputs",
    "CallGraph": "cannot find the call",
    "CallInfo": "cannot find the call",
    "CallInputGet": "cannot fetch the input",
    "CallList": "cannot list calls",
    "CallOpen": "cannot call the function",
    "CallRead": "cannot get the call's outputs",
    "CallReplay": "cannot run the input again",
    "CallShow": "cannot find the call",
    "CallSpawn": "cannot spawn the call",
    "CallSpawnMany": "cannot spawn the call",
    "ContainerExec": "cannot run the command",
    "ContainerList": "cannot list containers",
    "ContainerShow": "cannot find the container",
    "ContainerStart": "cannot start a container",
    "ContainerStop": "cannot stop the container",
    "EnvironmentCreate": "cannot create the environment",
    "EnvironmentDelete": "cannot delete the environment",
    "EnvironmentGet": "cannot find the environment",
    "EnvironmentList": "cannot list environments",
    "FunctionBind": "cannot find the function with these options or parameters",
    "FunctionCreate": "cannot create the function",
    "FunctionGet": "cannot find the function",
    "FunctionList": "cannot list functions",
    "FunctionStats": "cannot find the function",
    "FunctionWindow": "cannot tell what the function did",
    "Hello": "cannot connect",
    "ImageBuild": "cannot build the image",
    "ImageDelete": "cannot remove images",
    "ImageExport": "cannot export the image",
    "ImageGc": "cannot remove images",
    "ImageGet": "cannot find the image",
    "ImageList": "cannot list images",
    "ImageLogRead": "cannot read the build log",
    "ImageNameDelete": "cannot delete the name",
    "ImageNameList": "cannot list names of images",
    "ImagePublish": "cannot publish the image",
    "ImagePush": "cannot push the image",
    "ImageShell": "cannot open the shell",
    "ImageStoreGc": "cannot remove images",
    "ItemCredit": "cannot go on with the generator",
    "LogRead": "cannot read the logs",
    "MountCreate": "cannot send the files",
    "NodeExec": "cannot run the command",
    "NodeImageBuild": "cannot build the image",
    "PutInputs": "cannot send the inputs",
    "ScheduleList": "cannot list schedules",
    "ScheduleRun": "cannot run the function",
    "ServerStatus": "cannot ask the server how it is",
    "ServerStop": "cannot stop the server",
    "TemplateDrop": "cannot drop templates",
    "TemplateList": "cannot list templates",
    "TerminalOffer": "cannot lend the terminal",
    "VariantList": "cannot list variants",
}
"""What people asked for, who know no methods."""


def translate(error: PlatformError) -> exception.Error:
    """The exception of `squall.exception` that an error of the wire is raised as."""
    return _BY_CODE.get(error.code, exception.ServiceError)(in_words(error.message))


def in_words(message: str) -> str:
    """A message whose operation is a method of the wire, for people."""
    method, colon, rest = message.partition(": ")
    return f"{_IN_WORDS.get(method, method)}{colon}{rest}"
