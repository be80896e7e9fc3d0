"Failed assertions of helpers.py are explained like those of the tests."

import pytest

pytest.register_assert_rewrite("helpers")
