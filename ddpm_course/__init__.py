"Denoising diffusion models: learn them from the notebooks, train them with what the notebooks export."
__version__ = "0.1.0"

import lazy_loader

# the names for everyday use stand in __init__.pyi; each is loaded when it is first used
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
