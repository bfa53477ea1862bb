"""One progress bar for long work: a bar where somebody watches, a plain line per stretch where nobody does."""

import sys
import time

from tqdm import tqdm


def live_notebook() -> bool:
    """Tell whether this is a Jupyter kernel (papermill and nbval set up one as well)."""
    shell = sys.modules.get("IPython")
    instance = shell.get_ipython() if shell is not None else None
    return instance is not None and hasattr(instance, "kernel")


class Progress:
    """A count of `total` steps: a bar in a terminal or a live notebook; elsewhere only what `say` is given.

    Example:
    >>> with Progress(10, "search", show=False) as progress:
    ...     progress.step(loss=0.1)
    """

    def __init__(self, total: int, title: str, *, start: int = 0, show: bool = True) -> None:
        self.title, self.total, self.show = title, total, show
        self.began, self.done = time.monotonic(), start
        self.live = show and (sys.stderr.isatty() or live_notebook())
        self.bar = None
        if self.live:
            from tqdm.auto import tqdm as auto

            kind = auto if live_notebook() else tqdm
            self.bar = kind(total=total, desc=title, initial=start, dynamic_ncols=True, leave=False)

    def step(self, **facts: float) -> None:
        """Count one more step; `facts` stand beside the bar."""
        self.done += 1
        if self.bar is not None:
            self.bar.update(1)
            if facts:
                self.bar.set_postfix({name: f"{value:.4g}" for name, value in facts.items()}, refresh=False)

    def say(self, line: str) -> None:
        """Write a line that stays, above the bar where there is one."""
        if self.show:
            tqdm.write(f"{self.title} {self.done}/{self.total} {line}", file=sys.stdout)
            sys.stdout.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
