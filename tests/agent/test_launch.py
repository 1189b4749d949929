"""What the server asks for as what the runtime takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.agent.launch import Identity, Provision, container_spec, environment, limits, thread_counts
from squall.protocol.function import Resources
from squall.protocol.guest import ENV_CONTAINER_ID, ENV_IS_REMOTE, ENV_TOKEN, LIBRARY_DIR, SOCKET_DIR
from squall.protocol.image import ImageConfig
from squall.protocol.node import ContainerStart
from squall.protocol.records import replace
from squall.runtime.spec import GVISOR, NAMESPACES, IdRange, NetworkSlot
from tests.agent.parts import make_config

SLOT = NetworkSlot("s", "/n", "10.0.0.2/20", "10.0.0.1", "", {"https_proxy": "slot"})
PROVISION = Provision("ct-0001", "/d/ct", "/d/ct/agent", "/d/guest", ("/l1", "/files"), IdRange(0x7000_0000), SLOT)
IDENTITY = Identity("ct-0000000000000000000001", "token-1")
IMAGE = ImageConfig(env={"FROM": "image", "PATH": "/image/bin", "LANG": "C"}, python_path="/opt/python")
CONFIG = make_config(Path("/d"))


def request(**env: str) -> ContainerStart:
    return ContainerStart("ct-0000000000000000000001", "ap-1", "fu-1", "im-1", env=env)


def test_each_source_of_variables_wins_over_the_one_before() -> None:
    env = environment(request(FROM="function", https_proxy="own"), IMAGE, PROVISION, IDENTITY)

    assert (env["FROM"], env["https_proxy"], env["PATH"], env["LANG"]) == ("function", "own", "/image/bin", "C")
    assert environment(request(), IMAGE, PROVISION, IDENTITY)["https_proxy"] == "slot"
    assert environment(request(), ImageConfig(), PROVISION, IDENTITY)["LANG"] == "C.UTF-8"


def test_secrets_win_over_the_image_and_the_function_over_them() -> None:
    start = replace(request(B="function"), secrets={"FROM": "secret", "B": "secret", "C": "secret", ENV_TOKEN: "x"})

    env = environment(start, IMAGE, PROVISION, IDENTITY)

    assert (env["FROM"], env["B"], env["C"], env[ENV_TOKEN]) == ("secret", "function", "secret", "token-1")


def test_who_the_container_is_cannot_be_overridden() -> None:
    env = environment(
        request(**{ENV_TOKEN: "x", ENV_CONTAINER_ID: "x", ENV_IS_REMOTE: "0"}), IMAGE, PROVISION, IDENTITY
    )

    assert (env[ENV_TOKEN], env[ENV_CONTAINER_ID], env[ENV_IS_REMOTE]) == ("token-1", request().container_id, "1")


def test_the_users_code_and_the_library_are_found_before_the_users_path() -> None:
    assert environment(request(), IMAGE, PROVISION, IDENTITY)["PYTHONPATH"] == f"/root:{LIBRARY_DIR}"
    assert (
        environment(request(PYTHONPATH="/more"), IMAGE, PROVISION, IDENTITY)["PYTHONPATH"]
        == f"/root:{LIBRARY_DIR}:/more"
    )


def test_the_working_directory_is_the_images_or_where_the_code_is() -> None:
    assert container_spec(CONFIG, request(), IMAGE, PROVISION, IDENTITY).cwd == "/root"
    assert container_spec(CONFIG, request(), ImageConfig(workdir="/srv"), PROVISION, IDENTITY).cwd == "/srv"


def test_a_container_is_kept_apart_as_its_function_says() -> None:
    start = ContainerStart("ct-0000000000000000000001", "ap-1", "fu-1", "im-1", isolation="gvisor")

    assert container_spec(CONFIG, request(), IMAGE, PROVISION, IDENTITY).isolation == NAMESPACES
    assert container_spec(CONFIG, start, IMAGE, PROVISION, IDENTITY).isolation == GVISOR


def test_a_user_who_may_not_enter_roots_directory_starts_in_the_topmost() -> None:
    assert container_spec(CONFIG, request(), ImageConfig(uid=1000), PROVISION, IDENTITY).cwd == "/"
    assert container_spec(CONFIG, request(), ImageConfig(uid=1000, workdir="/srv"), PROVISION, IDENTITY).cwd == "/srv"


def test_socket_and_library_are_bound_read_only() -> None:
    spec = container_spec(CONFIG, request(), IMAGE, PROVISION, IDENTITY)

    assert {(bind.source, bind.target) for bind in spec.binds} == {
        ("/d/ct/agent", SOCKET_DIR),
        ("/d/guest", LIBRARY_DIR),
    }
    assert all(bind.is_read_only for bind in spec.binds)
    assert spec.layers == ("/l1", "/files")
    assert spec.network == SLOT


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        (Resources(), None),
        (Resources(cpu_milli=100), "1"),
        (Resources(cpu_milli=2_500), "3"),
        (Resources(cpu_limit_milli=4_000), "4"),
    ],
)
def test_numerical_libraries_use_the_processors_asked_for(resources: Resources, threads: str | None) -> None:
    assert thread_counts(resources).get("OMP_NUM_THREADS") == threads


def test_without_a_limit_a_container_gets_most_of_the_node_and_not_all_of_it() -> None:
    assert limits(CONFIG, Resources()).memory_bytes == 3_072 * 2**20
    assert limits(CONFIG, Resources(memory_mib=4_000)).memory_bytes == 4_000 * 2**20
    assert limits(CONFIG, Resources(memory_mib=100, memory_limit_mib=200)).memory_bytes == 200 * 2**20
    assert limits(CONFIG, Resources()).pids_max == 4_096


def test_a_request_for_processors_is_a_weight_and_a_limit_is_a_limit() -> None:
    small, large = limits(CONFIG, Resources()), limits(CONFIG, Resources(cpu_milli=4_000, cpu_limit_milli=8_000))

    assert (small.cpu_milli, large.cpu_milli) == (None, 8_000)
    assert large.cpu_weight > 10 * small.cpu_weight >= 10
