"`from ddpm_course import X`: loaded late, listed for completion, known to editors."

import subprocess
import sys

import ddpm_course
from helpers import environment


def test_names_are_listed_and_found():
    assert set(ddpm_course.__all__) <= set(dir(ddpm_course))
    for name in ddpm_course.__all__:
        found = getattr(ddpm_course, name)
        assert getattr(found, "__module__", "ddpm_course").startswith(("ddpm_course", "builtins")) or isinstance(
            found, dict
        )


def test_import_is_lazy_and_unknown_names_are_errors():
    program = (
        "import sys, ddpm_course; assert 'torch' not in sys.modules; from ddpm_course import PRESETS; "
        "assert 'torch' not in sys.modules; from ddpm_course import Run; assert 'torch' in sys.modules; "
        "from ddpm_course import nothing"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert "cannot import name 'nothing'" in done.stderr, done.stderr
