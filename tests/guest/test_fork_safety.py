"""What keeps a template from being forked, told by real ones; and what does not."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from squall.guest.fork_safety import ADVICE, Found
from tests.guest.started_template import Start

pytestmark = pytest.mark.long

FUNCTION = "\ndef run(*args):\n    return None\n"
HELPER = """
import _thread, threading, time
def begin():
    threading.Thread(target=time.sleep, args=(60,), name="poller", daemon=True).start()
def begin_below():
    _thread.start_new_thread(lambda: time.sleep(60), ())
"""

OBSTACLES = {
    "thread": (
        "import helper\nhelper.begin()",
        "thread 'poller' is running, started by module helper",
    ),
    "thread of a pool": (
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\npool.submit(int).result()",
        "thread 'ThreadPoolExecutor-0_0' is running, started by module user_code",
    ),
    "thread of a hook in front of start": (
        "import helper, threading\nstart = threading.Thread.start\n"
        "threading.Thread.start = lambda self: start(self)\nhelper.begin()",
        "thread 'poller' is running, started by module user_code",
    ),
    "thread that threading does not know": (
        "import helper\nhelper.begin_below()",
        "a thread of _thread.start_new_thread is running, code of module helper",
    ),
    "such a thread beside one of compiled code": (
        "import ctypes, helper\nlibc = ctypes.CDLL(None)\nident = ctypes.c_ulong()\n"
        "libc.pthread_create(ctypes.byref(ident), None, libc.sleep, ctypes.c_void_p(60))\n"
        "libc.pthread_setname_np(ident, b'worker')\nhelper.begin_below()",
        r"a thread of _thread.start_new_thread is running, code of module helper; "
        r"1 thread of compiled code \(worker\) is running.*",
    ),
    "thread of compiled code": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nident = ctypes.c_ulong()\n"
        "libc.pthread_create(ctypes.byref(ident), None, libc.sleep, ctypes.c_void_p(60))",
        r"1 thread of compiled code \(\S+\) is running.*",
    ),
    "program": (
        "import subprocess\nchild = subprocess.Popen(['sleep', '60'], stdin=-3, stdout=-3, stderr=-3)",
        "the program 'sleep' is running, which this process started",
    ),
    "listening socket": (
        "import socket\nlistener = socket.create_server(('127.0.0.1', 0))",
        r"a socket is listening at 127\.0\.0\.1:\d+, in module user_code",
    ),
    "pipe": ("import os\npipe = os.pipe()", "a pipe is open, perhaps of multiprocessing"),
    "file": (
        "log = open(__file__ + '.log', 'w')",
        r"the file \S+/user_code\.py\.log is open for writing, by all containers at once",
    ),
    "file that is gone": (
        "import tempfile\nwith tempfile.NamedTemporaryFile() as one:\n    again = open(one.name)",
        r"the file /\S+ is open, and not there any more",
    ),
    "file that was replaced": (
        "import os\npath = __file__ + '.data'\nopen(path, 'w').close()\nwords = open(path)\n"
        "open(path + '.new', 'w').close()\nos.replace(path + '.new', path)",
        r"the file \S+/user_code\.py\.data is open, and not there any more",
    ),
    "directory": (
        "import os\nhere = os.open('/usr', os.O_RDONLY)",
        "/usr is open, which leads to the files of another container",
    ),
    "working directory that is gone": (
        "import os, tempfile\nwith tempfile.TemporaryDirectory() as one:\n    os.chdir(one)",
        r"the working directory /\S+ is not there any more",
    ),
    "proc": (
        "status = open('/proc/self/status')",
        r"/proc/\d+/status is open, which leads to the files of another container",
    ),
    "event loop": (
        "import asyncio\nloop = asyncio.new_event_loop()",
        "an event loop is open, in module user_code",
    ),
    "lock between processes": (
        "import multiprocessing\nlock = multiprocessing.Lock()",
        "a lock of multiprocessing is in use, which would be one for all containers",
    ),
    "shared memory": (
        "import mmap\nshared = mmap.mmap(-1, 4096)",
        r"memory shared between processes \(/dev/zero \(deleted\)\) is in use, .*",
    ),
    "descriptor of the kernel": (
        "import select\nloop = select.epoll()",
        "an event loop is open",
    ),
    # What torch would say with a GPU, which the tests need not have.
    "CUDA": (
        "import sys, types\ntorch = sys.modules['torch'] = types.ModuleType('torch')\n"
        "torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)",
        "CUDA is in use, which no fork can go on with",
    ),
}
GPU = """
import ctypes, os
c = ctypes.CDLL(None, use_errno=True)
MOUNTS, USERS, BIND, RECURSIVE, SLAVE = 0x20000, 0x10000000, 0x1000, 0x4000, 0x80000
def check(result):
    if result:
        raise OSError(ctypes.get_errno(), "no mounts can be made here")
