"""The program inside a container: loads one function, runs its inputs, tells the server.

Standard library and cloudpickle only, Python 3.10 and later. Started as `python3 -u -m squall.guest`. Threads: the
main one runs synchronous user code, or the event loop of asynchronous user code; one watcher sees to it that the
connection is read, and outputs leave, while user code keeps the main thread busy.
"""
