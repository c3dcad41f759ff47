function _vram_bench_values
  switch $argv[1]
@VALUES@
  end
end

function _vram_bench_override
  set -l word (commandline -ct)
  set -l plus (string match -r '^\+*' -- $word)
  if not string match -q '*=*' -- $word
    for key in @KEYS@
      printf '%s\n' "$plus$key"
    end
    return
  end
  set -l parts (string split -m1 = -- $word)
  set -l values (_vram_bench_values (string trim -l -c + -- $parts[1]))
  if test "$values" = /
    for folder in (__fish_complete_directories $parts[2] '')
      printf '%s\n' "$parts[1]=$folder"
    end
    return
  end
  set -l before (string replace -r '[^,]*$' '' -- $parts[2])
  for value in $values
    printf '%s\n' "$parts[1]=$before$value"
  end
end
