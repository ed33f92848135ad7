"""A child that is killed in the middle of its second message, as by the kernel for its memory."""

import os
import signal
import sys

if __name__ == "__main__":
    sys.stdin.readline()
    os.write(1, b'{"number": 0}\n{"numb')
    os.kill(os.getpid(), signal.SIGKILL)
