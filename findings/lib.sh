# Sourced by the findings: a new environment in a temporary folder, removed at the end.

# new_environment PACKAGE==VERSION...: $python is an interpreter that has these, and nothing of the caller's.
new_environment() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # What the caller has set for these libraries must not decide what they do here.
    unset PYTHONPATH PYTHONHOME PYTEST_ADDOPTS PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF
    unset EXLLAMA_NO_FLASH_ATTN EXLLAMA_NO_SDPA EXL3_EXPANDABLE_SEGMENTS NUMBA_DISABLE_JIT HYDRA_FULL_ERROR
    export PYTHONNOUSERSITE=1 HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=""
    cd "$work"
    python3 -m venv environment
    python=$work/environment/bin/python
    add_packages "$@"
}

# add_packages [OPTION...] PACKAGE==VERSION...
add_packages() {
    if ! "$python" -m pip install --quiet --no-compile "$@" 2>pip.log; then
        cat pip.log >&2
        exit 2  # nothing is known: the packages could not be installed
    fi
}

# stand_in_extension: exllamav2 then imports without compiling its CUDA extension; what is called in it does nothing.
# A finding that uses this is about the package's own Python.
stand_in_extension() {
    local site
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cat >"$site/exllamav2_ext.py" <<'END'
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *arguments: None
END
}
