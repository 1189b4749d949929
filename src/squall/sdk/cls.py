"""Classes of an app: `MyCls(x=1).method.remote(…)`.

To type checkers a decorated class is the user's own. In truth it is a `Cls`, calling it makes an `Obj`, and the
methods of that are functions. All methods of one object are served by the same containers; each has one instance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from squall.exception import InvalidError
from squall.protocol.parameters import ParametersInvalid, Value, check, encode
from squall.sdk._definition import Handle
from squall.sdk._facade import blocking
from squall.sdk._names import check_name
from squall.sdk._object import Obj
from squall.sdk._parameters import checked
from squall.sdk._variant import Variant
from squall.sdk._with import With
from squall.sdk.function import Function

if TYPE_CHECKING:
    from squall.protocol.function import FunctionOptions
    from squall.sdk._client import Client
    from squall.sdk._given import Given
    from squall.sdk._user_class import UserClass


class Cls(With):
    """A class whose objects run in containers. Calling it makes an object; nothing is asked of a server for that."""

    _name: str
    _function: Function[..., Any]
    """What serves it: one function for all its methods."""
    _variant: Variant
    _user_class: UserClass | None
    """None of one that was looked up."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise InvalidError("Cls() cannot be made directly; use @app.cls() or Cls.from_name(…)")

    @classmethod
    def _make(cls, function: Function[..., Any], user_class: UserClass | None, variant: Variant | None = None) -> Cls:
        made = object.__new__(cls)
        made._name = function.name
        made._function = function
        made._variant = variant or Variant(function)
        made._user_class = user_class
        if user_class is not None:
            made.__doc__ = user_class.raw.__doc__
            made.__wrapped__ = user_class.raw
            made.__name__ = user_class.raw.__name__
            made.__qualname__ = user_class.raw.__qualname__
            made.__module__ = user_class.raw.__module__
        return made

    __wrapped__: type
    __name__: str
    __qualname__: str

    @classmethod
    @checked("Cls.from_name")
    def from_name(
        cls,
        app_name: str,
        name: str,
        *,
        version: int | None = None,
        environment_name: str | None = None,
        client: Client | None = None,
    ) -> Cls:
        """A handle to a class of an app that runs or is deployed. Nothing is asked before the first call.

        What its objects' methods raise then: NotFoundError, where there is no such class or it has no such method. When
        the app was stopped and another of its name runs, the next call finds that one.
        """
        from squall.sdk._environment import environment_of  # cold start: programs only
        from squall.sdk._lookup import check_version  # cold start: as above

        number = check_version(version, "Cls.from_name")
        environment = environment_of(environment_name)
        check_name(app_name, "app name")
        if not isinstance(name, str) or not name:
            raise InvalidError("Cls.from_name: the class's name must be a string")
        handle = Handle(app=app_name, name=name, is_class=True, environment=environment, version=number)
        return cls._make(Function[..., Any]._make(name, handle=handle, client=client), None)

    def __call__(self, /, *args: object, **kwargs: Any) -> Obj:
        """An object of the class, with these parameters.

        Raises:
            InvalidError: one is unknown, of another type, missing, or not given by name. Of a class that was looked up
                this is known at the first call only.
        """
        if args:
            how = ", ".join(f"{name}=…" for name in self._parameter_names()) or "nothing in the brackets"
            raise InvalidError(f"{self._name}(): parameters are given by name: {how}")
        if self._user_class is not None:
            try:
                check(self._name, self._user_class.givable, kwargs)
            except ParametersInvalid as error:
                raise InvalidError(f"{self._name}(): {error}") from None
        return Obj(self, encode_parameters(self._name, kwargs), kwargs)

    @blocking
    async def hydrate(self, client: Client | None = None) -> Cls:
        """Look the class up now, also again; returns itself.

        Raises:
            NotFoundError: there is no such class.
        """
        await self._function.hydrate.aio(client)
        return self

    @property
    def object_id(self) -> str:
        """The id on the server of the function that serves it.

        Raises:
            AttributeError: its app does not run, or the class has not been looked up.
        """
        function_id = self._function._known_id()
        if function_id is None:
            is_named = self._function._handle is not None
            why = "it has not been looked up; .hydrate() does that" if is_named else "its app does not run"
            raise AttributeError(f"class {self._name} has no id yet: {why}")
        return function_id

    def _parameter_names(self) -> list[str]:
        return [one.name for one in self._user_class.givable] if self._user_class is not None else ["name"]

    def _with(self, options: FunctionOptions, given: Given | None = None) -> Cls:
        if options.batching is not None and self._user_class is not None:
            self._user_class.check_batchable(f"{self._name}.with_batching()")
        if self._user_class is not None and len(self._user_class.web_methods) == len(self._user_class.methods):
            raise InvalidError(
                f"class {self._name} answers requests, all at one address: options are given where it is decorated"
            )
        return Cls._make(self._function, self._user_class, self._variant.with_options(options, given))

    @property
    def service_function(self) -> Function[..., Any]:
        """The function that serves it."""
        return self._function

    @property
    def user_class(self) -> UserClass | None:
        """The class as it was read; None of one that was looked up."""
        return self._user_class

    @property
    def raw_class(self) -> type:
        """The class as it was before it was decorated.

        Raises:
            ExecutionError: it was looked up, and is not in this program.
        """
        raw: Any = self._function.raw_f
        return raw  # type: ignore[no-any-return]

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self.raw_class,)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            from squall.sdk import _later  # cold start: only where there is no such name

            user_class = self.__dict__.get("_user_class")
            if name in _later.OF_CLS or isinstance(getattr(Cls, name, None), property):
                return _later.absent(self, _later.OF_CLS, name)
            if name.startswith("__") or "_function" not in self.__dict__:
                raise AttributeError(f"class {self.__dict__.get('_name', '?')} has no attribute {name!r}")
            if user_class is not None and name not in user_class.methods:
                return getattr(user_class.raw, name)
            # What a class that was looked up has, its server knows: until then any name may be a method's. Those with
            # an underscore are what programs ask all objects for.
            if user_class is None and (name.startswith("_") or not self._function.may_have(name)):
                raise AttributeError(f"class {self._name} has no attribute {name!r}{self._function.methods_said()}")
            return NoObject(self._name, name)

    def __repr__(self) -> str:
        return f"<Cls {self._name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_handle, (self._function, self._variant)