check(c.unshare(MOUNTS | (USERS if os.geteuid() else 0)))
check(c.mount(b"none", b"/", None, RECURSIVE | SLAVE, None))
# A device by the name of a GPU's, in a /dev of this process's own.
top = os.fsencode(os.path.dirname(__file__)) + b"/dev"
os.mkdir(top)
open(top + b"/nvidia0", "w").close()
check(c.mount(b"/dev/null", top + b"/nvidia0", None, BIND, None))
check(c.mount(top, b"/dev", None, BIND | RECURSIVE, None))
gpu = os.open("/dev/nvidia0", os.O_RDWR)
"""
HARMLESS = {
    "thread of an allocator": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nident = ctypes.c_ulong()\n"
        "libc.pthread_create(ctypes.byref(ident), None, libc.sleep, ctypes.c_void_p(60))\n"
        "libc.pthread_setname_np(ident, b'jemalloc_bg_thd')"
    ),
    "file that is read": "words = open(__file__)",
    "devices": "null = open('/dev/null', 'w')\nrandom = open('/dev/urandom', 'rb')",
    "thread that has ended": "import threading\nthread = threading.Thread(target=int)\nthread.start()\nthread.join()",
    "thread that is about to end": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nident = ctypes.c_ulong()\n"
        "libc.pthread_create(ctypes.byref(ident), None, libc.usleep, ctypes.c_void_p(150_000))"
    ),
    "program that has ended": "import subprocess\nsubprocess.run(['true'])",
    "program that nobody waits for": (
        "import subprocess, time\nchild = subprocess.Popen(['true'], close_fds=True)\n"
        "while open(f'/proc/{child.pid}/stat').read().split()[2] != 'Z':\n    time.sleep(0.01)"
    ),
    "proxy of what is gone": (
        "import sys, types, weakref\nclass Gone: pass\nproxy = weakref.proxy(Gone())\n"
        "urllib3 = sys.modules['urllib3.poolmanager'] = types.ModuleType('urllib3.poolmanager')\n"
        "urllib3.PoolManager = type('PoolManager', (), {})"
    ),
    "pool that cannot be closed": (
        "import sys, types\nclass Pool:\n    def close(self): raise RuntimeError('in use')\n"
        "httpcore = sys.modules['httpcore'] = types.ModuleType('httpcore')\n"
        "httpcore.ConnectionPool = Pool\npool = Pool()"
    ),
    "what stands in for libraries": (
        "import sys, types\n"
        "for name in ('torch', 'tqdm.std', 'urllib3.poolmanager', 'httpcore', 'cv2', 'numexpr'):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        "sys.modules['cv2'].getNumThreads = sys.modules['cv2'].setNumThreads = lambda number: None"
    ),
    "event loop that is closed": "import asyncio\nasyncio.run(asyncio.sleep(0))",
    "socket that is closed": "import socket\nsocket.socketpair()",
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_cannot_be_forked_is_named(start: Start, name: str) -> None:
    code, cause = OBSTACLES[name]
    one = start(code + FUNCTION, helper=HELPER)
    one.boot("run")

    said = one.template.report()

    assert list(said) == ["unfit"]
    assert re.fullmatch(f"{cause}. A copy would not have it, or not its own: {re.escape(ADVICE)}", said["unfit"])
    assert one.template.process.wait(20) == 0


def test_what_to_do_is_said_however_much_is_in_the_way() -> None:
    many = Found(tuple(f"the thread {number} of {'a-long-name' * 5} runs" for number in range(40)))

    assert len(many.cause) < 500
    assert many.cause.endswith(ADVICE)
    assert "; and 37 more. A copy" in many.cause
    assert many.cause.startswith("the thread 0 of")
    assert Found(()).cause == ""


def test_device_of_a_gpu_that_is_open_is_named_without_torch(start: Start) -> None:
    one = start(GPU + FUNCTION)
    one.boot("run")

    said = one.template.report()

    if "no mounts can be made here" in said.get("failed", ""):
        pytest.skip(said["failed"])
    assert said == {
        "unfit": f"CUDA is in use, which no fork can go on with. A copy would not have it, or not its own: {ADVICE}"
    }


@pytest.mark.parametrize("name", HARMLESS)
def test_what_can_be_forked_is(start: Start, name: str) -> None:
    one = start(HARMLESS[name] + FUNCTION)
    one.ready("run")

    one.fork()

    assert one.call() is None


def test_connection_is_named_by_who_is_at_its_other_end(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        holder = (
            "import socket\nclass Pool: pass\npool = Pool()\n"
            f"pool.one = socket.create_connection(('127.0.0.1', {port}))"
        )
        one = start("import holder" + FUNCTION, holder=holder)
        one.boot("run")

        said = one.template.report()

    assert said["unfit"].startswith(f"a connection to 127.0.0.1:{port} is open, in module holder. ")


def test_what_can_only_be_asked_in_vain_is_in_the_way_of_no_name(start: Start) -> None:
    code = (
        "import asyncio, socket, weakref\nclass Gone: pass\nproxy = weakref.proxy(Gone())\n"
        "class Odd(socket.socket):\n    def fileno(self): raise RuntimeError('not yet')\nodd = Odd()\n"
        "class Loop(asyncio.AbstractEventLoop): pass\nnever_made = Loop()\n"
        "listener = socket.create_server(('127.0.0.1', 0))"
    )
    one = start(code + FUNCTION)
    one.boot("run")

    told = one.template.report()["unfit"].partition(". A copy")[0].split("; ")

    assert told[0] == "a socket is open"
    assert re.fullmatch(r"a socket is listening at 127\.0\.0\.1:\d+, in module user_code", told[1])


def test_many_obstacles_are_not_all_told(start: Start) -> None:
    one = start("files = [open(f'{__file__}{number}', 'w') for number in range(10)]" + FUNCTION)
    one.boot("run")

    *told, more = one.template.report()["unfit"].partition(". ")[0].split("; ")

    assert 1 <= len(told) <= 6
    assert more == f"and {10 - len(told)} more"


@pytest.mark.parametrize(
    ("qualname", "code", "cause"),
    [
        ("run", "raise LookupError('nothing there')", "cannot load function run: LookupError: nothing there"),
        ("gone", FUNCTION, "cannot load function gone: AttributeError: module 'user_code' has no attribute 'gone'"),
        ("run", "import sys\nsys.exit('enough')", "cannot load function run: SystemExit: enough"),
    ],
)
def test_function_that_cannot_be_loaded_makes_no_template(start: Start, qualname: str, code: str, cause: str) -> None:
    one = start(code)
    one.boot(qualname)

    assert one.template.report() == {"failed": cause}
    assert one.template.process.wait(20) == 0


HOOK = """
import squall
app = squall.App("broken")
@app.cls(enable_memory_snapshot=True)
class Model:
    @squall.enter(snap=True)
    def load(self):
        raise ValueError("no model")
    @squall.method()
    def run(self):
        return 1
