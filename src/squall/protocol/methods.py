"""Every method of the wire in one table: what it takes, what it gives, who may ask whom.

The server's dispatch, the HTTP twin (`POST /api/v1/<Method>`) and the OpenAPI document are made from this table: a
method that is not here does not exist. Events (no answer) are listed too: they belong to a channel, where what they
bring about comes back as events, and so have no HTTP twin.
"""

from __future__ import annotations

from typing import Any

from squall.protocol import (
    app,
    asset,
    autoscaler,
    blob,
    call,
    container,
    deployment,
    environment,
    flight,
    function,
    guest,
    image,
    image_catalog,
    image_shell,
    image_store,
    image_transfer,
    log,
    mount,
    node,
    port,
    proxy_token,
    schedule,
    secret,
    server,
    template,
    tunnel,
    volume,
    web,
)
from squall.protocol import dict as dicts
from squall.protocol import function_window as window
from squall.protocol import queue as queues
from squall.protocol.empty import Empty
from squall.protocol.records import record

UNARY = "unary"
STREAM = "stream"
EVENT = "event"

CLIENT = "client"
AGENT = "agent"
GUEST = "guest"
SERVER = "server"


@record
class Method:
    """One method. `asked_by` asks, `asked` answers."""

    name: str
    request: type[Any]
    reply: type[Any]
    shape: str
    asked_by: str
    asked: str
    summary: str
    has_body: bool = False
    """Request or reply carry opaque bytes beside the record."""
    upload: type[Any] | None = None
    """What the asking side may send while the stream runs."""


def _table(*methods: Method) -> dict[str, Method]:
    table = {method.name: method for method in methods}
    assert len(table) == len(methods), "two methods of one name"
    return table


def _ask(name: str, request: type[Any], reply: type[Any], summary: str, *, has_body: bool = False) -> Method:
    return Method(name, request, reply, UNARY, CLIENT, SERVER, summary, has_body)


def _stream(name: str, request: type[Any], item: type[Any], summary: str, upload: type[Any] | None = None) -> Method:
    return Method(name, request, item, STREAM, CLIENT, SERVER, summary, upload is not None, upload)


def _tell(name: str, record: type[Any], by: str, to: str, summary: str, *, has_body: bool = False) -> Method:
    return Method(name, record, Empty, EVENT, by, to, summary, has_body)


_TERMINAL = (container.TerminalOutput, container.TerminalInput)

