"""Objects of a class: each set of parameters has containers of its own, and so has each set of options.

squall run examples/calls/parameters.py
squall run examples/calls/parameters.py::Greeter.greet --language en --name Ada
"""

import os

import squall

app = squall.App("parameters")


@app.cls(scaledown_window=5)
class Greeter:
    language: str = squall.parameter()
    punctuation: str = squall.parameter(default="!")

    @squall.enter()
    def load(self):
        self.word = {"en": "Hello", "de": "Hallo", "fr": "Bonjour"}[self.language]

    @squall.method()
    def greet(self, name: str) -> str:
        return f"{self.word} {name}{self.punctuation}"

    @squall.method()
    def where(self) -> str:
        return os.environ.get("STAGE", "nowhere")


@app.local_entrypoint()
def main():
    german, english = Greeter(language="de"), Greeter(language="en", punctuation="?")
    greetings = [german.greet.remote("Ada"), english.greet.remote("Ada")]

    # The same class with other options: a pool of containers of its own.
    staged = Greeter.with_options(env={"STAGE": "test"}, timeout=60).with_concurrency(max_inputs=4)
    print(greetings, staged(language="fr").where.remote(), german.where.remote())