"""


def test_hook_that_raises_makes_no_template(start: Start) -> None:
    one = start(HOOK)
    one.boot("Model", is_class=True)

    said = one.template.report()

    assert said == {"failed": "a hook with @squall.enter(snap=True) has raised ValueError: no model"}


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("ValueError('not now')", {"unfit": "it cannot be made ready to be copied: ValueError: not now"}),
        ("OSError('disk full')", {"failed": "it cannot be made ready to be copied: OSError: disk full"}),
    ],
    ids=["unfit", "failed"],
)
def test_whatever_fails_while_it_gets_ready_is_told(start: Start, raised: str, said: dict[str, str]) -> None:
    code = (
        f"import sys\nclass Torch:\n    @property\n    def cuda(self): raise {raised}\nsys.modules['torch'] = Torch()"
    )
    one = start(code + FUNCTION)
    one.boot("run")

    assert one.template.report() == said
    assert one.template.process.wait(20) == 0


def test_what_is_written_to_a_copy_of_stdout_is_the_forks(start: Start) -> None:
    one = start("import os\ncopy = os.dup(1)\ndef run():\n    os.write(copy, b'to the copy\\n')\n")
    one.ready("run")
    fork = one.fork()
    one.call()

    assert "to the copy" in one.stop(fork)[1]
    one.template.leave()
    assert one.template.printed() == ""


def test_what_was_begun_of_a_line_is_the_templates(start: Start) -> None:
    one = start("print('begun', end='')\ndef run():\n    print('whole')\n")
    one.ready("run")
    fork = one.fork()
    one.call()

    assert "begun" not in one.stop(fork)[1]
    one.template.leave()
    assert one.template.printed() == "begun\n"


CLIENTS = {
    "urllib3": "import urllib3\npool = urllib3.PoolManager()\ndef get(url):\n    return pool.request('GET', url).data",
    "httpx": "import httpx\nclient = httpx.Client()\ndef get(url):\n    return client.get(url).content",
}


@pytest.mark.parametrize("name", CLIENTS)
def test_idle_http_connections_are_closed_and_made_again(start: Start, name: str) -> None:
    with http_server() as port:
        one = start(f"{CLIENTS[name]}\ndef run():\n    return get('http://127.0.0.1:{port}')\nrun()\n")
        one.ready("run")
        one.fork()

        assert one.call() == b"pong"


def test_client_of_an_event_loop_is_in_the_way(start: Start) -> None:
    with http_server() as port:
        code = (
            "import asyncio, httpx\nclient = httpx.AsyncClient()\n"
            f"asyncio.run(client.get('http://127.0.0.1:{port}'))" + FUNCTION
        )
        one = start(code)
        one.boot("run")

        assert one.template.report()["unfit"].startswith(f"a connection to 127.0.0.1:{port} is open")


BARS = """
import tqdm
for _ in tqdm.tqdm(range(3)):
    pass
seen = tqdm.tqdm.monitor is not None
def run():
    for _ in tqdm.tqdm(range(3)):
        pass
    return seen, tqdm.tqdm.monitor.is_alive()
"""


def test_monitor_of_progress_bars_is_ended_and_begins_again(start: Start) -> None:
    pytest.importorskip("tqdm")
    one = start(BARS)
    one.ready("run")
    one.fork()

    assert one.call() == (True, True), "the template had one, and so has the fork"


def test_threads_of_a_fork_are_started_as_anywhere(start: Start) -> None:
    # What notes who starts a thread is taken away again.
    one = start("import threading\ndef run():\n    return threading.Thread.start.__module__\n")
    one.ready("run")
    one.fork()

    assert one.call() == "threading"


@contextmanager
def http_server() -> Iterator[int]:
    """One that keeps connections open; its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"pong")

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
