"""An image that is built once, by whoever makes images, and used by its name wherever else.

A recipe is a function from image to image, applied by `pipe`. `cmd` is what the image runs where nothing is said, such
as outside Squall after `squall image push`; functions do not heed it.
"""

import squall

app = squall.App("published")


def with_greeting(image: squall.Image, words: str) -> squall.Image:
    return image.env({"GREETING": words}).run_commands('echo "$GREETING" > /etc/greeting')


image = squall.Image.debian_slim().pipe(with_greeting, "hello from the recipe").cmd(["cat", "/etc/greeting"])

# Looked up when this app is run, and never built by it.
reader = squall.App("reader", image=squall.Image.from_name("example-greeting:1"))


@reader.function()
def read() -> str:
    with open("/etc/greeting") as file:
        return file.read().strip()


@app.local_entrypoint()
def main() -> None:
    image.build(app).publish("example-greeting:1")
    with reader.run():
        print("read", read.remote())
