_vram_bench_values() {
  case "$1" in
@VALUES@
  esac
}

_vram_bench_override() {
  if ! compset -P '*='; then
    compset -P '+'
    compset -P '+'
    compadd -S '' -- @KEYS@
    return
  fi
  local values="$(_vram_bench_values "${${IPREFIX%=}//+/}")"
  if [[ "$values" == / ]]; then
    _files -/
    return
  fi
  compset -P '*,'
  compadd -S ' ' -r ',' -- ${=values}
}
