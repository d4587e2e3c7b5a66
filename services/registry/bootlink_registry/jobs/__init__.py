"""Long work: what takes longer than a request may wait for is a row first, and is done in the background.

How it works. A request puts a job into the table, in the transaction of its own changes, and answers 202 with it. One
registry (whoever holds a session lock) runs the jobs, some at a time, oldest first. A job is

    queued      nobody has begun it, or it is to begin again
    running     its function is at work
    done        it has a result
    failed      it has a problem: what is wrong and what to do
    cancelled   somebody asked for that, and it had not ended before

Each of these steps is one transaction with its event `job.changed`. How far a running job is goes out as
`job.progress`, now and then, and may be lost.

A registry that is killed leaves its jobs `running`; the next one begins them again, as another attempt with the same
request. So a job's function looks for what is done already. Where its last step changes the database, it ends the job
in that very transaction (`Work.finish`): then the change and the job's end are one, and neither is done twice.
"""

from bootlink_registry.jobs.queue import JobRow, cancel, get_job, list_jobs, submit
from bootlink_registry.jobs.runner import Runner
from bootlink_registry.jobs.work import JobKind, Work

__all__ = ["JobKind", "JobRow", "Runner", "Work", "cancel", "get_job", "list_jobs", "submit"]