class NoObject:
    """A method of a class, where one of an object is needed."""

    def __init__(self, class_name: str, name: str) -> None:
        self._class_name = class_name
        self._method_name = name

    def __getattr__(self, name: str) -> NoReturn:
        where = f"{self._class_name}.{self._method_name}"
        raise AttributeError(
            f"{where}.{name}: instantiate the class first, as in {self._class_name}().{self._method_name}.{name}"
        )

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        where = f"{self._class_name}().{self._method_name}"
        raise TypeError(f"{self._class_name}.{self._method_name} is not callable: write {where}.remote(…)")


def encode_parameters(class_name: str, values: dict[str, Value]) -> str:
    """Parameters as they travel.

    Raises:
        InvalidError: one is no str, int, bool or bytes, or they are too long.
    """
    from squall.protocol.parameters import KINDS, PARAMETERS_CHARS_MAX  # cold start: with an object only

    for name, value in values.items():
        if type(value) not in KINDS.values():
            raise InvalidError(
                f"{class_name}(): parameter {name} must be str, int, bool or bytes, not {type(value).__name__}"
            )
    text = encode(values)
    if len(text) > PARAMETERS_CHARS_MAX:
        raise InvalidError(
            f"{class_name}(): its parameters are {len(text):,} characters, at most {PARAMETERS_CHARS_MAX:,}: give the "
            "name of a file or a blob in place of what is in it"
        )
    return text


def _from_handle(function: Function[..., Any], variant: Variant) -> Cls:
    return Cls._make(function, None, variant)
