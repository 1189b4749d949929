"""The names that programs catch, and what they are kinds of."""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Iterator

import pytest

from squall import exception
from squall.exception import InvalidError, simulate_preemption

# Of the surface, and three of ours: for what the surface, or Python, raises a builtin, and for `squall run -i`. Each is
# behind what it is a kind of.
TREE = {
    "BaseException": "InputCancellation",
    "Exception": "Error ModuleNotMountable",
    "Error": "AlreadyExistsError AuthError ClientClosed ConnectionError DataLossError DeserializationError "
    "ExecutionError InternalError InternalFailure InvalidError LogsFetchError NotFoundError PermissionDeniedError "
    "RemoteError RequestSizeError ResourceExhaustedError SandboxFilesystemError SandboxTerminatedError "
    "SerializationError ServiceError SnapshotCreationError TerminalMissing TimeoutError UnimplementedError "
    "VersionError "
    "WorkspaceManagementError",
    "InvalidError": "ConflictError WrongParameter",
    "RemoteError": "ImageBuildError",
    "SandboxFilesystemError": "SandboxFilesystemDirectoryNotEmptyError SandboxFilesystemFileTooLargeError "
    "SandboxFilesystemIsADirectoryError SandboxFilesystemNotADirectoryError SandboxFilesystemNotFoundError "
    "SandboxFilesystemPathAlreadyExistsError SandboxFilesystemPermissionError",
    "TimeoutError": "ExecTimeoutError FunctionTimeoutError InteractiveTimeoutError MountUploadTimeoutError "
    "OutputExpiredError OutputTimeoutError SandboxTimeoutError VolumeUploadTimeoutError",
    "UserWarning": "AsyncUsageWarning DeprecationError InternalAPIWarning ServerWarning",
}


def test_names_and_their_kinds_are_those_of_the_surface() -> None:
    found: dict[str, set[str]] = {}
    for name, kind in vars(exception).items():
        if isinstance(kind, type):
            found.setdefault(kind.__bases__[0].__name__, set()).add(name)

    assert found == {kind: set(names.split()) for kind, names in TREE.items()}


def test_the_tree_in_the_text_names_every_error() -> None:
    text = exception.__doc__ or ""
    names = " ".join(TREE[kind] for kind in ("Error", "InvalidError", "RemoteError", "TimeoutError")).split()

    assert [name for name in names if name not in text] == []


def test_no_result_yet_is_the_builtin_timeout_and_nothing_else_of_ours_is() -> None:
    kinds = [kind for kind in vars(exception).values() if isinstance(kind, type)]

    assert [kind.__name__ for kind in kinds if issubclass(kind, OSError)] == ["OutputTimeoutError"]
    assert issubclass(exception.OutputTimeoutError, TimeoutError)


def test_no_result_yet_is_said_and_pickled_as_our_errors_are() -> None:
    error = exception.OutputTimeoutError("call fc-1: no result within 0 s; the call goes on")

    copied = pickle.loads(pickle.dumps(error))

    assert type(copied) is exception.OutputTimeoutError
    assert str(copied) == str(error) == "call fc-1: no result within 0 s; the call goes on"
    assert copied.args == error.args == (str(error),)
    assert copied.errno is None


@pytest.fixture
def alarm() -> Iterator[None]:
    """The process's alarm, as it was."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_simulated_preemption_interrupts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exception, "PREEMPTION_GRACE_S", 0.1)
    simulate_preemption(0.05, 0.05)

    with pytest.raises(KeyboardInterrupt, match="simulated"):
        time.sleep(10)
    with pytest.raises(KeyboardInterrupt, match="is over"):
        time.sleep(10)

    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize(("wait_s", "jitter_s"), [(0, 0), (-1, 0), (1, -1)])
def test_preemption_without_a_wait_is_refused(wait_s: float, jitter_s: float) -> None:
    with pytest.raises(InvalidError, match="more than 0 s"):
        simulate_preemption(wait_s, jitter_s)
