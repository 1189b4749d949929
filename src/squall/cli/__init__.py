"""The `squall` command: one file per noun, click for parsing, the SDK's client for talking to the server.

Results go to standard output, everything about how it goes to standard error, so that pipes stay clean. Every list
has `--json`. An error is one message (operation, object, cause, what to do) and exit code 1; wrong usage is 2.
"""
