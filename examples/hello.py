import squall

app = squall.App("hello")

@app.function()
def square(x: int) -> int:
    print(f"squaring {x}")
    return x * x

@app.local_entrypoint()
def main(n: int = 10):
    print(square.remote(7))                  # runs in a container
    print(list(square.map(range(n))))        # in many, in order
    print(square.local(3))                   # right here
