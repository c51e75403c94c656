"""Settings as containers have them: workers of production without the key of tokens."""

import pytest

from deploy.errors import SettingsError
from deploy.settings_load import load

PRODUCTION = {"HIKYAKU_MODE": "production"}


def test_a_process_that_judges_no_tokens_needs_no_key_for_them() -> None:
    with pytest.raises(SettingsError, match="HIKYAKU_JWT_SECRET: production needs a key"):
        load(PRODUCTION)
    assert load(PRODUCTION, unused={"jwt_secret", "internal_secret"}).settings.mode == "production"


def test_what_is_unused_is_still_read_and_all_else_checked() -> None:
    given = {**PRODUCTION, "HIKYAKU_PONG_TIMEOUT_S": "1"}
    with pytest.raises(SettingsError, match="HIKYAKU_PONG_TIMEOUT_S"):
        load(given, unused={"jwt_secret"})
