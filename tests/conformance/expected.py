"""What is known of each test that does not simply pass: why it is skipped, or that the tool itself is wrong.

The interop tests hold every run to these tables, both ways: a skip that is not here is an error, and so is one that is
here and did run. docs/conformance.md is written from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SKIPS_LIMIT: Final = 30  # of 230, as promised in docs/conformance.md

NOT_REMOVABLE: Final = (
    "A network disk has no medium that could be taken out: the removable bit is 0, and the test needs it to be 1."
)
NO_SANITIZE: Final = (
    "SANITIZE promises that nothing of the former content can be recovered from the medium. A write-back is a file, "
    "and what is punched out of a file may lie on the disk below for long. Not implemented rather than not true."
)
ZERO_COUNT: Final = (
    "A WRITE SAME of 0 blocks means all that follow. Page B0 says that this is refused (WSNZ=1), so that no command "
    "is without limit."
)

_PREVENT_ALLOW = ("Simple", "Eject", "ITNexusLoss", "Logout", "WarmReset", "ColdReset", "LUNReset", "2ITNexuses")
_SANITIZE = (
    *("BlockErase", "BlockEraseReserved", "CryptoErase", "CryptoEraseReserved", "ExitFailureMode"),
    *("InvalidServiceAction", "Overwrite", "OverwriteReserved", "Readonly", "Reservations", "Reset"),
)

SKIPS: Final[dict[str, str]] = {
    **{f"PreventAllow.{test}": NOT_REMOVABLE for test in _PREVENT_ALLOW},
    "StartStopUnit.Simple": NOT_REMOVABLE,
    "ReadOnly.ReadOnlySBC": (
        "It needs a disk that is write protected, and a PC's disk is its own to write. On one that was protected by "
        "MODE SELECT (SWP) it passes, as `test_the_read_only_test_passes_on_a_disk_that_is_write_protected` shows."
    ),
    **{f"Sanitize.{test}": NO_SANITIZE for test in _SANITIZE},
    "WriteSame10.ZeroBlocks": ZERO_COUNT,
    "WriteSame16.ZeroBlocks": ZERO_COUNT,
}


@dataclass(frozen=True)
class Defect:
    """A test of libiscsi 1.19 that is wrong, and fails against a disk that is right."""

    asserts: str  # the one assertion that fails
    whole: bool  # it fails in a whole run too, not only alone
    why: str
    proof: str  # the interop test that shows it


DEFECTS: Final[dict[str, Defect]] = {
    "iSCSITMF.LUNResetSimpleAsync": Defect(
        "test_async_lu_reset_simple.c:157  - CU_ASSERT_EQUAL(reconnect_succeeded,1)",
        False,
        "It asserts a flag that only the answer to a task management function sets, before it has sent its own. Alone "
        "in its process the flag cannot be set, whatever the target does; behind AbortTaskSimpleAsync, as in every "
        "whole run, it is, and the test passes.",
        "test_the_reset_test_passes_once_another_has_set_its_flag",
    ),
    "GetLBAStatus.UnmapSingle": Defect(
        'test_get_lba_status_unmap_single.c:135  - CU_FAIL("[FAILED] GETLBASTATUS command: " "lba offset in first '
        'descriptor does not " "match request.")',
        True,
        "It asks for the status of block n + 1 and insists that the answer begins at n + (blocks per physical block): "
        "the same only where a physical block is one logical one. Our physical blocks are 4 KiB, as they are in truth; "
        "with physical blocks of 512 bytes the same code passes.",
        "test_the_unmap_test_passes_where_physical_blocks_are_logical_ones",
    ),
}
