"""Where programs look for what calls about apps, functions and inputs return."""

from __future__ import annotations

from squall.sdk.types import AppInfo as AppInfo
from squall.sdk.types import AppLifecycle as AppLifecycle
from squall.sdk.types import AppState as AppState
from squall.sdk.types import AppStats as AppStats
from squall.sdk.types import CloudBucketMountInfo as CloudBucketMountInfo
from squall.sdk.types import DictInfo as DictInfo
from squall.sdk.types import FileEntry as FileEntry
from squall.sdk.types import FileEntryType as FileEntryType
from squall.sdk.types import FunctionAutoscalerSettings as FunctionAutoscalerSettings
from squall.sdk.types import FunctionCurrentStats as FunctionCurrentStats
from squall.sdk.types import FunctionInfo as FunctionInfo
from squall.sdk.types import FunctionStats as FunctionStats
from squall.sdk.types import InputInfo as InputInfo
from squall.sdk.types import InputStatus as InputStatus
from squall.sdk.types import LogEntry as LogEntry
from squall.sdk.types import ProxyTokenInfo as ProxyTokenInfo
from squall.sdk.types import QueueInfo as QueueInfo
from squall.sdk.types import SecretInfo as SecretInfo
from squall.sdk.types import ServerAutoscalerSettings as ServerAutoscalerSettings
from squall.sdk.types import ServerInfo as ServerInfo
from squall.sdk.types import ServerStats as ServerStats
from squall.sdk.types import StatsPercentile as StatsPercentile
from squall.sdk.types import StatsPercentileDistribution as StatsPercentileDistribution
from squall.sdk.types import TokenData as TokenData
from squall.sdk.types import VolumeCreateOptions as VolumeCreateOptions
from squall.sdk.types import VolumeInfo as VolumeInfo
from squall.sdk.types import VolumeMountInfo as VolumeMountInfo

__all__ = [
    "AppInfo",
    "AppLifecycle",
    "AppState",
    "AppStats",
    "CloudBucketMountInfo",
    "FileEntry",
    "FileEntryType",
    "DictInfo",
    "FunctionAutoscalerSettings",
    "FunctionCurrentStats",
    "FunctionInfo",
    "FunctionStats",
    "InputInfo",
    "InputStatus",
    "LogEntry",
    "ProxyTokenInfo",
    "QueueInfo",
    "StatsPercentile",
    "StatsPercentileDistribution",
    "SecretInfo",
    "ServerAutoscalerSettings",
    "ServerInfo",
    "ServerStats",
    "TokenData",
    "VolumeCreateOptions",
    "VolumeInfo",
    "VolumeMountInfo",
]
