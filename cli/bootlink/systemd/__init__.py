"""`bootlink up` as a service of this machine's systemd.

files.py         what the unit and its settings file say                      (pure)
installation.py  the user, the folders and the files made, and taken away
"""
