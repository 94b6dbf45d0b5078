"""Notices what goes wrong in a run, and names the setting to change."""

import keras
import numpy as np

from wsol_tf.model import losses


class Watch(keras.callbacks.Callback):
    """Says once, with the setting to look at, when a run goes wrong in a way that is known.

    Args:
        state: the loop.State of the run.
        log: function that takes lines of text.
        steps: how many steps in a row a finding must hold.
        chance: accuracy of always naming the most frequent class.
        patience: epochs after which the classifier should know more than that.
    """

    def __init__(self, state, log, *, steps, chance, patience=3):
        super().__init__()
        self.state, self.log = state, log
        self.steps, self.chance, self.patience = steps, chance, patience
        self.since = {}  # finding -> first step of the row of steps that it holds in
        self.said = set()

    def on_train_batch_end(self, batch, logs=None):
        for finding, (holds, sentence) in self._findings(logs).items():
            if not holds:
                self.since.pop(finding, None)
                continue
            first = self.since.setdefault(finding, self.state.step)
            if self.state.step - first >= self.steps:
                self._say(finding, f"for {self.state.step - first} steps {sentence}")

    def on_epoch_end(self, epoch, logs=None):
        right = self.state.history[-1]["top1_cls"]
        if epoch + 1 >= self.patience and right <= 1.05 * self.chance:
            self._say(
                "chance",
                f"after {epoch + 1} epochs the classifier is right in {right:.1%} of the pictures, "
                f"and always naming the most frequent class is in {self.chance:.1%}. Raise "
                "--learning_rate if cls is falling; lower it, or set --final_relu=false, if cls "
                "stands still. Pretrained --extractor_weights help most.",
            )

    def _findings(self, logs):
        on = {name: logs[f"weighted_{name}"] != 0 for name in losses.TERMS}
        area, localizes = logs["ac"], on["ac"] or on["cls_fg"]
        return {
            "empty": (
                localizes and area < 0.02,
                f"the mask covers less than 2 % of the picture ({area:.2%}): it is collapsing to "
                "nothing. Lower --ac_weight or --localizer_multiplier, or raise --bas_weight.",
            ),
            "full": (
                localizes and area > 0.98,
                f"the mask covers more than 98 % of the picture ({area:.2%}): it is collapsing to "
                "everything. Raise --ac_weight, or lower --localizer_multiplier.",
            ),
            "ae": (
                on["ae"] and logs["ae_left"] < 0.01,
                "ae erases all of the score map. Raise --ae_threshold.",
            ),
            "ae_fg": (
                on["ae_fg"] and logs["ae_fg_left"] < 0.01,
                "ae_fg erases all of the mask: it is flat. Raise --ae_fg_threshold, or set "
                "--absolute_thresholds=false.",
            ),
            "pseudo": (
                logs["pseudo_coverage"] < 0.01 and self._in_use("pseudo"),
                f"pseudo labels cover less than 1 % of the positions "
                f"({logs['pseudo_coverage']:.2%}): the term teaches nothing. Lower --pseudo_high "
                "or raise --pseudo_low.",
            ),
        }

    def _in_use(self, term):
        """Whether a term weighs anything now; its value may be 0 because nothing is labelled."""
        return float(keras.ops.convert_to_numpy(self.model.current_weights()[term])) > 0

    def _say(self, finding, sentence):
        if finding not in self.said:
            self.said.add(finding)
            self.log(f"Warning, step {self.state.step}: {sentence}")


class StopAtNaN(keras.callbacks.Callback):
    """Stops the run at the first loss that is no number, and keeps which term it was.

    Attributes:
        sentence: what happened and what to do; empty as long as all is well.
    """

    def __init__(self, state):
        super().__init__()
        self.sentence = ""
        self.state = state

    def on_train_batch_end(self, batch, logs=None):
        if np.isfinite(logs["loss"]):
            return
        bad = [name for name in losses.TERMS if not np.isfinite(logs[name])]
        named = f"in {', '.join(bad)}" if bad else "in a layer's own loss"
        whole = self.state.history
        kept = "The model of the last whole epoch is kept." if whole else "No model is kept."
        self.sentence = (
            f"The loss is no finite number at step {self.state.step}, {named}. {kept} "
            "Lower --learning_rate or the weight of that term."
        )
        self.model.stop_training = True
