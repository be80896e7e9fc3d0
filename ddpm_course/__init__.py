"Denoising diffusion models: learn them from the notebooks, train them with what the notebooks export."
__version__ = "0.1.0"

_WHERE = {                              # the names for everyday use; each is loaded when it is first used
    "config": ["PRESETS", "RunConfig", "SamplingConfig", "override"],
    "core": ["show_images"],
    "data": ["ImageSet", "load_digits"],
    "distributed": ["join"],
    "film": ["film_strip", "grid_image", "save_gif", "sequence"],
    "heldout": ["heldout_loss", "plot_losses"],
    "processes": ["launch"],
    "losses": ["OBJECTIVES", "Objective"],
    "model": ["Model", "NETWORKS", "Prediction"],
    "published": ["load_published"],
    "runs": ["Run", "Stop", "load_model", "load_run"],
    "sampling": ["SAMPLERS", "Step", "guided", "sample"],
    "schedules": ["SCHEDULES", "Schedule"],
    "sources": ["DATA", "load_data"],
    "training": ["AUGMENTATIONS", "CRITERIA", "OPTIMIZERS", "RATES", "Simple", "build_criterion"],
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}
__all__ = sorted(_MODULE)


def __getattr__(name: str) -> object:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib
    return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
