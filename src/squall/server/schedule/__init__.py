"""Decide when functions with a schedule are due, and what becomes of a schedule in a deploy.

Records in, records out. Nothing here reads a clock or the store: the caller passes the time and keeps what it gets.

Invariants:
  * what is due next is later than now and than what was due last
  * of all that was missed while nobody looked, the first is still due, once; the others are passed over
  * a cron schedule that a deploy leaves as it was is not moved by it; a period is counted from the deploy
"""
