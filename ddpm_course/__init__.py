"Denoising diffusion models: learn them from the notebooks, train them with what the notebooks export."
__version__ = "0.1.0"

_WHERE = {                              # the names for everyday use; each is loaded when it is first used
    "config": ["PRESETS", "RunConfig", "SamplingConfig", "override"],
    "criteria": ["CRITERIA", "Simple", "build_criterion"],
    "data.sets": ["ImageSet", "load_digits"],
    "data.sources": ["DATA", "load_data"],
    "film": ["film_strip", "grid_image", "save_gif", "sequence"],
    "heldout": ["heldout_loss", "plot_losses"],
    "judge.clinic": ["Finding", "Patient"],
    "judge.symptoms": ["CHECKS", "examine"],
    "lesson.tools": ["show_images"],
    "losses": ["OBJECTIVES", "Objective"],
    "model": ["NETWORKS", "Model", "Prediction"],
    "run.launch": ["launch"],
    "run.meeting": ["join"],
    "run.runs": ["Run", "load_model", "load_run"],
    "run.stopping": ["Interrupt", "Stop", "must_stop"],
    "run.trackers": ["TRACKERS"],
    "run.training": ["AUGMENTATIONS", "Average", "EMAS", "OPTIMIZERS", "RATES"],
    "sampling": ["SAMPLERS", "Step", "guided", "sample"],
    "schedules": ["SCHEDULES", "Schedule"],
    "share.published": ["load_published"],
    "steps": ["SPACINGS"],
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}
__all__ = sorted(_MODULE)


def __getattr__(name: str) -> object:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib
    if _MODULE[name] != "config":           # which needs no PyTorch
        importlib.import_module(f"{__name__}.run")      # fills CRITERIA and SAMPLERS
    return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
