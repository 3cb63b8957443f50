package check

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// source returns the root of Evently's source, given this package's folder as the working directory of its tests.
func source() (string, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(root, "cmd", "evently", "config.go")); err != nil {
		return "", fmt.Errorf("the checks run in deploy/check of Evently's source: %w", err)
	}
	return root, nil
}

// deployed returns the files below a deploy folder that are deployed, by path relative to it: not this package, and not the
// secrets that somebody has made.
func deployed(deploy string) (map[string]string, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(deploy, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(deploy, path)
		if err != nil {
			return err
		}
		example := relative == "kubernetes/overlays/example/secrets"
		if entry.IsDir() && (relative == "check" || entry.Name() == "secrets" && !example) {
			return filepath.SkipDir
		}
		if entry.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		files[filepath.ToSlash(relative)] = string(content)
		return err
	})
	return files, err
}

// stopPartRE finds the bound of a part's stop in cmd/evently/program.go.
var stopPartRE = regexp.MustCompile(`(?m)^const partStopMax = (\d+) \* time\.Second$`)

// fences returns the code blocks of a language in Markdown.
func fences(markdown, language string) []string {
	var blocks []string
	for _, part := range strings.Split("\n"+markdown, "\n```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "\n```")
		blocks = append(blocks, block+"\n")
	}
	return blocks
}

// differ tells the names that stand in one of two lists only, or nothing.
func differ(got, want []string) error {
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return nil
}
