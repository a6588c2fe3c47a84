"""One thread a rank that reads ahead for all its vertices, while the others compute."""

import queue
import threading
from concurrent.futures import Future

from mpiconsensus.errors import TrainingError, UserError

PATIENCE_S = 600  # what a file system may take to answer; then the run ends


class Reader:
    """Runs functions one after the other, in the order in which they were given, in a thread of its own.

    The thread begins with the first function. It never keeps a process from ending, whatever it waits for.
    """

    def __init__(self):
        self._tasks, self._thread, self._files = queue.SimpleQueue(), None, []

    def start(self, function, path):
        """Let the thread call `function()`, which reads the file `path`; return the Reading of its result."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mpiconsensus-reader", daemon=True)
            self._thread.start()
        reading = Reading(path)
        self._tasks.put((function, reading.future))
        return reading

    def owns(self, file):
        """Close `file` when this reader is closed."""
        self._files.append(file)

    def close(self):
        """Let the thread finish what it does and end, without waiting for it; the files are closed behind it."""
        if self._thread is None:
            self._close_files()
        self._tasks.put(None)

    def _work(self):
        while (task := self._tasks.get()) is not None:
            function, future = task
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
                future.set_exception(error)
            # What a function holds goes before the next one waits.
            del task, function, future
        self._close_files()

    def _close_files(self):
        for file in self._files:
            file.close()
        self._files = []


class Reading:
    """A result that is under way; `wait()` returns it."""

    def __init__(self, path):
        self.path, self.future = path, Future()

    def wait(self):
        """Return the function's result; raise TrainingError, one line, where it failed or does not come."""
        try:
            return self.future.result(PATIENCE_S)
        except (TrainingError, UserError):
            raise
        except TimeoutError as error:
            if self.future.done():
                raise self._failed(error) from error
            raise TrainingError(f"{self.path} has not been read within {PATIENCE_S:g} s; the file system does not answer.") from None
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error):
        reason = (str(error).splitlines() or [""])[0]
        return TrainingError(f"{self.path} could not be read ahead ({type(error).__name__}: {reason}).")