METHODS = _table(
    _ask("Hello", server.Hello, server.Welcome, "Introduce a client; the first request on a channel"),
    _ask("ServerStatus", server.ServerStatusRequest, server.ServerStatus, "How the server is"),
    _ask("ServerStop", server.ServerStop, Empty, "Stop the server"),
    _ask("AppCreate", app.AppCreate, app.AppCreated, "Make an app or take it up again"),
    _ask("AppGet", app.AppGet, app.AppInfo, "One app by id or name"),
    _ask("AppList", app.AppList, app.AppListing, "Apps, newest first"),
    _ask("AppStop", app.AppStop, app.AppStopped, "Stop an app"),
    _ask("AppPrepare", deployment.AppPrepare, deployment.AppPrepared, "Which app a deploy is of"),
    _ask("AppPublish", deployment.AppPublish, deployment.AppPublished, "Deploy a new version", has_body=True),
    _ask("AppRollback", deployment.AppRollback, deployment.AppPublished, "Deploy an earlier version again"),
    _ask("AppHistory", deployment.AppHistoryGet, deployment.AppHistory, "Versions of a deployed app, newest first"),
    _ask("EnvironmentCreate", environment.EnvironmentCreate, environment.EnvironmentInfo, "Make an environment"),
    _ask("EnvironmentGet", environment.EnvironmentGet, environment.EnvironmentInfo, "One environment"),
    _ask("EnvironmentList", environment.EnvironmentList, environment.EnvironmentListing, "All environments"),
    _ask("EnvironmentDelete", environment.EnvironmentDelete, environment.EnvironmentDeleted, "Delete an environment"),
    _ask("AssetCreate", asset.AssetCreate, asset.AssetInfo, "Make an asset"),
    _ask("AssetGet", asset.AssetGet, asset.AssetInfo, "One asset by id or name"),
    _ask("AssetList", asset.AssetList, asset.AssetListing, "Assets of a kind that have a name, newest first"),
    _ask("AssetRename", asset.AssetRename, asset.AssetInfo, "Give an asset another name"),
    _ask("AssetDelete", asset.AssetDelete, Empty, "Delete an asset and what is in it"),
    _ask("VolumeCommit", volume.VolumeCommit, volume.VolumeCommitted, "Make changes to a volume: its next version"),
    _ask("VolumeCopy", volume.VolumeCopy, volume.VolumeCommitted, "Copy paths within a volume"),
    _ask("VolumeRemove", volume.VolumeRemove, volume.VolumeCommitted, "Remove a path of a volume"),
    _ask("VolumeRollback", volume.VolumeRollback, volume.VolumeCommitted, "Make an earlier version the newest"),
    _ask("VolumeStat", volume.VolumeStat, volume.VolumeStatted, "What is at a path of a volume"),
    _ask("VolumeList", volume.VolumeList, volume.VolumeListing, "What is in a directory of a volume"),
    _ask("VolumeFlush", volume.VolumeFlush, volume.VolumeCommitted, "Commit what this container has written"),
    _ask("VolumeReload", volume.VolumeReload, volume.VolumeVersion, "Let this container see the newest version"),
    _ask("VolumeBlocksGet", volume.VolumeBlocksGet, volume.VolumeBlocks, "Where the content of a file is"),
    _ask("VolumeHistoryGet", volume.VolumeHistoryGet, volume.VolumeHistory, "Versions of a volume, newest first"),
    _ask("VolumeVersionGet", volume.VolumeVersionGet, volume.VolumeVersion, "One version, by number or time"),
    _ask("VolumeDiff", volume.VolumeDiff, volume.VolumeDifferences, "How two versions differ"),
    _ask("VolumeRetentionPut", volume.VolumeRetentionPut, volume.VolumeRetention, "Which versions of a volume stay"),
    _ask("VolumeUsageGet", volume.VolumeUsageGet, volume.VolumeUsage, "How much of the store a volume takes"),
    _ask("VolumeGc", volume.VolumeGc, volume.VolumeCollected, "Forget versions, and remove what nothing needs"),
    _ask("SecretCreate", secret.SecretCreate, secret.SecretInfo, "Make a secret"),
    _ask("SecretGet", secret.SecretGet, secret.SecretInfo, "One secret by id or name, without its values"),
    _ask("SecretList", secret.SecretList, secret.SecretListing, "Secrets that have a name, newest first"),
    _ask("SecretUpdate", secret.SecretUpdate, secret.SecretInfo, "Change what is in a secret"),
    _ask("SecretKeyRotate", secret.SecretKeyRotate, secret.SecretKeyRotated, "Encrypt all secrets anew"),
    _ask("DictPut", dicts.DictPut, dicts.DictPutDone, "Set entries of a dict", has_body=True),
    _ask("DictGet", dicts.DictGet, dicts.DictValue, "The value of a key in a dict", has_body=True),
    _ask("DictPop", dicts.DictPop, dicts.DictValue, "Take an entry out of a dict", has_body=True),
    _ask("DictContains", dicts.DictContains, dicts.DictContained, "Whether a dict has a key", has_body=True),
    _ask("DictClear", dicts.DictClear, Empty, "Take all entries out of a dict"),
    _ask("DictCountGet", dicts.DictCountGet, dicts.DictCount, "How many entries a dict has"),
    _ask("DictRead", dicts.DictRead, dicts.DictPage, "Entries of a dict, a page at a time", has_body=True),
    _ask("QueuePut", queues.QueuePut, queues.QueuePutDone, "Append items to a queue", has_body=True),
    _ask("QueueGet", queues.QueueGet, queues.QueueItems, "Take items out of a queue", has_body=True),
    _ask("QueueGiveBack", queues.QueueGiveBack, Empty, "Put back what was taken for nobody"),
    _ask("QueueRead", queues.QueueRead, queues.QueuePage, "Items of a queue, which stay there", has_body=True),
    _ask("QueueCountGet", queues.QueueCountGet, queues.QueueCount, "How much is in a queue"),
    _ask("QueueTotalsGet", queues.QueueTotalsGet, queues.QueueTotals, "How much is in each of some queues"),
    _ask("QueueClear", queues.QueueClear, Empty, "Remove the items of a queue"),
    _ask("AppTagsPut", deployment.AppTagsPut, app.AppInfo, "Replace an app's tags"),
    _ask("FunctionCreate", function.FunctionCreate, function.FunctionCreated, "Create an app's functions"),
    _ask("FunctionGet", function.FunctionGet, function.FunctionSpec, "One function by id or name"),
    _ask("FunctionList", function.FunctionList, function.FunctionListing, "Functions of an app, some at a time"),
    _ask("FunctionBind", function.FunctionBind, function.FunctionBound, "Make or find a variant of a function"),
    _ask("FunctionStats", function.FunctionStatsGet, function.FunctionStats, "How busy a function is"),
    _ask("WebAddressList", web.WebAddressList, web.WebAddressListing, "Where web functions are found, some at a time"),
    _ask("ProxyTokenCreate", proxy_token.ProxyTokenCreate, proxy_token.ProxyTokenInfo, "Keep a proxy token"),
    _ask("ProxyTokenList", proxy_token.ProxyTokenList, proxy_token.ProxyTokenListing, "Proxy tokens, newest first"),
    _ask("ProxyTokenUpdate", proxy_token.ProxyTokenUpdate, proxy_token.ProxyTokenInfo, "Rename a proxy token"),
    _ask("ProxyTokenAllow", proxy_token.ProxyTokenAllow, proxy_token.ProxyTokenInfo, "Let it open an environment"),
    _ask("ProxyTokenRevoke", proxy_token.ProxyTokenRevoke, proxy_token.ProxyTokenInfo, "Let it do so no longer"),
    _ask("ProxyTokenDelete", proxy_token.ProxyTokenDelete, Empty, "Forget a proxy token"),
    _ask("TunnelOpen", tunnel.TunnelOpen, tunnel.TunnelOpened, "Lead an address of the server to a container's port"),
    _ask("TunnelClose", tunnel.TunnelClose, Empty, "Close a tunnel"),
    _ask("AutoscalerGet", autoscaler.AutoscalerGet, autoscaler.AutoscalerSettings, "What an autoscaler goes by"),
    _ask("AutoscalerUpdate", autoscaler.AutoscalerUpdate, autoscaler.AutoscalerSettings, "Change that"),
    _ask("MountCreate", mount.MountCreate, mount.MountCreated, "Register a manifest of files"),
    _ask("BlobStat", blob.BlobStat, blob.BlobMissing, "Which blobs the store lacks"),
    _ask("BlobPut", blob.BlobPut, Empty, "Put one chunk of a blob", has_body=True),
    _ask("BlobGet", blob.BlobGet, blob.BlobChunk, "Get one chunk of a blob", has_body=True),
    _ask("CallSpawn", call.CallSpawn, call.CallSpawned, "Start a durable call", has_body=True),
    _ask("CallSpawnMany", call.SpawnBatch, Empty, "Start durable calls of one input each", has_body=True),
    _ask("CallExtend", call.CallExtend, call.CallSpawned, "Add inputs to a durable call that grows", has_body=True),
    _ask("CallRead", call.CallRead, call.OutputBatch, "Wait for outputs of a durable call, in order", has_body=True),
    _ask("CallGet", call.CallGet, call.OutputBatch, "Wait for an output of a durable call", has_body=True),
    _ask("CallGather", call.CallGather, call.OutputBatch, "Wait for outputs of durable calls", has_body=True),
    _ask("CallInfo", call.CallInfoGet, call.CallInfo, "About a call"),
    _ask("CallCancel", call.CallCancel, Empty, "Cancel a call"),
    _ask("CallList", flight.CallList, flight.CallListing, "Calls, newest first"),
    _ask("CallShow", flight.CallShow, flight.CallFlight, "What became of a call"),
    _ask("CallGraph", flight.CallGraph, flight.CallGraphed, "Which inputs called which"),
    _ask("CallInputGet", flight.CallInputGet, flight.CallInput, "The kept arguments of an input", has_body=True),
    _ask("CallReplay", flight.CallReplay, call.CallSpawned, "Run a kept input again"),
    _ask("ContainerShow", flight.ContainerShow, flight.ContainerFlight, "What became of a container"),
    _ask("FunctionWindow", window.FunctionWindowGet, window.FunctionWindow, "What a function did in a time"),
    _ask("AppWindow", window.AppWindowGet, window.AppWindow, "What an app's functions did in a time"),
    _ask("VariantList", window.VariantList, window.VariantListing, "Variants of a function"),
    _ask("ScheduleList", schedule.ScheduleList, schedule.ScheduleListing, "Schedules of deployed apps"),
    _ask("ScheduleRun", schedule.ScheduleRun, schedule.ScheduleStarted, "Run a function with a schedule now"),
    _ask("ContainerList", container.ContainerList, container.ContainerListing, "Containers, newest first"),
    _ask("ContainerStop", container.ContainerStop, Empty, "End a container"),
    _ask("TemplateList", template.TemplateList, template.TemplateListing, "Templates of all nodes"),
    _ask("TemplateDrop", template.TemplateDrop, template.TemplateDropped, "Drop templates"),
    _ask("ImageGet", image_catalog.ImageGet, image_catalog.ImageInfo, "One image by id or name"),
    _ask("ImageList", image_catalog.ImageList, image_catalog.ImageListing, "Images, the last used first"),
    _ask("ImagePublish", image_catalog.ImagePublish, image_catalog.ImageName, "Give an image a name"),
    _ask("ImageNameList", image_catalog.ImageNameList, image_catalog.ImageNameListing, "Published names"),
    _ask("ImageNameDelete", image_catalog.ImageNameDelete, Empty, "Take a name away"),
    _ask("ImageGc", image_catalog.ImageGc, image_catalog.ImageGcDone, "Remove layers that nothing needs"),
    _ask("ImageDelete", image_catalog.ImageDelete, image_catalog.ImageDeleteDone, "Remove images"),
    _stream(
        "ImageStoreGc", image_store.ImageStoreGc, image_store.StoreGcEvent, "Remove garbage from the store of layers"
    ),
    _stream("ImageBuild", image.ImageBuild, image.BuildEvent, "Build an image, or find it built"),
    _stream("ImagePush", image_transfer.ImagePush, image_transfer.TransferEvent, "Bring an image to a registry"),
    Method(
        "ImageExport",
        image_transfer.ImageExport,
        image_transfer.TransferEvent,
        STREAM,
        CLIENT,
        SERVER,
        "Read an image as one file",
        True,
    ),
    _stream("ImageLogRead", image_catalog.ImageLogRead, log.LogBatch, "What an image's steps printed"),
    _stream("LogRead", log.LogRead, log.LogBatch, "Read or follow log lines"),
    _stream("ContainerExec", container.ContainerExec, _TERMINAL[0], "Run a command in a container", _TERMINAL[1]),
    _stream("ImageShell", image_shell.ImageShell, _TERMINAL[0], "Open a shell in an image", _TERMINAL[1]),
    _stream("TerminalOffer", container.TerminalOffer, _TERMINAL[0], "Lend an app a terminal", _TERMINAL[1]),
    _tell("CallOpen", call.CallOpen, CLIENT, SERVER, "A call begins"),
    _tell("PutInputs", call.InputBatch, CLIENT, SERVER, "Inputs of a call", has_body=True),
    _tell("CallClose", call.CallClose, CLIENT, SERVER, "The client forgets the call"),
    _tell("ItemCredit", call.ItemCredit, CLIENT, SERVER, "Items of a generator were taken"),
    _tell("PutOutputs", call.OutputBatch, SERVER, CLIENT, "Outputs of a call", has_body=True),
    _tell("PutItems", call.ItemBatch, SERVER, CLIENT, "Items of a generator", has_body=True),
    _tell("CallWaits", call.CallWaits, SERVER, CLIENT, "Why a call waits"),
    Method("NodeHello", node.NodeHello, node.NodeWelcome, UNARY, AGENT, SERVER, "Introduce a node"),
    Method("MountGet", mount.MountGet, mount.MountManifest, UNARY, AGENT, SERVER, "The manifest of a mount"),
    Method("ContainerStart", node.ContainerStart, node.ContainerStarted, UNARY, SERVER, AGENT, "Start a container"),
    Method("VolumeTreeGet", volume.VolumeTreeGet, volume.VolumeTree, UNARY, AGENT, SERVER, "A whole tree, for a node"),
    Method(
        "NodeVolumesFetch",
        volume.NodeVolumesFetch,
        volume.VolumesFetched,
        STREAM,
        SERVER,
        AGENT,
        "Have versions of volumes on a node",
    ),
    Method(
        "NodeVolumeCommit",
        volume.NodeVolumeCommit,
        volume.VolumeCommitted,
        UNARY,
        SERVER,
        AGENT,
        "Commit what a container has written to a volume",
    ),
    Method(
        "NodeVolumeReload",
        volume.NodeVolumeReload,
        volume.VolumeVersion,
        UNARY,
        SERVER,
        AGENT,
        "Let a container see the newest version of a volume",
    ),
    Method("ContainerEnd", node.ContainerEnd, Empty, UNARY, SERVER, AGENT, "End a container"),
    Method(
        "NodeImageLogs",
        image_catalog.ImageLogRead,
        log.LogBatch,
        STREAM,
        SERVER,
        AGENT,
        "What an image's steps printed",
    ),
    Method(
        "NodeImageGc", image_catalog.NodeImageGc, image_catalog.NodeGc, UNARY, SERVER, AGENT, "Remove unneeded layers"
    ),
    Method(
        "NodeImageDelete",
        image_catalog.NodeImageDelete,
        image_catalog.NodeGc,
        UNARY,
        SERVER,
        AGENT,
        "Remove images of a node",
    ),
    Method(
        "NodeStoreGc",
        image_store.NodeStoreGc,
        image_store.StoreGcEvent,
        STREAM,
        SERVER,
        AGENT,
        "Remove garbage from a node's store of layers",
    ),
    Method("NodeImagesUsed", image_store.NodeImagesUsed, Empty, UNARY, SERVER, AGENT, "Say which images are needed"),
    Method("NodeImageBuild", image.ImageBuild, image.BuildEvent, STREAM, SERVER, AGENT, "Build an image on a node"),
    Method(
        "NodeImagePush",
        image_transfer.ImagePush,
        image_transfer.TransferEvent,
        STREAM,
        SERVER,
        AGENT,
        "Bring an image of a node to a registry",
    ),
    Method(
        "NodeImageExport",
        image_transfer.ImageExport,
        image_transfer.TransferEvent,
        STREAM,
        SERVER,
        AGENT,
        "Read an image of a node as one file",
        True,
    ),
    Method(
        "NodeExec",
        container.ContainerExec,
        _TERMINAL[0],
        STREAM,
        SERVER,
        AGENT,
        "Run a command in a container",
        True,
        _TERMINAL[1],
    ),
    Method(
        "NodeImageShell",
        image_shell.ImageShell,
        _TERMINAL[0],
        STREAM,
        SERVER,
        AGENT,
        "Open a shell in an image of a node",
        True,
        _TERMINAL[1],
    ),
    Method(
        "NodeTemplateList",
        template.NodeTemplateList,
        template.NodeTemplateListing,
        UNARY,
        SERVER,
        AGENT,
        "Templates of a node",
    ),
    Method(
        "NodeTemplateDrop",
        template.NodeTemplateDrop,
        template.NodeTemplateDropped,
        UNARY,
        SERVER,
        AGENT,
        "Drop templates of a node",
    ),
    Method(
        "NodeTemplatesFree",
        template.NodeTemplatesFree,
        template.NodeTemplateDropped,
        UNARY,
        SERVER,
        AGENT,
        "Drop templates of a node that runs out of memory",
    ),
    Method(
        "NodePort",
        port.NodePort,
        port.PortOutput,
        STREAM,
        SERVER,
        AGENT,
        "Connect to a port in a container",
        True,
        port.PortInput,
    ),
    _tell("ContainerExited", node.ContainerExited, AGENT, SERVER, "A container is gone"),
    _tell("Logs", log.LogBatch, AGENT, SERVER, "Log lines of a node's containers"),
    _tell("NodeImages", node.NodeImages, AGENT, SERVER, "Images that a node has"),
    _tell("NodeImagePut", node.NodeImagePut, AGENT, SERVER, "A node has put an image; the others are told"),
    _tell(
        "NodeTemplatesUnneeded",
        template.NodeTemplatesUnneeded,
        SERVER,
        AGENT,
        "An app or a function is gone or another one, and so are its templates",
    ),
    _tell("NodeReport", node.NodeReport, AGENT, SERVER, "How the node is"),
    _tell("NodeVolumesHeld", volume.NodeVolumesHeld, AGENT, SERVER, "Versions of volumes that the node needs"),
    _tell("ContainerHello", node.ContainerHello, AGENT, SERVER, "Introduces a container's channel"),
    _tell("PrintedBefore", node.PrintedBefore, AGENT, SERVER, "Which lines come before what follows"),
    _tell("GuestHello", guest.GuestHello, GUEST, AGENT, "Introduces a container's connection"),
    _tell("Boot", guest.Boot, SERVER, GUEST, "What to load"),
    _tell("BootRefused", guest.BootRefused, SERVER, GUEST, "There is nothing to load"),
    _tell("Ready", guest.Ready, GUEST, SERVER, "Inputs may come"),
    _tell("StartupFailed", guest.StartupFailed, GUEST, SERVER, "Nothing can be served here", has_body=True),
    _tell("Inputs", call.InputBatch, SERVER, GUEST, "Inputs to run", has_body=True),
    _tell("TakeBack", call.InputRefs, SERVER, GUEST, "Give back what has not begun"),
    _tell("GivenBack", call.InputRefs, GUEST, SERVER, "These had not begun and will not"),
    _tell("Holding", guest.Holding, GUEST, SERVER, "A guest that came back runs these"),
    _tell("CancelInputs", call.InputRefs, SERVER, GUEST, "Stop running these"),
    _tell("Outputs", call.OutputBatch, GUEST, SERVER, "Outputs of inputs", has_body=True),
    _tell("Items", call.ItemBatch, GUEST, SERVER, "Items of a generator", has_body=True),
    _tell("WebIn", web.WebIn, SERVER, GUEST, "More of a request", has_body=True),
    _tell("WebOut", web.WebOut, GUEST, SERVER, "Some of a response", has_body=True),
    _tell("WebCredit", web.WebCredit, SERVER, GUEST, "Bytes of a request or response were taken, either way"),
    _tell("Heartbeat", guest.Heartbeat, GUEST, SERVER, "The guest lives"),
    _tell("GuestStop", guest.GuestStop, SERVER, GUEST, "Finish and exit"),
    _tell("TerminalOpen", guest.TerminalOpen, GUEST, SERVER, "An input wants the client's terminal"),
    _tell("TerminalData", guest.TerminalData, GUEST, SERVER, "Bytes of a terminal session, either way", has_body=True),
)
