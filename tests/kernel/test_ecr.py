"""AWS keys open a real registry that knows the password AWS gives for them, and are kept nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.making import BuildFailed
from squall.protocol import image_steps
from squall.protocol.errors import PlatformError
from squall.protocol.image import BuildEvent, ImageSpec, image_id
from squall.protocol.image_transfer import ImagePush
from tests.agent.image.block.stores import S3Server
from tests.agent.image.shop import open_shop
from tests.kernel import registries
from tests.kernel.registries import Registry
from tests.kernel.test_image_transfer import SPEC, ask, node

# bcrypt, as in `registries`, of "123456789012-auth-token", which moto gives for any keys.
PASSWORDS = "AWS:$2b$05$abcdefghijklmnopqrstuu/4ofrUS75HrKu6f.iuRo0I/XlrmpqlC\n"
SECRETS = ("AKIAEXAMPLE", "s3cret-key", "auth-token")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty one, which lets in whom AWS has given a password."""
    if registries.missing():
        pytest.skip(registries.missing())
    with Registry(tmp_path / "registry", has_password=True, passwords=PASSWORDS) as running:
        yield running


@pytest.fixture(scope="module")
def secret() -> Iterator[dict[str, str]]:
    """Keys, and the place that knows them."""
    with S3Server() as server:
        yield {
            "AWS_ACCESS_KEY_ID": SECRETS[0],
            "AWS_SECRET_ACCESS_KEY": SECRETS[1],
            "AWS_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": server.environ["AWS_ENDPOINT_URL"],
        }


async def test_aws_keys_push_an_image_and_pull_it(
    registry: Registry, secret: dict[str, str], data_dir: Path, tmp_path: Path
) -> None:
    name = f"{registry.place}/team/app:1"
    async with node(data_dir, registry) as server:
        pushed = await ask(server, ImagePush(image_id(SPEC), name, secret=secret))
    events: list[BuildEvent] = []
    settings = MachineSettings(registry_env={"HOME": str(registry.home)})
    async with open_shop(tmp_path / "other", settings=settings) as shop:
        spec = ImageSpec((image_steps.from_registry(name, secrets=("0",)),))
        built = await shop.builder.build(spec, events.append, {"0": secret})
        random = Path(built.layers[0], "usr/random").stat().st_size

    assert pushed[-1][0].kind == "done"
    assert random == 3 * 2**20
    files = [path for place in (data_dir, tmp_path / "other") for path in place.rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in files)
    said = f"{pushed} {events}"
    assert not [one for one in SECRETS if one in said or one.encode() in kept]


async def test_registry_that_does_not_take_what_aws_gives_is_told(
    registry: Registry, secret: dict[str, str], data_dir: Path, tmp_path: Path
) -> None:
    registry.stop()
    registry.passwords = registries.PASSWORDS
    registry.start()
    name = f"{registry.place}/team/app:1"
    async with node(data_dir, registry) as server:
        with pytest.raises(PlatformError, match="check the AWS keys, and what they may do") as not_pushed:
            await ask(server, ImagePush(image_id(SPEC), name, secret=secret))
        with pytest.raises(PlatformError, match="give REGISTRY_USERNAME and") as no_login:
            await ask(server, ImagePush(image_id(SPEC), name, secret={"AWS_REGION": "eu-west-1"}))
    settings = MachineSettings(registry_env={"HOME": str(registry.home)})
    async with open_shop(tmp_path / "other", settings=settings) as shop:
        spec = ImageSpec((image_steps.from_registry(name, secrets=("0",)),))
        with pytest.raises(BuildFailed, match="check the AWS keys, and what they may do"):
            await shop.builder.build(spec, lambda event: None, {"0": secret})
        with pytest.raises(BuildFailed, match="its secret has AWS keys without AWS_REGION"):
            await shop.builder.build(spec, lambda event: None, {"0": {**secret, "AWS_REGION": ""}})

    assert (not_pushed.value.code, no_login.value.code) == ("forbidden", "invalid")
