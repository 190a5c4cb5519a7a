"""Why a model is where it is: is the guide the posterior, and if not, how is it wrong?

`calibration` ranks known latents among a guide's draws, `uniformity` judges the ranks, `findings`
puts the judgement in words.  It may use `generate`, `core`, `compiler`, `data` and `plots`.
"""

from bayesvae.diagnose.calibration import LEVELS, Calibration, calibrate

__all__ = ["LEVELS", "Calibration", "calibrate"]
