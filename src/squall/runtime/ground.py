"""What a container stands on before anything of it runs: a record of it, its layers, its cgroup, its ids."""

from __future__ import annotations

import os

from squall.runtime.cgroup import Cgroup, CgroupTree
from squall.runtime.container import DEVICES
from squall.runtime.errors import RuntimeFailure
from squall.runtime.id_ranges import UserNamespaces
from squall.runtime.layer_mounts import LayerMounts
from squall.runtime.records import Record, Records, check_name
from squall.runtime.spec import ContainerSpec, Limits
from squall.runtime.volumes import VolumeUsers


class Ground:
    """Takes and leaves it for one container after the other."""

    def __init__(self, instance: str, records: Records, layer_mounts: LayerMounts, volume_users: VolumeUsers) -> None:
        self._instance = instance
        self._records = records
        self._layer_mounts = layer_mounts
        self.volume_users = volume_users
        self.user_namespaces = UserNamespaces()

    def take(self, spec: ContainerSpec, tree: CgroupTree, limits: Limits) -> tuple[Cgroup, dict[str, str]]:
        """The cgroup, and where the layers that are images are mounted. All or nothing.

        Raises:
            RuntimeFailure: the spec is not right, or something cannot be made.
        """
        _check_spec(spec)
        self._records.write(Record(spec.container_id, spec.state_dir))
        try:
            self.user_namespaces.get(spec.id_range)
            self.user_namespaces.hold(spec.container_id, spec.id_range)
            if spec.volumes:
                self.volume_users.took(spec.container_id)
            image_points = self._layer_mounts.take(spec.container_id, spec.layers)
            cgroup = tree.create(f"squall/{self._instance}/{spec.container_id}", limits, DEVICES)
        except BaseException:
            self.forget(spec.container_id)
            raise
        return cgroup, image_points

    def leave(self, spec: ContainerSpec, cgroup: Cgroup) -> None:
        """Give back what was taken for one of which nothing was made."""
        cgroup.remove()
        self.forget(spec.container_id)

    def forget(self, container_id: str) -> None:
        """Let go of all but the cgroup."""
        self.volume_users.release(container_id)
        self._layer_mounts.release(container_id)
        self.user_namespaces.let_go(container_id)
        self._records.forget(container_id)


def _check_spec(spec: ContainerSpec) -> None:
    check_name("a container id", spec.container_id)
    if not spec.argv and not spec.template_id:
        raise RuntimeFailure(f"cannot start container {spec.container_id}: argv is empty")
    if not spec.layers:
        raise RuntimeFailure(f"cannot start container {spec.container_id}: it has no layers")
    paths = [*spec.layers, spec.state_dir, spec.cwd]
    for volume in spec.volumes:
        check_name("the name of a volume", volume.name)
        paths += [path for path in (volume.target, volume.image, volume.contents, volume.writable) if path]
    paths += [path for bind in spec.binds for path in (bind.source, bind.target)]
    for path in paths:
        if not path.startswith("/"):
            raise RuntimeFailure(f"cannot start container {spec.container_id}: {path!r} is not an absolute path")
    if not os.path.isdir(spec.state_dir):
        raise RuntimeFailure(f"cannot start container {spec.container_id}: no state directory {spec.state_dir}")
