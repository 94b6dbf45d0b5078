"""Notices what goes wrong in a run, and names the setting to change."""

from collections.abc import Callable

import keras
import numpy as np

from wsol_tf.model import losses
from wsol_tf.training.loop import State


class Watch(keras.callbacks.Callback):
    """Warns once of each way in which runs are known to fail, and names the setting to change.

    Args:
        state: the State of the run.
        log: function that takes lines of text.
        steps: how many steps in a row a failure must last.
        chance: accuracy of always naming the most frequent class.
        patience: epochs after which the classifier should be better than that.
    """

    def __init__(
        self,
        state: State,
        log: Callable[[str], None],
        *,
        steps: int,
        chance: float,
        patience: int = 3,
    ):
        super().__init__()
        self.state, self.log = state, log
        self.steps, self.chance, self.patience = steps, chance, patience
        # failure -> the first step of the row of steps that it has lasted
        self.since: dict[str, int] = {}
        self.warned: set[str] = set()

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Warns of what has lasted for long enough."""
        for failure, (holds, text) in self._failures(logs).items():
            if not holds:
                self.since.pop(failure, None)
                continue
            first = self.since.setdefault(failure, self.state.step)
            if self.state.step - first >= self.steps:
                self._warn(failure, f"for {self.state.step - first} steps {text}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Warns where the classifier has not learned anything by now."""
        right = self.state.history[-1]["top1_cls"]
        if epoch + 1 >= self.patience and right <= 1.05 * self.chance:
            self._warn(
                "chance",
                f"after {epoch + 1} epochs the classifier is right in {right:.1%} of the pictures, "
                f"and always naming the most frequent class is in {self.chance:.1%}. Raise "
                "`learning_rate` if cls is falling; lower it, or set `final_relu=false`, if cls "
                "stands still. Pretrained `extractor_weights` help most.",
            )

    def _failures(self, logs):
        """Name -> (whether it is seen in these figures, what to say)."""
        on = {name: logs[f"weighted_{name}"] != 0 for name in losses.TERMS}
        area, localizes = logs["ac"], on["ac"] or on["cls_fg"]
        return {
            "empty": (
                localizes and area < 0.02,
                f"the mask covers less than 2 % of the picture ({area:.2%}): it is collapsing to "
                "nothing. Lower `ac_weight` or `localizer_multiplier`, or raise `bas_weight`.",
            ),
            "full": (
                localizes and area > 0.98,
                f"the mask covers more than 98 % of the picture ({area:.2%}): it is collapsing to "
                "everything. Raise `ac_weight`, or lower `localizer_multiplier`.",
            ),
            "ae": (
                on["ae"] and logs["ae_left"] < 0.01,
                "ae erases all of the score map. Raise `ae_threshold`.",
            ),
            "ae_fg": (
                on["ae_fg"] and logs["ae_fg_left"] < 0.01,
                "ae_fg erases all of the mask: it is flat. Raise `ae_fg_threshold`, or set "
                "`absolute_thresholds=false`.",
            ),
            "pseudo": (
                logs["pseudo_coverage"] < 0.01 and self._in_use("pseudo"),
                f"pseudo labels cover less than 1 % of the positions "
                f"({logs['pseudo_coverage']:.2%}): the term teaches nothing. Lower `pseudo_high` "
                "or raise `pseudo_low`.",
            ),
        }

    def _in_use(self, term):
        """Whether a term has a weight now; its value may be 0 because nothing is labelled."""
        return float(keras.ops.convert_to_numpy(self.model.current_weights()[term])) > 0

    def _warn(self, failure, text):
        if failure not in self.warned:
            self.warned.add(failure)
            self.state.warnings.append(f"step {self.state.step}: {text}")
            self.log(f"Warning, {self.state.warnings[-1]}")


class StopAtNaN(keras.callbacks.Callback):
    """Stops the run at the first loss that is NaN or infinite, and keeps which term it was.

    Args:
        state: the State of the run.

    Attributes:
        failure: what happened and what to do; empty as long as all is well.
    """

    def __init__(self, state: State):
        super().__init__()
        self.failure = ""
        self.state = state

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Stops the run where the loss is no finite number."""
        if np.isfinite(logs["loss"]):
            return
        bad = [name for name in losses.TERMS if not np.isfinite(logs[name])]
        named = f"in {', '.join(bad)}" if bad else "in a layer's own loss"
        epochs = self.state.history
        kept = "The model of the last complete epoch is kept." if epochs else "No model is kept."
        self.failure = (
            f"The loss is NaN or infinite at step {self.state.step}, {named}. {kept} "
            "Lower `learning_rate` or the weight of that term."
        )
        self.model.stop_training = True
