package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var (
	linkRE    = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	codeRE    = regexp.MustCompile("`([^`\n]*evently_[^`\n]*)`")
	commandRE = regexp.MustCompile(`(?m)(?:^|[A-Z]=\S+ |until |-- |node1 )(?:/\S*/|/)?evently(?:\.new)?((?: [a-z]+)+)((?: --?[a-z-]+(?:=\S+)?)*)`)
	flagsRE   = regexp.MustCompile(`--[a-z-]+`)
	indented  = regexp.MustCompile(`(?m)^ +(.*)$`)
)

// checkDocs holds the texts of a deploy folder to what they speak of: files, commands of the program, metrics, and shell that
// can be parsed.
func checkDocs(ctx context.Context, root, deploy string, p program) error {
	files, err := deployed(deploy)
	if err != nil {
		return err
	}
	known, err := readVocabulary(root)
	if err != nil {
		return err
	}
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		text := files[name]
		complain := func(err error) {
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", name, err))
			}
		}
		for _, link := range linkRE.FindAllStringSubmatch(text, -1) {
			if _, found := files[path.Join(path.Dir(name), link[1])]; !found {
				complain(fmt.Errorf("the link %s leads nowhere", link[1]))
			}
		}
		for _, code := range codeRE.FindAllStringSubmatch(text, -1) {
			complain(known.check(code[1]))
		}
		for _, block := range fences(indented.ReplaceAllString(text, "$1"), "sh") {
			complain(checkShell(ctx, block))
			for _, command := range commandRE.FindAllStringSubmatch(block, -1) {
				complain(p.checkCommandLine(ctx, strings.Fields(command[1]), flagsRE.FindAllString(command[2], -1)))
			}
		}
	}
	return errors.Join(wrong...)
}

func checkShell(ctx context.Context, script string) error {
	command := exec.CommandContext(ctx, "/bin/sh", "-n")
	command.Stdin = strings.NewReader(script)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s: %s", err, output, script)
	}
	return nil
}

// checkCommandLine refuses a command or a flag that the program does not have.
func (p program) checkCommandLine(ctx context.Context, command, flags []string) error {
	if err := p.checkCommand(ctx, command...); err != nil {
		return err
	}
	help, _, err := p.run(ctx, nil, append(slices.Clone(command), "--help")...)
	if err != nil {
		return err
	}
	for _, flag := range flags {
		if !regexp.MustCompile(`(?m)^ +` + flag + `\b`).MatchString(help) {
			return fmt.Errorf("evently %s has no flag %s", strings.Join(command, " "), flag)
		}
	}
	return nil
}

// makeSecrets carries out the commands of a README that make the secrets, in a folder that stands for the root of the repository,
// and returns the folder of the secrets.
func makeSecrets(ctx context.Context, readme, folder string) (string, error) {
	text, err := os.ReadFile(readme)
	if err != nil {
		return "", err
	}
	_, after, found := bytes.Cut(text, []byte("<!-- secrets -->\n"))
	blocks := fences(string(after), "sh")
	if !found || len(blocks) == 0 {
		return "", fmt.Errorf("%s says no more how secrets are made", readme)
	}
	if err := os.MkdirAll(filepath.Join(folder, "deploy"), 0o755); err != nil {
		return "", err
	}
	secrets := filepath.Join(folder, "deploy", "secrets")
	return secrets, runIn(ctx, folder, "/bin/sh", "-euc", blocks[0])
}

// checkSecrets refuses secrets that others on the machine can read, or that containers cannot: these run under another account.
func checkSecrets(secrets string, wanted []string) error {
	folder, err := os.Stat(secrets)
	if err != nil {
		return err
	}
	var wrong []error
	if mode := folder.Mode().Perm(); mode != 0o700 {
		wrong = append(wrong, fmt.Errorf("%s has mode %v: others may enter it", secrets, mode))
	}
	entries, err := os.ReadDir(secrets)
	if err != nil {
		return err
	}
	var names []string
	for _, entry := range entries {
		names = append(names, filepath.Join(secrets, entry.Name()))
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o444 != 0o444 {
			wrong = append(wrong, fmt.Errorf("%s has mode %v: containers cannot read it", entry.Name(), info.Mode().Perm()))
		}
	}
	return errors.Join(append(wrong, differ(names, wanted))...)
}
