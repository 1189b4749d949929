"""An app that stays: deploy it, and call it by name from any program.

squall deploy examples/calls/deployed.py
python -c 'import squall; print(squall.Function.from_name("greeter", "greet").remote("world"))'
"""

import squall

app = squall.App("greeter")


@app.function()
def greet(name: str) -> str:
    return f"hello {name}"
