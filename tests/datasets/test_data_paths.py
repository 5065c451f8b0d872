from pathlib import Path

from warmstart_sim.datasets.paths import cache_root, data_root


def test_the_explicit_folder_precedes_the_environment_and_the_user_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("WARMSTART_SIM_DATA", raising=False)
    assert data_root() == tmp_path / "warmstart-sim" / "data"
    monkeypatch.setenv("WARMSTART_SIM_DATA", "/mine")
    assert data_root() == Path("/mine")
    assert data_root(Path("/given")) == Path("/given")


def test_an_empty_variable_counts_as_unset_and_a_tilde_is_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("WARMSTART_SIM_DATA", "")
    monkeypatch.setenv("WARMSTART_SIM_CACHE", "~/decoded")
    assert data_root() == tmp_path / ".cache" / "warmstart-sim" / "data"
    assert data_root(Path("~/sets")) == tmp_path / "sets"
    assert cache_root() == tmp_path / "decoded"
