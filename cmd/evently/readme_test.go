package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write generated text to README.md instead of comparing it")

const (
	readmePath    = "../../README.md"
	settingsBegin = "<!-- settings: made by `make generate` -->\n"
	settingsEnd   = "<!-- end of settings -->\n"
)

func TestREADME_HasTheTableOfSettings(t *testing.T) {
	readme, err := os.ReadFile(readmePath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(readme), settingsBegin)
	got, after, ends := strings.Cut(rest, settingsEnd)
	if !begins || !ends {
		t.Fatalf("README.md has no lines %q and %q for the table to stand between", settingsBegin, settingsEnd)
	}
	want := settingsTable()
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("the table of settings in README.md is old: run `make generate`. It should be:\n%s", want)
	}
	if err := os.WriteFile(readmePath, []byte(before+settingsBegin+want+settingsEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func settingsTable() string {
	var b strings.Builder
	b.WriteString("| setting | default | meaning |\n|---|---|---|\n")
	for _, s := range new(Config).settings() {
		fallback := s.documented()
		if fallback != "" && s.shown == "" {
			fallback = "`" + fallback + "`"
		}
		names := "`" + s.variable() + "`"
		if s.plain != "" {
			names += " or `" + s.plain + "`"
		}
		if s.secret {
			names += " (secret)"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", names, fallback, s.help)
	}
	return b.String()
}
