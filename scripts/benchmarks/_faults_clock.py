"""A process whose clock is wrong: a library that is loaded before the C library's own.

Shifted is what Python, OpenSSL and libpython read as the time of day. gRPC is left out: it hands
the kernel moments of the day to sleep until, which a clock that is wrong for the whole machine
would leave right, and this would not. Needs a C compiler and Linux.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

SECONDS: Final = "FEDNER_SKEW_S"

_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *shifted[] = {"python", "libpython", "libcrypto", "libssl", "_ssl", "_rust", 0};

static long skew_for(void *caller) {
    Dl_info info;
    const char *said = getenv("FEDNER_SKEW_S");
    if (!said || !dladdr(caller, &info) || !info.dli_fname) return 0;
    const char *name = strrchr(info.dli_fname, '/');
    name = name ? name + 1 : info.dli_fname;
    for (int i = 0; shifted[i]; i++)
        if (!strncmp(name, shifted[i], strlen(shifted[i]))) return atol(said);
    return 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int code = syscall(SYS_clock_gettime, id, now);
    if (!code && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += skew_for(__builtin_return_address(0));
    return code;
}

time_t time(time_t *out) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    time_t found = now.tv_sec + skew_for(__builtin_return_address(0));
    if (out) *out = found;
    return found;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec + skew_for(__builtin_return_address(0));
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


def wrong_clock(folder: Path, seconds: int) -> dict[str, str]:
    """Environment of a process whose clock is so much ahead; of its children, too.

    Raises:
        OSError: no C compiler.
        subprocess.CalledProcessError: it does not compile.
    """
    library = folder / "clock.so"
    if not library.exists():
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), "-x", "c", "-", "-ldl"]
        subprocess.run(command, input=_SOURCE, text=True, check=True, capture_output=True)
    before = os.environ.get("LD_PRELOAD")
    preload = str(library.absolute()) + (f":{before}" if before else "")
    return {"LD_PRELOAD": preload, SECONDS: str(seconds)}
