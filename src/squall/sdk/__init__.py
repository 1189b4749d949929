"""What users import, by way of `squall`: one async core, and a thin blocking face with `.aio` twins.

The core is coroutines that wait only for `Pending` (`_pending.py`). A blocking call drives such a coroutine in the
caller's own thread and an event loop awaits it as any other: nothing is written twice, and a blocking program pays for
no event loop and no second thread on its way to a result.

Loads little: a container imports this before it can do anything for its user.
"""
