"""Checks that launch.sh runs with the system's Python, before there is an environment. Any Python 3 runs it.

`python bootstrap.py probe`: prints 'ok PATH' if this Python can run cnnjax, else its version and what it lacks.
`python bootstrap.py lock FOLDER`: locks file descriptor 9, which the shell keeps open while it installs into FOLDER.
"""

import signal
import sys

SUPPORTED = ((3, 11), (3, 13))  # the oldest and the newest version


def probe():
    """Returns 'ok PATH' if this Python can run cnnjax, else its version, with advice if its module venv is missing."""
    version = "{}.{}".format(*sys.version_info)
    try:
        import ensurepip, venv  # noqa: E401, F401, I001
    except ImportError:
        return version + " without its venv module (on Debian: apt install python" + version + "-venv)"
    return "ok " + sys.executable if SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1] else version


def lock(folder):
    """Locks file descriptor 9, opened by the shell, and waits as long as another process holds the lock.

    `folder` is the folder to install into, for messages. On a file system without locks, prints advice and returns.
    """
    import fcntl

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("launch.sh: waiting for another installation into " + folder, file=sys.stderr)
        fcntl.flock(9, fcntl.LOCK_EX)
    except OSError:
        advice = "if several processes share it, run launch.sh once, alone, before them"
        print("launch.sh: the file system of " + folder + " does not support locks: " + advice, file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1] == "probe":
        print(probe())
    else:
        lock(sys.argv[2])
