"""Files of any size, on to a volume; nowhere are they whole in memory.

squall deploy examples/web/upload.py
curl -F file=@large.bin http://web-upload-files.localhost:7855/
squall volume ls uploads
"""

import hashlib
from pathlib import PurePosixPath

import squall

image = squall.Image.debian_slim().uv_pip_install("fastapi", "python-multipart")
app = squall.App("web-upload", image=image)
uploads = squall.Volume.from_name("uploads", create_if_missing=True)


@app.function(volumes={"/uploads": uploads}, timeout=3600)
@squall.concurrent(max_inputs=10)
@squall.asgi_app()
def files():
    from fastapi import FastAPI, UploadFile

    web = FastAPI()

    @web.post("/")
    def upload(file: UploadFile):
        digest, size = hashlib.sha256(), 0
        with open(f"/uploads/{PurePosixPath(file.filename).name}", "wb") as out:
            while chunk := file.file.read(2**20):
                out.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        uploads.commit()
        return {"bytes": size, "sha256": digest.hexdigest()}

    return web
