"`from ddpm_course import X`: listed for completion; that it is loaded late: tests/course/test_structure.py."

import ddpm_course


def test_names_are_listed_and_found():
    assert set(ddpm_course.__all__) <= set(dir(ddpm_course))
    for name in ddpm_course.__all__:
        found = getattr(ddpm_course, name)
        assert getattr(found, "__module__", "ddpm_course").startswith(("ddpm_course", "builtins")) or isinstance(
            found, dict
        )
