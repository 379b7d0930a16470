package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// shell is a shell and the script that makes it complete v6node's commands.
// The scripts ask the program itself, so that they fit every version.
type shell struct{ name, script string }

func shells() []shell {
	return []shell{
		{"bash", `# v6node completion for bash
_v6node() {
    local i line word words=() cur=""
    # bash takes "=" for the end of a word; the program wants what was typed
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        if [[ ${#words[@]} -gt 0 && ( $word == "=" || ( -n $word && ${COMP_WORDS[i-1]} == "=" ) ) ]]; then
            words[-1]+="$word"
        else
            words+=("$word")
        fi
    done
    cur="${words[-1]}"
    COMPREPLY=()
    while IFS= read -r line; do
        word="${line%%$'\t'*}"
        if [[ $word == ":files" ]]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "${cur#-*=}")
            return
        fi
        [[ $word == *= ]] && compopt -o nospace 2>/dev/null
        [[ $cur == *=* && $COMP_WORDBREAKS == *=* ]] && word="${word#"${cur%=*}="}"
        COMPREPLY+=("$word")
    done < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
}
complete -F _v6node v6node
`},
		{"zsh", `#compdef v6node
# v6node completion for zsh
_v6node() {
    local line word meaning
    local -a found
    while IFS= read -r line; do
        word="${line%%$'\t'*}"
        meaning="${line#*$'\t'}"
        if [[ $word == ":files" ]]; then
            compset -P '*='
            _files
            return
        fi
        found+=("${word//:/\\:}${meaning:+:$meaning}")
    done < <("${words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    (( $#found )) && _describe -V 'v6node' found
}
if [[ ${funcstack[1]} == _v6node ]]; then
    _v6node "$@"
else
    compdef _v6node v6node
fi
`},
		{"fish", `# v6node completion for fish
function __v6node_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] __complete $words[2..] 2>/dev/null)
    if string match -q -- ':files*' $found[1]
        set -l parts (string match -r -- '^(-[^=]*=|)(.*)$' (commandline -ct))
        for path in (__fish_complete_path $parts[-1])
            echo "$parts[2]$path"
        end
        return
    end
    printf '%s\n' $found
end
complete -c v6node -f -k -a '(__v6node_complete)'
`},
	}
}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the script by which a shell completes v6node's commands",
		ArgsUsage: "bash|zsh|fish",
		Description: `The shell then completes commands, flags, formats and the ids of runs, which it asks the
node for; who may not speak to the node is not offered any.

Examples:
   v6node completion bash > /etc/bash_completion.d/v6node
   v6node completion zsh  > "${fpath[1]}/_v6node"
   v6node completion fish > ~/.config/fish/completions/v6node.fish
   source <(v6node completion bash)`,
		OnUsageError:    usageError,
		HideHelpCommand: true,
		Action:          completion,
	}
}

func completion(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	var names []string
	for _, s := range shells() {
		if s.name == c.Args().First() {
			_, err := io.WriteString(c.App.Writer, s.script)
			return err
		}
		names = append(names, s.name)
	}
	return cli.Exit(fmt.Sprintf("there is no completion for the shell %q: use %s", c.Args().First(), strings.Join(names, ", ")), exitUsage)
}
