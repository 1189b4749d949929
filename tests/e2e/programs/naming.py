"""Images by id and by name: built, published, used by others, published anew."""

import squall

app = squall.App("naming")
made = squall.Image.debian_slim().run_commands("echo first > /which")
other = squall.Image.debian_slim().run_commands("echo second > /which")
named = squall.Image.from_name("naming-test:stable")


@app.function(image=named, serialized=True)
def which() -> str:
    with open("/which") as file:
        return file.read().strip()


@app.function(image=named.run_commands("tr a-z A-Z < /which > /more"), serialized=True)
def more() -> str:
    with open("/more") as file:
        return file.read().strip()


@app.function(serialized=True, image=made)
def by_name_inside() -> str:
    def read() -> str:
        with open("/which") as file:
            return file.read().strip()

    child = squall.App("inside")
    found = child.function(image=squall.Image.from_name("naming-test:stable"), serialized=True)(read)
    with child.run():
        return str(found.remote())


def try_it() -> None:
    """No entrypoint of an app: the name is to be there before the app runs."""
    try:
        named.hydrate()
    except squall.exception.NotFoundError as error:
        print("missing:", error)
    for image in (made, other):
        image.build()
        image.publish("naming-test:stable")
        with app.run():
            print(which.remote(), more.remote())
    print("same:", squall.Image.from_name("naming-test:stable").hydrate().object_id == other.object_id)
    by_id = squall.Image.from_id(made.object_id)
    with app.run():
        print("inside:", by_name_inside.remote())
    second = squall.App("by-id", image=by_id)
    found = second.function(serialized=True)(which.raw_f)
    with second.run():
        print("by id:", found.remote())
    try:
        third = squall.App("none", image=squall.Image.from_id("im-0123456789abcdef0123456789abcdef"))
        third.function(serialized=True)(which.raw_f)
        with third.run():
            pass
    except squall.exception.Error as error:
        print("none:", type(error).__name__)


if __name__ == "__main__":
    try_it()
