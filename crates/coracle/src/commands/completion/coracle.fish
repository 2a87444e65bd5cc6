# fish completion for coracle

function __coracle_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token --cut-at-cursor)
    set -l candidates ($words[1] completion of $words[2..-1] 2> /dev/null)
    if set -q candidates[1]
        printf '%s\n' $candidates
    else
        __fish_complete_path $words[-1]
    end
end

complete --command coracle --no-files --arguments '(__coracle_complete)'
