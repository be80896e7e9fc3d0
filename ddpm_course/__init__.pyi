"The names that `ddpm_course/__init__.py` loads when they are first used, for editors and type checkers."

from .config import PRESETS as PRESETS
from .config import RunConfig as RunConfig
from .config import SamplingConfig as SamplingConfig
from .config import override as override
from .criteria import CRITERIA as CRITERIA
from .criteria import build_criterion as build_criterion
from .data.sets import ImageSet as ImageSet
from .data.sets import load_digits as load_digits
from .data.sources import DATA as DATA
from .data.sources import load_data as load_data
from .film import film_strip as film_strip
from .film import grid_image as grid_image
from .film import save_gif as save_gif
from .film import sequence as sequence
from .heldout import heldout_loss as heldout_loss
from .heldout import plot_losses as plot_losses
from .judge.checks import CHECKS as CHECKS
from .judge.checks import Finding as Finding
from .judge.checks import examine as examine
from .judge.patient import Patient as Patient
from .losses import OBJECTIVES as OBJECTIVES
from .losses import Objective as Objective
from .model import Model as Model
from .model import NETWORKS as NETWORKS
from .model import Prediction as Prediction
from .run.launch import join as join
from .run.runs import Run as Run
from .run.runs import load_model as load_model
from .run.runs import load_run as load_run
from .run.stopping import Interrupt as Interrupt
from .run.stopping import must_stop as must_stop
from .run.trackers import TRACKERS as TRACKERS
from .run.training import Average as Average
from .run.training import EMAS as EMAS
from .run.training import OPTIMIZERS as OPTIMIZERS
from .samplers import SAMPLERS as SAMPLERS
from .samplers import Step as Step
from .sampling import guided as guided
from .sampling import sample as sample
from .schedules import SCHEDULES as SCHEDULES
from .schedules import Schedule as Schedule
from .share.pipelines import load_published as load_published
from .simple import Simple as Simple
from .steps import SPACINGS as SPACINGS

__version__: str
