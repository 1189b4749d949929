"""Files of any size, on to a volume and back; nowhere are they whole in memory.

squall deploy examples/web/upload.py
curl -F file=@large.bin http://web-upload-files.localhost:7855/
curl -O http://web-upload-files.localhost:7855/large.bin
squall volume ls web-uploads
"""

import hashlib
from pathlib import Path

import squall

image = squall.Image.debian_slim().uv_pip_install("fastapi", "python-multipart")
app = squall.App("web-upload", image=image)
uploads = squall.Volume.from_name("web-uploads", create_if_missing=True)
FOLDER = Path("/uploads")


# The time limit is for a whole upload, however slow its client is.
@app.function(volumes={str(FOLDER): uploads}, timeout=3600)
@squall.concurrent(max_inputs=10)
@squall.asgi_app()
def files():
    from fastapi import FastAPI, HTTPException, UploadFile
    from fastapi.responses import FileResponse

    web = FastAPI()

    def place(name: str | None) -> Path:
        # What a client calls its file is not to be believed.
        if not name or Path(name).name != name:
            raise HTTPException(400, f"{name!r} is no name of a file")
        return FOLDER / name

    # A plain `def`: FastAPI runs it in a thread, so that other requests go on meanwhile.
    @web.post("/")
    def upload(file: UploadFile) -> dict[str, str | int]:
        path = place(file.filename)
        digest = hashlib.sha256()
        with path.open("wb") as out:
            while piece := file.file.read(2**20):
                out.write(piece)
                digest.update(piece)
        uploads.commit()
        return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}

    @web.get("/{name}")
    def download(name: str) -> FileResponse:
        path = place(name)
        if not path.is_file():
            raise HTTPException(404, f"no file {name!r}")
        return FileResponse(path)

    return web
