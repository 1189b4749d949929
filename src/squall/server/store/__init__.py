"""What keeps the server's memory: rows in SQL (or in memory, for tests), blobs in a folder or bucket, logs in files.

The contracts are in `server/model/`; nothing here knows what a call is for or when it should run.
"""
