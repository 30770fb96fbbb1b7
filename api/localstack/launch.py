"""Become a program that ends with its parent and, where requested, does not run as root.

    python -I -S launch.py PARENT SIGNAL IDENTITY PROGRAM [ARGUMENT ...]

A file of its own, run by a fresh interpreter, because what has to be done between fork and exec (a user namespace
needs a process of one thread) is unsafe in a parent with threads. The process id stays the same over the exec.

IDENTITY is `self`, `namespace:UID` (root outside, UID in a user namespace of its own: see user_namespaces(7)) or
`user:UID`. Postgres refuses to run as root; a namespace needs no second owner of files and works below a closed home.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def build_command(
    argv: Sequence[str], *, death_signal: signal.Signals = signal.SIGTERM, identity: str = "self"
) -> list[str]:
    """Build the command line that runs `argv` as a child of this process; it gets `death_signal` when we die.

    Linux ties the signal to the thread that starts the child: start children from a thread that lives as long as they.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(death_signal)), identity, *argv]


@cache
def find_unprivileged_identity() -> str:
    """Return the identity under which a server that refuses root can run here."""
    if os.geteuid() != 0:
        return "self"
    uid = _find_ordinary_uid()
    trial = subprocess.run(build_command(["true"], identity=f"namespace:{uid}"), capture_output=True, check=False)
    return f"namespace:{uid}" if trial.returncode == 0 else f"user:{uid}"


def _find_ordinary_uid() -> int:
    """Return a user of the machine who is not root: initdb looks up its own name, so a free id does not do."""
    users = {user.pw_name: user.pw_uid for user in pwd.getpwall() if user.pw_uid != 0}
    return users.get("nobody") or max(users.values(), default=65534)


def main() -> None:
    """Change the identity, tie the life to the parent's, and become the program."""
    parent, death_signal, identity, *argv = sys.argv[1:]
    kind, _, uid = identity.partition(":")
    if kind == "namespace":
        _enter_namespace(int(uid))
    elif kind == "user":
        _drop_privileges(int(uid))
    _die_with_parent(int(parent), int(death_signal))  # after the change of identity, which clears it (prctl(2))
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):  # an ignored signal would stay ignored
        signal.signal(number, signal.SIG_DFL)
    os.execvp(argv[0], argv)


def _enter_namespace(inner_uid: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are forbidden here")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{inner_uid} {uid} 1"), ("gid_map", f"{inner_uid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text, encoding="ascii")


def _drop_privileges(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def _die_with_parent(parent: int, death_signal: int) -> None:
    if sys.platform != "linux":
        return  # other systems have no such call; there an orphan is stopped at the next start
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:  # it died before the call: no signal will come
        sys.exit("the parent is gone")


if __name__ == "__main__":
    main()
