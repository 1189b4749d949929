"""Environments, tags and versions: what is deployed is told apart, held to, and gone back to.

python examples/calls/versions.py
squall app history prices --env staging
squall app rollback prices v1 --env staging
squall environment delete staging
"""

import os

import squall


def price(amount: int) -> int:
    return amount * int(os.environ["RATE"])


def prices(rate: int) -> squall.App:
    app = squall.App("prices", tags={"team": "shop"})
    app.function(name="price", env={"RATE": str(rate)})(price)
    return app


def main() -> None:
    # Names of one environment are nothing to another: tried here, and deployed to "main" when it is good.
    squall.Environment.from_name("staging", create_if_missing=True).hydrate()
    prices(2).deploy(environment_name="staging", tag="spring")
    prices(3).deploy(environment_name="staging", tag="summer")
    print(squall.App.lookup("prices", environment_name="staging").get_tags())

    now = squall.Function.from_name("prices", "price", environment_name="staging")
    held = squall.Function.from_name("prices", "price", version=1, environment_name="staging")
    print("now:", now.remote(10), "in version 1:", held.remote(10))


if __name__ == "__main__":
    main()
