"""Secrets: what is in them goes in here, and out to containers and builds only.

Nothing clear is kept: what is read of the store stays encrypted until somebody is given it. Writes take turns, so that
none is encrypted with a key that a rotation is about to do away with.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from squall.protocol import secret as wire
from squall.protocol.asset import SECRET, AssetCreate
from squall.protocol.bucket import BucketStart, keys_in, keys_problem
from squall.protocol.errors import CONFLICT, EXHAUSTED, EXISTS, FORBIDDEN, INVALID, NOT_FOUND, PlatformError
from squall.protocol.function import secrets_named
from squall.protocol.ids import is_id
from squall.protocol.pages import PAGE_RECORDS_MAX, first_page
from squall.protocol.records import replace as replaced
from squall.protocol.secret import (
    GIVEN_BYTES_MAX,
    SecretCreate,
    SecretGet,
    SecretInfo,
    SecretKeyRotate,
    SecretKeyRotated,
    SecretList,
    SecretListing,
    SecretUpdate,
)
from squall.server.dispatch.app.environments import shown
from squall.server.dispatch.asset.seal import Seal, Whose

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from squall.protocol.codec import Codec
    from squall.protocol.function import FunctionSpec
    from squall.protocol.image import ImageBuild
    from squall.protocol.image_shell import ImageShell
    from squall.protocol.task_set import TaskSet
    from squall.server.dispatch.app.apps import Apps
    from squall.server.dispatch.asset.assets import Assets
    from squall.server.dispatch.client.callers import Caller
    from squall.server.model.asset import StoredAsset
    from squall.server.model.clock import Clock
    from squall.server.model.secret import SealedSecret, SecretKeys
    from squall.server.model.store import Store

KNOWN_MAX = 1_000
"""Encrypted ones that are in memory beside the store."""
OF_APP_MAX = 2_000
"""Of those without a name."""
OF_FUNCTION_MAX = 100
ROTATED_AT_ONCE = 100
NAMES_SHOWN = 20
NOTE_EVERY_S = 10.0
"""Between two notes in the store of which were used."""

_log = logging.getLogger("squall.server.dispatch.asset.secrets")


@dataclass(frozen=True, slots=True)
class Given:
    """What a container is given."""

    values: dict[str, str]
    mark: str
    """Another one whenever any of the values is; it tells nothing of them."""

    def __repr__(self) -> str:
        return f"Given({self.mark})"


NOTHING = Given({}, "")


class Secrets:
    """All of them."""

    def __init__(
        self,
        *,
        apps: Apps,
        assets: Assets,
        store: Store,
        keys: SecretKeys,
        codec: Codec,
        clock: Clock,
        tasks: TaskSet,
    ) -> None:
        self._apps = apps
        self._assets = assets
        self._store = store.secrets
        self._keys = keys
        self._codec = codec
        self._clock = clock
        self._tasks = tasks
        self.find_function: Callable[[str], Awaitable[FunctionSpec | None]] = _no_function
        """One of a living app."""
        self._known: dict[str, SealedSecret] = {}
        self._change_count = 0
        """Of what may be in memory."""
        self._seal: Seal | None = None
        self._writing = asyncio.Lock()
        self._rotating = asyncio.Lock()
        self.going_on: asyncio.Future[None] | None = None
        """A rotation that was interrupted is gone on with."""
        self._used_at: dict[str, float] = {}
        """Since the last note."""
        self._noted_at = clock.monotonic()
        assets.on_deleted.append(self._forget)

    def _forget(self, secret_id: str) -> None:
        """What is being read of it just now is not to be kept either."""
        self._change_count += 1
        self._known.pop(secret_id, None)

    async def load(self) -> None:
        """Go on with a rotation that was interrupted. What is wrong with the keys is told to who needs a secret."""
        try:
            keys = await asyncio.to_thread(self._keys.read)
        except PlatformError as error:
            _log.error("%s", error.message)
            return
        if len(keys) > 1 and not self._keys.is_given:
            self.going_on = self._tasks.start(self._go_on())

    async def _go_on(self) -> None:
        try:
            rotated = await self._rotate()
            _log.info("went on encrypting secrets anew: %d were left", rotated.count)
        except PlatformError as error:
            _log.error("secrets are not all encrypted anew: %s", error.message)

    # Giving

    async def given(self, spec: FunctionSpec) -> Given:
        """What the containers of a function are given, as it is now.

        Raises:
            PlatformError: `invalid`, in words for who waits: one was deleted, or cannot be read.
        """
        if not spec.secrets:
            return NOTHING
        try:
            found = await self._sealed(spec.secrets)
            values: dict[str, str] = {}
            for one in found:
                values.update(await self._opened(one))
        except PlatformError as error:
            if error.code not in (NOT_FOUND, CONFLICT):
                raise
            raise PlatformError(INVALID, f"function {spec.name} cannot be started: {error.message}") from None
        size = sum(len(name.encode()) + len(value.encode()) for name, value in values.items())
        if size > GIVEN_BYTES_MAX:
            has = f"its secrets have {size} bytes together, at most {GIVEN_BYTES_MAX}"
            raise PlatformError(INVALID, f"function {spec.name} cannot be started: {has}")
        self._use(spec.secrets)
        return Given(values, ",".join(f"{one.secret_id}:{one.revision}" for one in found))

    async def for_buckets(self, spec: FunctionSpec) -> tuple[BucketStart, ...]:
        """The buckets of a function, each with what is in its secret now.

        Raises:
            PlatformError: `invalid`, in words for who waits: one was deleted, cannot be read, or has no keys.
        """
        starts = []
        for mount in spec.buckets:
            keys: dict[str, str] = {}
            if mount.secret_id:
                what = f"function {spec.name} cannot be started: bucket {mount.bucket}"
                try:
                    (found,) = await self._sealed((mount.secret_id,))
                    keys = keys_in(await self._opened(found))
                except PlatformError as error:
                    if error.code not in (NOT_FOUND, CONFLICT):
                        raise
                    raise PlatformError(INVALID, f"{what}: {error.message}") from None
                if problem := keys_problem(keys):
                    raise PlatformError(INVALID, f"{what}: {problem}")
                self._use((mount.secret_id,))
            starts.append(BucketStart(mount, keys))
        return tuple(starts)

    async def for_build(self, caller: Caller, record: ImageBuild) -> ImageBuild:
        """A build with what is in the secrets that it names.

        Raises:
            PlatformError: `not_found`, `forbidden`, `conflict`.
        """
        if not record.named_secrets:
            return record
        values = dict(record.secrets)
        for name, secret_id in record.named_secrets.items():
            values[name] = await self.values_for(caller, "ImageBuild", secret_id)
        return replaced(record, secrets=values, named_secrets={})

    async def for_shell(self, caller: Caller, record: ImageShell) -> ImageShell:
        """The same of a shell, where names are given."""
        values: dict[str, str] = {}
        for secret in record.secrets:
            asset = await self._assets.find(caller, "ImageShell", SECRET, secret, record.environment)
            values |= await self.values_for(caller, "ImageShell", asset.asset_id)
        return replaced(record, secrets=(), variables=values)

    async def values_for(self, caller: Caller, method: str, secret_id: str) -> dict[str, str]:
        """What is in one that has a name, for somebody who may use it.

        Raises:
            PlatformError: `not_found`, `forbidden`, `conflict`.
        """
        await self._assets.used(caller, method, SECRET, secret_id)
        (found,) = await self._sealed((secret_id,))
        self._use((secret_id,))
        return await self._opened(found)

    async def check(self, caller: Caller, method: str, specs: Iterable[FunctionSpec]) -> None:
        """Whether functions that are not there yet may name the secrets that they name.

        Raises:
            PlatformError: `not_found`, `forbidden`, `invalid`.
        """
        checked: set[tuple[str, str]] = set()
        for spec in specs:
            known = self._apps.dispatchers.get(spec.function_id)
            named = secrets_named(spec)
            if known is not None and secrets_named(known.spec) == named:
                continue  # asked again, or deployed again: what has become of its secrets, its starts will say
            if len(named) > OF_FUNCTION_MAX:
                message = f"function {spec.name!r} names {len(named)} secrets, at most {OF_FUNCTION_MAX}"
                raise PlatformError(INVALID, f"{method}: {message}")
            for secret_id in named:
                if (spec.app_id, secret_id) not in checked:
                    checked.add((spec.app_id, secret_id))
                    await self._check_one(caller, method, spec, secret_id)

    async def _check_one(self, caller: Caller, method: str, spec: FunctionSpec, secret_id: str) -> None:
        if not is_id(secret_id, "st"):
            raise PlatformError(INVALID, f"{method}: function {spec.name!r}: {secret_id[:80]!r} is no id of a secret")
        (found,) = await self._sealed((secret_id,))
        if not found.app_id:
            await self._assets.used(caller, method, SECRET, secret_id)
        elif caller.scope_app_id and found.app_id != spec.app_id:
            # Outside one may, as an app that is made like another one to run a call of it again.
            message = f"function {spec.name!r} names a secret that is another app's own: {secret_id}"
            raise PlatformError(FORBIDDEN, f"{method}: {message}")

    async def _sealed(self, secret_ids: Sequence[str]) -> list[SealedSecret]:
        change_count = self._change_count
        missing = frozenset(one for one in secret_ids if one not in self._known)
        found = {one: self._known[one] for one in secret_ids if one not in missing}
        if missing:
            found |= {one.secret_id: one for one in await self._store.get(missing)}
        for sealed in list(found.values()):
            # What is in one that was deleted goes later than its name, and may be here still.
            if not sealed.app_id and not await self._assets.is_there(sealed.secret_id):
                del found[sealed.secret_id]
            elif change_count == self._change_count:
                self._keep(sealed)
        for secret_id in secret_ids:
            if secret_id not in found:
                message = f"there is no secret {secret_id[:80]}; it was deleted, or never was; name another, and deploy"
                raise PlatformError(NOT_FOUND, message)
        return [found[one] for one in secret_ids]

    async def _opened(self, sealed: SealedSecret) -> dict[str, str]:
        seal = await self._seal_now()
        if not seal.has_key_of(sealed):
            # Encrypted anew since it was read, and the key of then is gone.
            self._forget(sealed.secret_id)
            (sealed,) = await self._sealed((sealed.secret_id,))
        return (await self._seal_now()).open(sealed)

    def _keep(self, sealed: SealedSecret) -> None:
        self._known.pop(sealed.secret_id, None)
        self._known[sealed.secret_id] = sealed
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    async def _seal_now(self, *, may_make: bool = False) -> Seal:
        if self._seal is None:
            keys = await asyncio.to_thread(self._keys.make if may_make else self._keys.read)
            if not keys:
                what = "the key of secrets is missing: the file secret.key of the server's data directory is not there"
                how = "put it back, or start the server with the key as SQUALL_SECRET_KEY"
                raise PlatformError(CONFLICT, f"{what}; {how}, or make the secrets anew")
            self._seal = await asyncio.to_thread(Seal, keys, self._keys.cipher)
        return self._seal

    # When they were used

    def _use(self, secret_ids: Iterable[str]) -> None:
        now = self._clock.now()
        self._used_at.update(dict.fromkeys(secret_ids, now))

    def tick(self, now: float) -> None:
        """Each second."""
        if self._used_at and now - self._noted_at >= NOTE_EVERY_S:
            self._noted_at = now
            self._tasks.start(self.note())

    async def note(self) -> None:
        """Let the store know which were used."""
        used, self._used_at = self._used_at, {}
        try:
            if used:
                await self._store.use(used)
        except PlatformError as error:
            self._used_at = {**used, **self._used_at}
            _log.warning("cannot note which secrets are used: %s", error.message)

    # Methods

    async def create(self, caller: Caller, record: SecretCreate) -> SecretInfo:
        """See `SecretCreate`."""
        if record.name:
            caller.forbid_secrets("SecretCreate")
        problem = wire.problem(record.values)
        if problem:
            raise PlatformError(INVALID, f"SecretCreate: {_called(record)}: {problem}")
        if not is_id(record.asset_id, "st"):
            raise PlatformError(INVALID, f"SecretCreate: {record.asset_id[:80]!r} is no id of a secret")
        if record.function_id:
            record = replaced(record, app_id=await self._app_of(record.function_id))
        if bool(record.name) == bool(record.app_id):
            raise PlatformError(INVALID, "SecretCreate: a secret has a name, or is of an app; give one of both")
        async with self._writing:
            return await (self._create_named if record.name else self._create_of_app)(caller, record)

    async def _app_of(self, function_id: str) -> str:
        spec = await self.find_function(function_id)
        if spec is None:
            message = f"function {function_id[:80]} does not exist, or its app was stopped"
            raise PlatformError(NOT_FOUND, f"SecretCreate: {message}")
        return spec.app_id

    async def _create_of_app(self, caller: Caller, record: SecretCreate) -> SecretInfo:
        # Of an app that is to be deployed nothing is known yet; what no app comes for is forgotten again.
        if caller.scope_app_id:
            caller.check_use("SecretCreate", self._apps.get_live(record.app_id).row)
        if await self._store.count_of(record.app_id) >= OF_APP_MAX:
            message = f"app {record.app_id} has {OF_APP_MAX} secrets without a name, as many as may be"
            raise PlatformError(
                EXHAUSTED, f"SecretCreate: {message}; those go that nothing names; use Secret.from_name"
            )
        seal = await self._seal_now(may_make=True)
        whose = Whose(record.asset_id, record.app_id)
        sealed = seal.close(whose, record.values, revision=1, now=self._clock.now())
        kept = await self._store.put(sealed)
        if (kept.app_id, kept.content_mark) != (sealed.app_id, sealed.content_mark):
            raise PlatformError(CONFLICT, f"SecretCreate: {record.asset_id} is another secret")
        self._keep(kept)
        return SecretInfo(kept.secret_id, created_at=kept.kept_at, last_used_at=kept.last_used_at)

    async def _create_named(self, caller: Caller, record: SecretCreate) -> SecretInfo:
        seal = await self._seal_now(may_make=True)
        now = self._clock.now()
        # First what is in it: whoever finds its name finds that, too.
        sealed = seal.close(Whose(record.asset_id), record.values, revision=1, now=now)
        kept = await self._store.put(sealed)
        may_exist = record.may_exist or record.is_replacing
        asked = AssetCreate(record.asset_id, SECRET, record.name, record.environment, record.created_by, may_exist)
        try:
            asset = await self._assets.make(caller, "SecretCreate", asked)
        except PlatformError as error:
            if kept is sealed and error.code in (EXISTS, INVALID, CONFLICT, NOT_FOUND):
                await self._store.delete(record.asset_id)
            if error.code == EXISTS:
                hint = "`squall secret create --force` replaces what is in it"
                raise PlatformError(EXISTS, f"{error.message}; {hint}") from None
            raise
        if asset.asset_id != record.asset_id:
            await self._store.delete(record.asset_id)
        if record.is_replacing and (asset.asset_id != record.asset_id or kept is not sealed):
            await self._replace(asset, record.values)
        else:
            self._forget(asset.asset_id)
        return await self._info(asset)

    async def _replace(self, asset: StoredAsset, values: dict[str, str]) -> None:
        """Whatever is in it, and by whichever key."""
        seal, now = await self._seal_now(may_make=True), self._clock.now()
        while True:
            before = await self._store.get(frozenset([asset.asset_id]))
            revision = before[0].revision + 1 if before else 1
            sealed = seal.close(Whose(asset.asset_id), values, revision=revision, now=now)
            if not before:
                await self._store.put(sealed)
            elif not await self._store.replace(before[0].nonce, replace(sealed, last_used_at=before[0].last_used_at)):
                continue
            self._forget(asset.asset_id)
            return

    async def get(self, caller: Caller, record: SecretGet) -> SecretInfo:
        """See `SecretGet`."""
        asset = await self._assets.find(caller, "SecretGet", SECRET, record.secret, record.environment)
        if record.required_keys:
            (found,) = await self._sealed((asset.asset_id,))
            missing = sorted(set(record.required_keys) - set(found.names))
            if missing:
                some = ", ".join(found.names[:NAMES_SHOWN]) + (", …" if len(found.names) > NAMES_SHOWN else "")
                what = f"secret {asset.name or asset.asset_id} has no {', '.join(missing)[:500]}"
                raise PlatformError(INVALID, f"SecretGet: {what}; it has {some or 'nothing'}")
        return await self._info(asset)

    async def list_some(self, caller: Caller, record: SecretList) -> SecretListing:
        """See `SecretList`."""
        before = None if record.before_at is None else (record.before_at, record.before_id)
        limit = max(0, min(record.limit, PAGE_RECORDS_MAX + 1))
        assets = await self._assets.list_of(caller, "SecretList", SECRET, record.environment, limit, before)
        found: dict[str, SealedSecret] = {}
        for start in range(0, len(assets), ROTATED_AT_ONCE):
            some = frozenset(one.asset_id for one in assets[start : start + ROTATED_AT_ONCE])
            found |= {one.secret_id: one for one in await self._store.get(some)}
        infos = [self._shown(one, found.get(one.asset_id)) for one in assets]
        return SecretListing(*first_page(self._codec, infos))

    async def update(self, caller: Caller, record: SecretUpdate) -> SecretInfo:
        """See `SecretUpdate`."""
        caller.forbid_secrets("SecretUpdate")
        asset = await self._assets.find(caller, "SecretUpdate", SECRET, record.secret, record.environment)
        async with self._writing:
            seal = await self._seal_now()
            while True:
                before = await self._store.get(frozenset([asset.asset_id]))
                if not before:
                    raise PlatformError(NOT_FOUND, f"SecretUpdate: secret {asset.name} was deleted meanwhile")
                earlier = seal.open(before[0])
                values = {**earlier, **record.values}
                problem = wire.problem(values)
                if problem:
                    raise PlatformError(INVALID, f"SecretUpdate: secret {asset.name}: {problem}")
                if values == earlier:
                    break
                sealed = seal.close(
                    Whose(asset.asset_id), values, revision=before[0].revision + 1, now=self._clock.now()
                )
                sealed = replace(sealed, last_used_at=before[0].last_used_at)
                if await self._store.replace(before[0].nonce, sealed):
                    break
            self._forget(asset.asset_id)
        return await self._info(asset)

    async def rotate(self, record: SecretKeyRotate) -> SecretKeyRotated:
        """See `SecretKeyRotate`. Carried out to the end, whatever becomes of who asked. Whenever the server is ended,
        every secret can be read, and the next one goes on."""
        return await asyncio.shield(self._tasks.start(self._rotate()))

    async def _rotate(self) -> SecretKeyRotated:
        async with self._rotating:
            async with self._writing:
                # Whatever is written from here on is encrypted with the new key.
                keys = await asyncio.to_thread(self._keys.begin_rotation)
                seal = self._seal = await asyncio.to_thread(Seal, keys, self._keys.cipher)
            count = unreadable_count = 0
            after = ""
            while some := await self._store.sealed_otherwise(seal.key_id, after, ROTATED_AT_ONCE):
                after = some[-1].secret_id
                done = await asyncio.gather(*(self._seal_again(seal, one) for one in some))
                count += sum(done)
                unreadable_count += len(done) - sum(done)
            self._change_count += 1
            self._known.clear()
            keys = await asyncio.to_thread(self._keys.end_rotation)
            self._seal = Seal(keys, self._keys.cipher)
        return SecretKeyRotated(count, unreadable_count, self._keys.is_given)

    async def _seal_again(self, seal: Seal, one: SealedSecret) -> bool:
        try:
            values = seal.open(one)
        except PlatformError as error:
            _log.warning("%s", error.message)
            return False
        whose = Whose(one.secret_id, one.app_id)
        sealed = seal.close(whose, values, revision=one.revision, now=one.kept_at)
        # One that is another one by now was changed, with the new key, or deleted.
        await self._store.replace(one.nonce, replace(sealed, last_used_at=one.last_used_at))
        return True

    async def _info(self, asset: StoredAsset) -> SecretInfo:
        found = await self._store.get(frozenset([asset.asset_id]))
        return self._shown(asset, found[0] if found else None)

    def _shown(self, asset: StoredAsset, sealed: SealedSecret | None) -> SecretInfo:
        last_used_at = self._used_at.get(asset.asset_id) or (sealed.last_used_at if sealed is not None else None)
        environment = shown(asset.environment)
        return SecretInfo(asset.asset_id, asset.name, environment, asset.created_at, asset.created_by, last_used_at)


async def _no_function(function_id: str) -> FunctionSpec | None:
    return None


def _called(record: SecretCreate) -> str:
    return f"secret {record.name[:80]!r}" if record.name else "a secret without a name"
