"""Task management: aborts and resets (RFC 7143, section 11.5; SAM-5, section 7).

A function is answered when the tasks it hits are dead, not before: nothing of them may reach the disk after the
initiator was told so. A task that still takes data dies at once; one that runs dies when it comes back, unanswered.
That of a session which has ended meanwhile is waited for as any other.

    function                    hits                                  besides
    ABORT TASK                  one task                              a command that never came counts as received
    ABORT TASK SET              this session's tasks on the unit
    CLEAR TASK SET              every session's tasks on the unit     (each session has a task set of its own here, so
                                                                      it is this session's too)
    LOGICAL UNIT RESET          every session's tasks on the unit     unit attention for every session; RESERVE(6) and
                                                                      changed mode pages end
    TARGET WARM RESET           the same on all units                 the same on all units
    TARGET COLD RESET           the same on all units                 and every session of this client ends, answered

TASK REASSIGN is of recovery level 2, and CLEAR ACA has nothing to clear. While FUNCTIONS_LIMIT of them
wait, more are rejected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bootlink_blockstore.scsi.device import LogicalUnit, Outcome
from bootlink_blockstore.sequence import MASK, Host
from bootlink_blockstore.tasks import Tasks
from bootlink_blockstore.transfer import Abort, Task
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire import scsi_cdb
from bootlink_wire.iscsi_codes import TaskFunction, TaskResult

FUNCTIONS_LIMIT: Final = (
    16  # that wait at once: they are immediate, so no window bounds them; initiators send one or two
)

ON_A_UNIT: Final = (
    TaskFunction.ABORT_TASK_SET,
    TaskFunction.CLEAR_ACA,
    TaskFunction.CLEAR_TASK_SET,
    TaskFunction.LOGICAL_UNIT_RESET,
)


class Management(Tasks):
    """A session's task management."""

    def __init__(self, host: Host, on_error: Callable[[str], None]) -> None:
        super().__init__(host, on_error)
        self._functions = 0  # that wait for tasks to be dead

    def manage(self, request: pdu.TaskRequest) -> None:
        """Do what is asked, and answer when it is done."""
        function = request.function & 0x7F
        lun = scsi_cdb.lun(request.lun)
        if function in ON_A_UNIT and lun not in self.units:
            self._answer(request, TaskResult.NO_LUN)
        elif self._functions >= FUNCTIONS_LIMIT:
            self._answer(request, TaskResult.REJECTED)
        elif function == TaskFunction.ABORT_TASK:
            self._abort_task(request)
        elif function in (TaskFunction.ABORT_TASK_SET, TaskFunction.CLEAR_TASK_SET):
            self._abort(request, self.tasks_on(lun))
        elif function == TaskFunction.CLEAR_ACA:
            self._answer(request, TaskResult.COMPLETE)
        elif function == TaskFunction.LOGICAL_UNIT_RESET:
            self._reset(request, [self.units[lun]])
        elif function in (TaskFunction.TARGET_WARM_RESET, TaskFunction.TARGET_COLD_RESET):
            self._reset(request, list(self.units.values()), cold=function == TaskFunction.TARGET_COLD_RESET)
        elif function == TaskFunction.TASK_REASSIGN:
            self._answer(request, TaskResult.NO_REASSIGN)
        else:
            self._answer(request, TaskResult.NOT_SUPPORTED)

    def tasks_on(self, lun: int) -> list[Task]:
        """This session's tasks on a logical unit."""
        return [task for task in self.tasks.values() if task.lun == lun]

    def kill(self, tasks: list[Task], done: Callable[[], None]) -> None:
        """Let these tasks of this session die, and call `done` when all are dead."""
        abort = Abort(tasks, done)
        for task in tasks:
            task.aborted = True
        for task in tasks:
            if not task.running:
                self._forget(task)
        abort.arm()

    def _abort_task(self, request: pdu.TaskRequest) -> None:
        task = self.tasks.get(request.referenced)
        if task is not None:
            self._abort(request, [task])
            return
        # A command that was not received, and whose number is between the window's start and this request's: it was
        # never sent, or is lost. It counts as received, or its number would block the window (RFC 7143, 11.5.1).
        ahead = request.refcmdsn - self._exp_cmdsn & MASK
        if ahead < (request.cmdsn - self._exp_cmdsn & MASK) < 1 << 31:
            self._skip(request.refcmdsn)
            self._answer(request, TaskResult.COMPLETE)
        else:
            self._answer(request, TaskResult.NO_TASK)

    def _skip(self, cmdsn: int) -> None:
        """This command will not come."""
        if cmdsn == self._exp_cmdsn:
            self._advance()
            self._max_cmdsn = self._max_cmdsn + 1 & MASK
        else:
            self._skipped.add(cmdsn)
            self._out_of_order()

    def _abort(self, request: pdu.TaskRequest, tasks: list[Task]) -> None:
        self._functions += 1
        self.kill(tasks, lambda: self._complete(request))

    def close(self, why: str) -> None:
        """End the session."""
        raise NotImplementedError

    def _reset(self, request: pdu.TaskRequest, units: list[LogicalUnit], *, cold: bool = False) -> None:
        """Every session's tasks on these units die, and every session is told, this one too (SAM-5, section 6.3.3);
        or, where it is cold, ends."""
        nexuses = [nexus for unit in units for nexus in (*unit.nexuses, *unit.ending)]
        sessions = {session for nexus in nexuses if isinstance(session := nexus.session, Management)}
        left = len(sessions)
        self._functions += 1

        def one_done() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self._complete(request)
                self.host.wake()
                if cold:
                    for session in sessions:
                        session.close("target cold reset")
                        session.host.wake()

        for unit in units:
            unit.reset()
        for session in sessions:
            hit = [task for task in session.tasks.values() if task.unit in units]
            session.kill(hit, one_done)
            if session is not self and session.out:  # it has room now for data that it waited to ask for
                session.host.wake()

    def _respond(self, task: Task, outcome: Outcome) -> None:
        """PREEMPT AND ABORT is answered once the tasks of the preempted sessions are dead."""
        hit = [nexus for nexus in outcome.abort if nexus is not task.nexus]
        if not hit:
            super()._respond(task, outcome)
            return
        left = len(hit)

        def one_done() -> None:
            nonlocal left
            left -= 1
            if left == 0 and self.tasks.get(task.itt) is task and not self.closing:
                super(Management, self)._respond(task, replace(outcome, abort=()))
                self.host.wake()

        for nexus in hit:
            session = nexus.session
            assert isinstance(session, Management)
            session.kill([other for other in session.tasks.values() if other.nexus is nexus], one_done)
            if session.out:
                session.host.wake()

    def _complete(self, request: pdu.TaskRequest) -> None:
        """What the function hit is dead."""
        self._functions -= 1
        self._answer(request, TaskResult.COMPLETE)

    def _answer(self, request: pdu.TaskRequest, result: TaskResult) -> None:
        if not self.closing:
            self.out.append(pdu.TaskResponse(itt=request.itt, response=result, **self._numbers()).encode())
