# bash completion for coracle

_coracle() {
    local line=${COMP_LINE:0:COMP_POINT} words current
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    mapfile -t COMPREPLY < <("${words[0]}" completion of "${words[@]:1}" 2> /dev/null | cut -f 1)
    # For readline a word begins anew behind a colon or an equals sign.
    COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*[:=]}"}"}")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *: ]] && compopt -o nospace
}

complete -o bashdefault -o default -F _coracle coracle
