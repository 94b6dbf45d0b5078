"""Notices what goes wrong in a run, and names the setting to change."""

import functools
from collections.abc import Callable

import keras
import numpy as np

from wsol_tf.config import Config
from wsol_tf.model import losses
from wsol_tf.training.loop import State


class Watch(keras.callbacks.Callback):
    """Warns once of each way in which runs are known to fail, and names the setting to change.

    docs/studies/failure_signatures.md provokes each of them.

    Args:
        state: the State of the run.
        log: function that takes lines of text.
        config: settings of the run: of those to change, the ones far from their default come first.
        steps: how many steps in a row a failure must last.
        chance: accuracy of always naming the most frequent class.
        patience: epochs after which the classifier should be better than that.
    """

    def __init__(
        self,
        state: State,
        log: Callable[[str], None],
        *,
        config: Config,
        steps: int,
        chance: float,
        patience: int = 3,
    ):
        super().__init__()
        self.state, self.log, self.config = state, log, config
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
        """Warns where nothing was learned by now, or in the end too little, or not of the mask."""
        row, is_last = self.state.history[-1], epoch + 1 == self.config.epochs
        right = row["top1_cls"]
        seen = (
            f"the classifier is right in {right:.1%} of the training pictures, and always naming "
            f"the most frequent class is in {self.chance:.1%}"
        )
        if self._at_chance(row):
            if epoch + 1 >= self.patience:
                self._warn("chance", f"after {epoch + 1} epochs {seen}. {self._against_chance()}")
        elif is_last and right < (1 + self.chance) / 2 and "chance" not in self.warned:
            self._warn(
                "poor",
                f"after the last epoch {seen}: the mask is learned from a poor classifier. "
                + advice(self.config, "+epochs", "+learning_rate", "+head_width", *OUTWEIGHING),
            )
        elif (
            is_last
            and row["weighted_cls_fg"]
            and row["top1_cls_fg"] - self.chance < 0.75 * (right - self.chance)
            and not self.warned & {"chance", "empty"}
        ):
            self._warn(
                "hidden",
                f"after the last epoch the classifier is right in {right:.1%} of the training "
                f"pictures, and in {row['top1_cls_fg']:.1%} by what the mask shows it: it hides "
                "the objects. "
                + advice(self.config, "-ac_weight", *EARLY_OR_FAST, "+cls_fg_weight"),
            )

    def _failures(self, logs):
        """Name -> (whether it is seen in these figures, what to say)."""
        on = {name: logs[f"weighted_{name}"] != 0 for name in losses.TERMS}
        area, localizes = logs["ac"], on["ac"] or on["cls_fg"]
        spreads = logs["pseudo_foreground"] > 0.95 and area > 0.6
        spreads = spreads and _weight(logs, "pseudo") > _weight(logs, "ac")
        spreads = spreads and not self.config.pseudo_balance  # then they push no more up than down
        empty, full = localizes and area < 0.02, localizes and area > 0.9
        say = functools.partial(advice, self.config)
        return {
            "empty": (
                empty,
                f"the mask covers less than 2 % of the picture ({area:.2%}): it is collapsing to "
                "nothing. " + self._against_collapse("-ac_weight", *EARLY_OR_FAST, "+bas_weight"),
            ),
            "full": (
                full and not spreads,
                f"the mask covers more than 90 % of the picture ({area:.2%}): it is collapsing to "
                "everything. "
                + self._against_collapse(
                    "+ac_weight", "-cls_fg_weight", "-ae_fg_weight", *EARLY_OR_FAST
                ),
            ),
            "spreading": (
                spreads,
                f"pseudo weighs more than ac, and {logs['pseudo_foreground']:.0%} of its labels "
                f"say foreground: it spreads the mask ({area:.0%} of the picture) over everything. "
                + "Set `pseudo_balance=true`. "
                + say("-pseudo_weight", "+ac_weight", "+pseudo_start", "+pseudo_high"),
            ),
            "ae": (
                on["ae"] and logs["ae_left"] < 0.01,
                "ae erases all of the score map: nothing is left to classify. "
                + say("+ae_threshold"),
            ),
            "ae_fg": (  # nothing could be left of a collapsed mask, whose cause lies elsewhere
                on["ae_fg"] and logs["ae_fg_left"] < 0.01 and not (empty or full),
                "ae_fg erases all of the mask: nothing is left to classify. "
                + say("+ae_fg_threshold"),
            ),
            "pseudo": (
                logs["pseudo_coverage"] < 0.01 and self._in_use("pseudo"),
                f"pseudo labels cover less than 1 % of the positions "
                f"({logs['pseudo_coverage']:.2%}): the term teaches nothing. "
                + say("-pseudo_high", "+pseudo_low"),
            ),
        }

    def _against_collapse(self, *changes):
        """What to change where the mask collapses; the classifier first, if it knows nothing."""
        history = self.state.history
        if history and self._at_chance(history[-1]):
            return f"It is learned from a classifier at chance. {self._against_chance()}"
        return advice(self.config, *changes)

    def _at_chance(self, row):
        return row["top1_cls"] <= 1.05 * self.chance

    def _against_chance(self):
        """What to change where the classifier is no better than a constant."""
        config, value = self.config, self.state.history[-1]["cls"]
        constant = np.log(len(self.model.classes))  # cls where all classes are taken for alike
        if value > 1.05 * constant:
            text = f"cls is {value:.2f}, worse than that of no knowledge ({constant:.2f}). "
            text += advice(config, "-learning_rate", *OUTWEIGHING)
        elif config.final_relu and value > 0.99 * constant:
            text = "Behind the final ReLU all scores may be 0: set `final_relu=false`."
        else:
            text = advice(config, "+learning_rate", "+epochs", *OUTWEIGHING)
        none = config.extractor_weights == "none"
        return "Pretrained `extractor_weights` help most. " * none + text

    def _in_use(self, term):
        """Whether a term has a weight now; its value may be 0 because nothing is labelled."""
        return float(keras.ops.convert_to_numpy(self.model.current_weights()[term])) > 0

    def _warn(self, failure, text):
        if failure not in self.warned:
            self.warned.add(failure)
            self.state.warnings.append(f"step {self.state.step}: {text}")
            self.log(f"Warning, {self.state.warnings[-1]}")


