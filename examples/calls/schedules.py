"""Functions that are called by themselves, once their app is deployed.

squall deploy examples/calls/schedules.py
squall schedule list
squall schedule run reports/nightly
squall app stop reports
"""

import squall

app = squall.App("reports")


@app.function(schedule=squall.Cron("0 6 * * MON-FRI", timezone="Europe/Berlin"), retries=3, timeout=600)
def nightly() -> str:
    print("writing the report of the night")
    return "report.pdf"


@app.function(schedule=squall.Period(seconds=2))
def heartbeat() -> None:
    print("alive")
