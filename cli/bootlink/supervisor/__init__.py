"""`bootlink up`: keeps the engines and the services running on one machine, each a process of its own.

lines.py       a child's output as log lines, each of bounded length          (pure)
backoff.py     how long to wait before a child is started again               (pure)
program.py     what a child is: command, environment, how it shows that it is ready, how it is told to stop
keeper.py      one child, started and restarted until it is told to stop
supervisor.py  all children: the order of start and stop, the first failure
display.py     what happens, shown to people, to the journal or as JSON lines
notify.py      what systemd is told
folder.py      the data folder and its lock
machine.py     this machine: network cards, privileges
settings.py    what `up` reads from the environment
plan.py        settings in, programs out: what will run, with which environment
"""
