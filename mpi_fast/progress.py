"""Progress: a bar on a terminal, and a line now and then elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

EVERY = 30.0  # s between two lines


class ProgressBar(Progress):
    """A bar that disappears when done; without a terminal, a line every `EVERY` seconds.

    Parameters
    ----------
    screen : Console
    unit : str
        Unit of the counted items.
    """

    def __init__(self, screen: Console, unit: str = "") -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
        )
        super().__init__(*columns, console=screen, transient=True, disable=not screen.is_terminal)
        self._unit, self._began = unit, time.monotonic()
        self._printed, self._first = self._began, 0.0

    def start_task_at(self, description: str, done: int, total: int) -> TaskID:
        """Add a task that is partly done."""
        self._first = done
        return self.add_task(description, total=total, completed=done)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """See `Progress`."""
        super().advance(task_id, advance)
        now = time.monotonic()
        if not self.disable or now - self._printed < EVERY:
            return
        self._printed = now
        task = self.tasks[self.task_ids.index(task_id)]
        done, total = int(task.completed), task.total
        text = f"{task.description}: {done}"
        if total and done > self._first:
            left = (now - self._began) * (total - done) / (done - self._first)
            text += f" of {int(total)} {self._unit}, {100 * done / total:.0f} %, {_clock(left)} left"
        self.console.print(text)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
