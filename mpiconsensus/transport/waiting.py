"""Waiting for others without taking their cores: a counter in shared memory that the kernel wakes its readers for."""

import ctypes
import os
import platform
import sys
import time

# A nap costs its length, about 60 us of timer slack, and some 15 us of processor at the end: naps grow with the time
# that was waited already, so that a long wait costs little and a short one ends soon.
NAP_S, LONGEST_NAP_S, GROWTH = 5e-5, 2e-3, 1.25
SPINS = 50
YIELDS = 2000
# On crowded cores a rank offers its core this long before it sleeps: to sleep and to be woken costs tens of
# microseconds where a core falls idle in between. Longer, and ranks that compute would share a core beside it.
OFFER_S = 1e-4
SPIN_S = 1e-3
# Whoever sleeps looks up this often, to see whether the one it waits for is still there.
LOOK_UP_S = 0.2

FUTEX_WAIT, FUTEX_WAKE = 0, 1
SYSCALLS = {"x86_64": 202, "aarch64": 98, "ppc64le": 221, "riscv64": 98}


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _futex():
    """Return futex(address, operation, value, timeout), or None where the system has none."""
    number = SYSCALLS.get(platform.machine())
    # The low half of a counter is what the kernel compares: at the counter's own address on little-endian machines.
    if not sys.platform.startswith("linux") or number is None or sys.byteorder != "little":
        return None
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.argtypes = (
        ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32,
    )  # fmt: skip
    return lambda address, operation, value, timeout: syscall(number, address, operation, value, timeout, None, 0)


futex = _futex()
_PATIENCE = ctypes.byref(_Timespec(0, int(LOOK_UP_S * 1e9)))


class Counter:
    """A counter that one process raises and others wait for; `cell` is 8 aligned bytes of memory shared between them."""

    def __init__(self, cell):
        self.cell = cell
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(cell))

    @property
    def value(self):
        return self.cell[0]

    def raise_to(self, value):
        """Set the counter and wake who waits for it."""
        self.cell[0] = value
        self.wake()

    def wake(self):
        """Wake who waits for the counter, so that it looks around."""
        if futex:
            futex(self._address, FUTEX_WAKE, 1 << 30, None)

    def wait(self, value, crowded, look_up):
        """Return when the counter is at least `value`; look_up() is called now and then and may raise.

        crowded: more ranks than cores, so that whoever waits may hold the core of the late one.
        """
        if not self._offer(value, crowded):
            self._sleep(value, crowded, look_up)

    def wait_some(self, value, end_s, crowded, stop, longest_s=LOOK_UP_S):
        """Return whether the counter came to be at least `value` before time.monotonic() was `end_s` or stop() true.

        stop() is asked whenever the counter was raised or woken, and longest_s apart at most; it may raise.
        """
        there = self._offer(value, crowded)
        while not there:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or stop():
                return self.value >= value
            now = self.cell[0]
            there = now >= value
            if not there and futex:
                nap = _Timespec(0, int(1e9 * min(left_s, longest_s)))
                futex(self._address, FUTEX_WAIT, now & 0xFFFFFFFF, ctypes.byref(nap))
            elif not there:
                time.sleep(min(left_s, LONGEST_NAP_S))
        return True

    def _offer(self, value, crowded):
        """Return whether the counter came to be `value` while this rank offered its core, or spun."""
        cell, turn, patience = self.cell, 0, time.perf_counter() + (OFFER_S if crowded else SPIN_S)
        while cell[0] < value:
            turn += 1
            if crowded or turn > SPINS:
                os.sched_yield()
                if time.perf_counter() > patience:
                    return False
        return True

    def _sleep(self, value, crowded, look_up):
        if futex is None:
            wait_until(lambda: self.cell[0] >= value, crowded, look_up)
            return
        while True:
            now = self.cell[0]
            if now >= value:
                return
            # The kernel sleeps only if the counter still is what was read: no raise is missed. Asleep, a rank makes
            # room; one that spins or yields still counts as running and has two that compute left on one core.
            if futex(self._address, FUTEX_WAIT, now & 0xFFFFFFFF, _PATIENCE) != 0 and self.cell[0] == now:
                look_up()


def wait_until(ready, crowded, look_up=lambda: None):
    """Return when ready() is true, asked again and again with naps in between; for what no counter tells."""
    turns, nap_s, looked = 0, NAP_S, time.monotonic()
    while not ready():
        turns += 1
        if turns <= SPINS:
            continue
        if crowded or turns > YIELDS:
            time.sleep(nap_s)
            nap_s = min(LONGEST_NAP_S, GROWTH * nap_s)
            if time.monotonic() - looked > LOOK_UP_S:
                look_up()
                looked = time.monotonic()
        else:
            os.sched_yield()


def poll(ready, seconds, stop, longest_s=LONGEST_NAP_S):
    """Return whether ready() came true within `seconds` and before stop() did, asked with naps of at most longest_s in between."""
    end_s, nap_s = time.monotonic() + seconds, NAP_S
    while not ready():
        left_s = end_s - time.monotonic()
        if left_s <= 0 or stop():
            return ready()
        time.sleep(min(left_s, nap_s))
        nap_s = min(longest_s, GROWTH * nap_s)
    return True
