"""The SCSI device: one client's disk as its initiators see it (SAM-5, SPC-4, SBC-3 and SBC-4's atomic writes).

    device          logical units, nexuses, and the way of a command to its handler
    table           the one table of commands: names, CDB usage, data, access rules, handlers
    blocks          ranges of blocks that CDBs name, and the limits on them
    reading         READ, VERIFY, PRE-FETCH
    writing         WRITE, WRITE AND VERIFY, COMPARE AND WRITE, ORWRITE, WRITE ATOMIC, SYNCHRONIZE CACHE
    provisioning    UNMAP, WRITE SAME, GET LBA STATUS
    copying         EXTENDED COPY, RECEIVE COPY RESULTS
    describing      INQUIRY, capacity, sense, logs, defects, supported commands
    modes           MODE SENSE and MODE SELECT
    reservations    who may do what: the state of reservations, and its rules
    reserving       PERSISTENT RESERVE IN and OUT, RESERVE(6), RELEASE(6)

What bytes look like is in `bootlink_wire.scsi_*`. Nothing here does I/O: that is the disk's.
"""
