"""The server over HTTP: the twin of every client's method, its description, and the WebSocket that carries frames.

Everything here asks the control plane it is given; nothing here decides.
"""
