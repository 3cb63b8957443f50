package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// setting is one row of the table of settings. Everything that speaks of settings is made from that table: the flags,
// the variables, the keys of the config file, `config print` and the table in README.md.
type setting struct {
	name     string // key in the config file; --http-addr and EVENTLY_HTTP_ADDR are made from it
	group    group
	value    value
	fallback string // default, in the text form
	shown    string // default as the documentation shows it, where it differs
	secret   bool   // never shown; can be read from a file that name_file names
	plain    string // further environment variable, without the prefix
	help     string // one sentence, with unit and bounds
}

// group says which commands a setting matters to.
type group uint8

const (
	general group = 1 << iota
	database
	administrator
	node
	every = general | database | administrator | node
)

// value converts between a field of Config and its text form.
type value interface {
	// set returns an error that does not repeat the text, which may be secret.
	set(text string) error
	String() string
}

func (s *setting) flag() string { return strings.ReplaceAll(s.name, "_", "-") }

func (s *setting) variable() string { return "EVENTLY_" + strings.ToUpper(s.name) }

// fileSuffix makes, of a secret's name, the name of the path of a file that holds it.
const fileSuffix = "_file"

func (s *setting) file() *setting { return &setting{name: s.name + fileSuffix} }

// addFlags adds the flags of the groups' settings.
func addFlags(flags *pflag.FlagSet, groups group) {
	for _, s := range new(Config).settings() {
		if s.group&groups == 0 {
			continue
		}
		help := s.help
		if text := s.documented(); text != "" {
			help += " (default " + text + ")"
		}
		flags.String(s.flag(), "", help)
		if s.secret {
			flags.String(s.file().flag(), "", "file that holds --"+s.flag())
		}
	}
	flags.SortFlags = false
}

// documented is the default as help and documentation show it.
func (s *setting) documented() string {
	if s.shown != "" {
		return s.shown
	}
	return s.fallback
}

// origin is where a setting's value came from.
type origin struct {
	text   string
	source string // for people: "flag --http-addr", "default"
}

// sources are what settings are read from.
type sources struct {
	flags  *pflag.FlagSet
	getenv func(string) string
	file   map[string]origin // of the config file
}

// find returns the first of: flag, variable, the config file, default. For a secret each of them may name a file instead.
func (src *sources) find(s *setting) (origin, error) {
	places := []func(*setting) (origin, bool){src.ofFlag, src.ofVariable, src.ofFile}
	for _, place := range places {
		if found, ok := place(s); ok {
			return found, nil
		}
		if !s.secret {
			continue
		}
		if path, ok := place(s.file()); ok {
			text, err := readSecretFile(path.text)
			return origin{text, path.source}, err
		}
	}
	return origin{s.fallback, "default"}, nil
}

func (src *sources) ofFlag(s *setting) (origin, bool) {
	flag := src.flags.Lookup(s.flag())
	if flag == nil || !flag.Changed {
		return origin{}, false
	}
	return origin{flag.Value.String(), "flag --" + s.flag()}, true
}

// An empty variable counts as unset: compose files and unit files cannot leave one out.
func (src *sources) ofVariable(s *setting) (origin, bool) {
	for _, name := range []string{s.variable(), s.plain} {
		if name == "" {
			continue
		}
		if text := src.getenv(name); text != "" {
			return origin{text, name}, true
		}
	}
	return origin{}, false
}

func (src *sources) ofFile(s *setting) (origin, bool) {
	found, ok := src.file[s.name]
	return found, ok
}

// secretBytesMax bounds a file that holds a secret.
const secretBytesMax = 64 << 10

// readSecretFile returns the content of a file without the line end that editors leave.
func readSecretFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close() // only read
	content, err := io.ReadAll(io.LimitReader(file, secretBytesMax+1))
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(string(content), "\r\n")
	switch {
	case len(content) > secretBytesMax:
		return "", fmt.Errorf("%s has more than %d bytes", path, secretBytesMax)
	case text == "":
		return "", fmt.Errorf("%s is empty", path)
	}
	return text, nil
}

// resolved is a setting with what it was set to.
type resolved struct {
	setting
	source string
}

// load reads every setting. Its errors are usage errors, all of them at once, each naming its setting and source.
func load(flags *pflag.FlagSet, getenv func(string) string) (*Config, []resolved, error) {
	config := new(Config)
	src := &sources{flags: flags, getenv: getenv}
	table := config.settings()
	at := slices.IndexFunc(table, func(s setting) bool { return s.name == "config" })
	path, err := src.find(&table[at])
	if err != nil {
		return nil, nil, err
	}
	if src.file, err = readConfigFile(path.text, table); err != nil {
		return nil, nil, usageError{fmt.Errorf("config (%s): %w", path.source, err)}
	}
	var wrong []error
	list := make([]resolved, 0, len(table))
	for _, s := range table {
		found, err := src.find(&s)
		if err == nil && (found.text != "" || found.source != "default") {
			err = s.value.set(found.text)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s (%s): %w", s.name, found.source, err))
		}
		list = append(list, resolved{s, found.source})
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, nil, usageError{err}
	}
	return config, list, nil
}

// usageError is a mistake of the caller: a bad flag or setting. The program exits with 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }
