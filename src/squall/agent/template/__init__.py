"""Templates of functions, and containers made ahead of their starts.

    key.py       which starts can begin as copies of the same template
    template.py  one template, with what is made ahead of it
    templates.py all of a node: made, found again, dropped
    cells.py     makes what clones live in, and lets them begin
    demand.py    how many are to be kept ready
    pools.py     keeps them ready
    verdicts.py  why some cannot be
    memory.py    how much all of them may use

A start never fails because a template did: whatever goes wrong here, it takes the plain path.
"""
