package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Set by the linker, see Makefile.
var (
	version = "dev"
	commit  = ""
)

// build tells which build this is.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func thisBuild() build {
	b := build{Version: version, Commit: commit, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "dev" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		b.Version = info.Main.Version // of `go install module@version`
	}
	for _, s := range info.Settings {
		if b.Commit == "" && s.Key == "vcs.revision" {
			b.Commit = s.Value
		}
	}
	return b
}

func (s *shell) versionCommand() *cobra.Command {
	command := &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs}
	asJSON := jsonFlag(command)
	command.RunE = func(*cobra.Command, []string) error {
		s.started = true
		b := thisBuild()
		if *asJSON {
			return s.printJSON(b)
		}
		_, err := fmt.Fprintf(s.stdout, "evently %s (commit %s, %s, %s/%s)\n", b.Version, orUnknown(b.Commit), b.Go, b.OS, b.Arch)
		return err
	}
	return command
}

func orUnknown(text string) string {
	if text == "" {
		return "unknown"
	}
	return text
}
