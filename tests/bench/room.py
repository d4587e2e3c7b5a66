"""`python -m bench.room HOST PORT FILE COUNT`: so many clients fetch a file at once, each from an address of its own in
10.77.1.0/24. Prints the seconds that each took which got the file whole."""

from __future__ import annotations

import asyncio
import sys
import time

from bench.boot_servers import LOADERS, content
from lab.tftp import Refused, get


async def main(host: str, port: int, file: str, count: int) -> None:
    wanted = content(LOADERS[file])

    async def one(number: int) -> float | None:
        began = time.monotonic()
        try:
            got = await get(
                (host, port), file, options=(("blksize", "1432"), ("tsize", "0")), source=f"10.77.1.{number}"
            )
        except (TimeoutError, OSError, Refused) as error:
            print(f"client {number}: {error!r}", file=sys.stderr)
            return None
        return time.monotonic() - began if got == wanted else None

    for taken in await asyncio.gather(*(one(number) for number in range(1, count + 1))):
        if taken is not None:
            print(taken)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
