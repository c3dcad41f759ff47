_vram_bench_values() {
  case "$1" in
@VALUES@
  esac
}

# Bash has `model=llama` in three words, as COMP_WORDBREAKS has the `=`: the word is read off the line.
_vram_bench_override() {
  local word="${COMP_LINE:0:COMP_POINT}"
  word="${word##*[[:space:]]}"
  local plus="${word%%[!+]*}"
  word="${word#"$plus"}"
  if [[ "$word" != *=* ]]; then
    compgen -P "$plus" -W '@KEYS@' -- "$word"
    return
  fi
  local key="${word%%=*}" typed="${word#*=}" before="" values
  [[ "$COMP_WORDBREAKS" == *=* ]] || before="$plus$key="
  values="$(_vram_bench_values "$key")"
  if [[ "$values" == / ]]; then
    compgen -P "$before" -S / -d -- "$typed"
    return
  fi
  [[ "$typed" != *,* ]] || before+="${typed%,*},"
  compgen -P "$before" -W "$values" -- "${typed##*,}"
}

# A key and a folder are not the end of a word.
_vram_bench() {
  _shtab_vram_bench "$@"
  [[ "${COMPREPLY[0]-}" != *[=/] ]] || compopt -o nospace
}
