"""What the server asks for as what the runtime takes: pure, so that environment and limits can be read and tested."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from squall.agent.bucket import buckets_of
from squall.agent.config import RESTORE, AgentConfig
from squall.agent.labels import FUNCTION_KIND, KIND_LABEL, TEMPLATE_KIND
from squall.agent.record import ContainerRecord
from squall.protocol.function import GVISOR, Resources
from squall.protocol.guest import (
    CODE_DIR,
    ENV_CONTAINER_ID,
    ENV_IS_REMOTE,
    ENV_TEMPLATE,
    ENV_TOKEN,
    LIBRARY_DIR,
    SOCKET_DIR,
)
from squall.protocol.image import ImageConfig
from squall.protocol.node import ContainerStart
from squall.runtime.spec import Bind, ContainerSpec, IdRange, Limits, NetworkSlot, Volume

PIDS_MAX = 4_096
DEFAULT_CPU_MILLI = 125
"""What a container weighs that asks for nothing."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Provision:
    """What has been made ready for one container."""

    runtime_id: str
    """What the runtime is to call it: the container's id, a cell's or a template's."""
    state_dir: str
    socket_dir: str
    library_dir: str
    layers: tuple[str, ...]
    """Of the image, then the user's files."""
    id_range: IdRange
    network: NetworkSlot
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a container is: what no other of its function has."""

    container_id: str
    token: str


def container_spec(
    config: AgentConfig, request: ContainerStart, image: ImageConfig, provision: Provision, identity: Identity
) -> ContainerSpec:
    """The container the server asked for, started by its program."""
    return replace(_spec(config, request, image, provision), env=environment(request, image, provision, identity))


def template_spec(
    config: AgentConfig, request: ContainerStart, image: ImageConfig, provision: Provision, identity: Identity, how: str
) -> ContainerSpec:
    """A template for containers of this kind: as one of them, but for who it is and that it waits.

    Args:
        how: how far it is to go, as `ENV_TEMPLATE` has it.
    """
    env = environment(request, image, provision, identity)
    env[ENV_TEMPLATE] = how
    labels = {KIND_LABEL: TEMPLATE_KIND, "squall.app": request.app_id, "squall.function": request.function_id}
    return replace(_spec(config, request, image, provision), env=env, labels=labels, is_template=True)


def cell_spec(
    config: AgentConfig, request: ContainerStart, image: ImageConfig, provision: Provision, template_id: str
) -> ContainerSpec:
    """What a fork of a template is to live in. It is told later who it is, by its environment."""
    return replace(_spec(config, request, image, provision), template_id=template_id)


def _spec(config: AgentConfig, request: ContainerStart, image: ImageConfig, provision: Provision) -> ContainerSpec:
    return ContainerSpec(
        container_id=provision.runtime_id,
        layers=provision.layers,
        state_dir=provision.state_dir,
        id_range=provision.id_range,
        # An entrypoint runs its arguments. -B: bytecode beside user code would be written for this one container, and
        # thrown away with it.
        argv=(*image.entrypoint, image.python_path, "-u", "-B", config.guest_entry),
        env={},
        cwd=cwd_of(image),
        hostname=provision.runtime_id[-12:].lower(),
        user=(image.uid, image.gid),
        binds=(Bind(provision.socket_dir, SOCKET_DIR), Bind(provision.library_dir, LIBRARY_DIR)),
        volumes=provision.volumes,
        buckets=buckets_of(request.buckets),
        limits=limits(config, request.resources),
        network=provision.network,
        isolation=request.isolation,
        labels={
            KIND_LABEL: FUNCTION_KIND,
            "squall.app": request.app_id,
            "squall.function": request.function_id,
        },
    )


def cwd_of(image: ImageConfig) -> str:
    """Where a container's program starts."""
    # Root's directory is root's alone in most images.
    return image.workdir or (CODE_DIR if image.uid == 0 else "/")


def environment(
    request: ContainerStart, image: ImageConfig, provision: Provision, identity: Identity
) -> dict[str, str]:
    """The image's variables, then ours, then the network's, then the function's; who the container is comes last."""
    env = {"PATH": DEFAULT_PATH, "HOME": image.home or CODE_DIR, "LANG": "C.UTF-8", **image.env}
    env.update(thread_counts(request.resources))
    env.update(provision.network.env)
    env.update(request.secrets)
    env.update(request.env)
    theirs = env.get("PYTHONPATH", "")
    env["PYTHONPATH"] = ":".join([CODE_DIR, LIBRARY_DIR, *([theirs] if theirs else [])])
    env.update(
        {
            ENV_CONTAINER_ID: identity.container_id,
            ENV_TOKEN: identity.token,
            ENV_IS_REMOTE: "1",
            "SQUALL_IMAGE_ID": request.image_id,
            "SQUALL_APP_ID": request.app_id,
            "SQUALL_FUNCTION_ID": request.function_id,
        }
    )
    return env


def record_of(
    config: AgentConfig, request: ContainerStart, container_id: str, token_sha256: str = ""
) -> ContainerRecord:
    """What is written down of a container of this kind: of one that was asked for, of a template, or of a cell whose
    container nobody knows yet (both ids are empty then)."""
    return ContainerRecord(
        container_id,
        request.app_id,
        request.function_id,
        request.image_id,
        token_sha256,
        disk_mib=request.resources.disk_mib,
        version=request.version,
        memory_limit_mib=memory_limit_mib(config, request.resources),
        memory_mib=request.resources.memory_mib or 0,
        isolation=isolation_of(config, request),
    )


def isolation_of(config: AgentConfig, request: ContainerStart) -> str:
    """What is between a container and the machine; what is to be restored, whatever it is, can only be under gVisor."""
    return GVISOR if config.start_path == RESTORE else request.isolation


def thread_counts(resources: Resources) -> Mapping[str, str]:
    """Numerical libraries start a thread for each processor of the machine; here for each one asked for."""
    asked = resources.cpu_milli if resources.cpu_milli is not None else resources.cpu_limit_milli
    if asked is None:
        return {}
    return dict.fromkeys(THREAD_COUNTS, str(max(1, math.ceil(asked / 1000))))


def limits(config: AgentConfig, resources: Resources) -> Limits:
    """Hard limits and weight of a container."""
    cpu_milli = DEFAULT_CPU_MILLI if resources.cpu_milli is None else resources.cpu_milli
    return Limits(
        cpu_milli=resources.cpu_limit_milli,
        cpu_weight=min(10_000, max(1, cpu_milli // 10)),
        memory_bytes=memory_limit_mib(config, resources) * _MIB,
        pids_max=PIDS_MAX,
    )


def memory_limit_mib(config: AgentConfig, resources: Resources) -> int:
    """What a container may use.

    Without a memory limit of its own a container gets three quarters of the node's memory (or what it reserves, if that
    is more): it may use what is free, and when it runs away the kernel ends it and not the machine.
    """
    if resources.memory_limit_mib is not None:
        return resources.memory_limit_mib
    default_mib = config.default_memory_limit_mib or config.memory_mib * 3 // 4
    return max(default_mib, resources.memory_mib or 0)
