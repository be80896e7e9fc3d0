"The names that `ddpm_course/__init__.py` loads when they are first used, for editors and type checkers."

from .config import PRESETS as PRESETS
from .config import RunConfig as RunConfig
from .config import SamplingConfig as SamplingConfig
from .config import override as override
from .core import show_images as show_images
from .data import ImageSet as ImageSet
from .data import load_digits as load_digits
from .distributed import join as join
from .film import film_strip as film_strip
from .film import grid_image as grid_image
from .film import save_gif as save_gif
from .film import sequence as sequence
from .heldout import heldout_loss as heldout_loss
from .heldout import plot_losses as plot_losses
from .losses import OBJECTIVES as OBJECTIVES
from .losses import Objective as Objective
from .model import NETWORKS as NETWORKS
from .model import Model as Model
from .model import Prediction as Prediction
from .processes import launch as launch
from .published import load_published as load_published
from .runs import Run as Run
from .runs import Stop as Stop
from .runs import load_model as load_model
from .runs import load_run as load_run
from .sampling import SAMPLERS as SAMPLERS
from .sampling import Step as Step
from .sampling import guided as guided
from .sampling import sample as sample
from .schedules import SCHEDULES as SCHEDULES
from .schedules import Schedule as Schedule
from .sources import DATA as DATA
from .sources import load_data as load_data
from .training import AUGMENTATIONS as AUGMENTATIONS
from .training import CRITERIA as CRITERIA
from .training import OPTIMIZERS as OPTIMIZERS
from .training import RATES as RATES
from .training import Simple as Simple
from .training import build_criterion as build_criterion

__version__: str
