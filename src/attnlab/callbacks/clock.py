"""When things happen."""


class Clock:
    """Says what is due after an optimizer step; the only place that decides it.

    Validation comes first, then the rows are written, and the checkpoint last: what a checkpoint
    covers is on the disk before it, so that a kill between the two loses nothing. Steps count from
    1; the last step does everything.
    """

    def __init__(
        self,
        max_steps: int,
        val_check_interval: int,
        *,
        log_every: int = 10,
        checkpoint_every: int | None = None,
    ) -> None:
        if log_every < 1 or (checkpoint_every is not None and checkpoint_every < 1):
            raise ValueError(
                f"log_every={log_every} and checkpoint_every={checkpoint_every} count steps, "
                "so they must be at least 1 (checkpoint_every=null: with each validation)"
            )
        self.max_steps = max_steps
        self.validate_every, self.log_every = val_check_interval, log_every
        self.checkpoint_every = checkpoint_every or val_check_interval

    def logs(self, step: int) -> bool:
        """Whether a row of training values belongs to this step."""
        return step % self.log_every == 0 or step in (1, self.max_steps)

    def validates(self, step: int) -> bool:
        """Whether the model is evaluated on the validation split after this step."""
        return step % self.validate_every == 0 or step == self.max_steps

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows this step."""
        return step % self.checkpoint_every == 0 or step == self.max_steps

    def writes(self, step: int) -> bool:
        """Whether the rows so far go to the record: every tenth row, and before a checkpoint."""
        return step % (10 * self.log_every) == 0 or self.validates(step) or self.saves(step)
