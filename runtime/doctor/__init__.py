"""Whether this machine is ready, and what mends it if not: `examine.examine` gives a `Report`.

    report.py      what was found, as data
    processor.py   the machine
    trials.py      tries what is installed, each part in a process of its own: probe.py
    conflicts.py   what does not go together
    abilities.py   what each engine and command lacks
    examine.py     all of it

The doctor itself imports nothing that may be broken: not numpy, not OpenCV, no engine.
"""
