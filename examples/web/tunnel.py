"""A port of a container that others reach while a function runs: what speaks there need not be HTTP.

squall run examples/web/tunnel.py
"""

import socket

import squall

app = squall.App("web-tunnel")


@app.function(timeout=600)
def shout():
    """Yields where it is found, and answers whoever connects there first, line by line."""
    with socket.create_server(("0.0.0.0", 9000)) as listener, squall.forward(9000, unencrypted=True) as tunnel:
        yield tunnel.tcp_socket
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as lines:
            for line in lines:
                lines.write(line.upper())
                lines.flush()


@app.local_entrypoint()
def main(text: str = "hello from outside"):
    for host, port in shout.remote_gen():
        print(f"{host}:{port} leads to a container")
        with socket.create_connection((host, port)) as connection, connection.makefile("rw") as lines:
            lines.write(text + "\n")
            lines.flush()
            print(lines.readline(), end="")