EARLY_OR_FAST = ("+localization_start", "-localizer_multiplier")  # a mask before there is a class
OUTWEIGHING = ("-ae_weight", "-cls_fg_weight")  # terms that train the classifier beside cls


def _weight(logs, term):
    """What a term weighs in these figures; 0 where its value is."""
    return logs[f"weighted_{term}"] / logs[term] if logs[term] else 0.0


def advice(config: Config, *changes: str) -> str:
    """Says which settings to change; those that are far from their default on that side first.

    Args:
        config: settings of the run.
        *changes: names of settings that are numbers, each after "+" (raise it) or "-" (lower it).

    Returns:
        One sentence: "Lower `a` (here 15, by default 1.5); otherwise raise `b` or lower `c`."
    """
    far, near = [], []
    for change in changes:
        verb, name = "raise" if change[0] == "+" else "lower", change[1:]
        value, default = getattr(config, name), Config.__dataclass_fields__[name].default
        low, high = (value, default) if verb == "raise" else (default, value)
        if high > 0 and low <= high / 2:
            automatic = ": automatic" * (name == "localizer_multiplier")
            far.append(f"{verb} `{name}` (here {value:g}, by default {default:g}{automatic})")
        elif verb == "raise" or value > 0:  # nothing is lower than 0
            near.append(f"{verb} `{name}`")
    text = "; otherwise ".join(_either(phrases) for phrases in (far, near) if phrases)
    return f"{text[0].upper()}{text[1:]}."


def _either(phrases):
    """Joins phrases: "a", "a or b", "a, b or c"."""
    return " or ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)


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
