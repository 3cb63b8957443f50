package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/evently/evently/store/embedded/filelock"
)

// machine is a made-up one under a temporary root.
type machine struct {
	t        *testing.T
	host     host
	env      map[string]string
	versions map[string]string // by the path of postgres; what it says to --version
	bindir   string            // what pg_config says; "" if there is none
	aptGet   func(args []string) (string, error)
	commands []string // the apt-get calls
	log      bytes.Buffer
}

func newMachine(t *testing.T) *machine {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, env: map[string]string{}, versions: map[string]string{}}
	m.host = host{
		root:   root,
		getenv: func(name string) string { return m.env[name] },
		isRoot: true,
		run:    m.run,
		enter:  func(string) error { return nil },
	}
	return m
}

func (m *machine) run(ctx context.Context, name string, args ...string) (string, error) {
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case name == "pg_config" && m.bindir != "":
		return m.bindir + "\n", nil
	case name == "apt-get" && m.aptGet != nil:
		m.commands = append(m.commands, strings.Join(args, " "))
		return m.aptGet(args)
	case m.versions[name] != "":
		return m.versions[name], nil
	}
	return "no such program", fs.ErrNotExist
}

func (m *machine) path(path string) string { return filepath.Join(m.host.root, path) }

func (m *machine) write(path, content string, mode os.FileMode) {
	m.t.Helper()
	path = m.path(path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode)); err != nil {
		m.t.Fatal(err)
	}
}

// install puts binaries of a version into a directory.
func (m *machine) install(dir, version string) string {
	m.t.Helper()
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		m.write(filepath.Join(dir, name), "", 0o755)
	}
	m.versions[m.path(dir+"/postgres")] = "postgres (PostgreSQL) " + version + " (Debian)\n"
	return m.path(dir)
}

// debian makes the machine one on which an installation brings a version.
func (m *machine) debian(version string) {
	m.write("etc/debian_version", "12.1\n", 0o644)
	m.aptGet = func(args []string) (string, error) {
		if args[0] == "install" {
			m.install("usr/lib/postgresql/"+version+"/bin", version+".1")
		}
		return "", nil
	}
}

func (m *machine) find(major int) (Installation, error) {
	return m.host.find(m.t.Context(), major, true, slog.New(slog.NewTextHandler(&m.log, nil)))
}

func (m *machine) expectFind(major int, want Installation) {
	m.t.Helper()
	got, err := m.find(major)
	if err != nil || got != want {
		m.t.Errorf("found %+v, %v, want %+v", got, err, want)
	}
}

func TestFind_NewestSupportedOfThePackages(t *testing.T) {
	m := newMachine(t)
	for _, version := range []string{"9.6", "14", "15", "16", "19"} {
		m.install("usr/lib/postgresql/"+version+"/bin", version+".2")
	}
	m.expectFind(0, Installation{BinDir: m.path("usr/lib/postgresql/16/bin"), Version: "16.2", Major: 16})
}

func TestFind_VersionOfTheDataIsPreferred(t *testing.T) {
	m := newMachine(t)
	m.env["PATH"] = m.install("opt/pg/bin", "17.3")
	old := m.install("usr/lib/postgresql/15/bin", "15.18")
	m.expectFind(15, Installation{BinDir: old, Version: "15.18", Major: 15})
	m.expectFind(16, Installation{BinDir: m.path("opt/pg/bin"), Version: "17.3", Major: 17})
}

func TestFind_EveryPlace(t *testing.T) {
	for _, place := range []string{
		"usr/lib/postgresql/17/bin", "usr/pgsql-17/bin", "opt/homebrew/opt/postgresql@17/bin", "usr/local/opt/postgresql@17/bin",
		"home/linuxbrew/.linuxbrew/opt/postgresql@17/bin", "Applications/Postgres.app/Contents/Versions/17/bin",
	} {
		m := newMachine(t)
		m.expectFind(0, Installation{BinDir: m.install(place, "17.3"), Version: "17.3", Major: 17})
	}
}

func TestFind_OrderOfPlaces(t *testing.T) {
	m := newMachine(t)
	m.install("usr/lib/postgresql/18/bin", "18.1")
	m.bindir = m.install("opt/configured/bin", "16.1")
	m.expectFind(0, Installation{BinDir: m.bindir, Version: "16.1", Major: 16})
	inPath := m.install("opt/path/bin", "15.1")
	m.env["PATH"] = "relative" + string(filepath.ListSeparator) + m.path("missing") + string(filepath.ListSeparator) + inPath
	m.expectFind(0, Installation{BinDir: inPath, Version: "15.1", Major: 15})
	m.env["EVENTLY_PG_BIN"] = m.install("opt/named/bin", "17.1")
	m.expectFind(0, Installation{BinDir: m.env["EVENTLY_PG_BIN"], Version: "17.1", Major: 17})
}

func TestFind_LinksInPathAreFollowed(t *testing.T) {
	m := newMachine(t)
	bin := m.install("opt/pg/bin", "15.1")
	m.env["PATH"] = m.path("links")
	if err := errors.Join(os.Mkdir(m.path("links"), 0o755), os.Symlink(filepath.Join(bin, "postgres"), m.path("links/postgres"))); err != nil {
		t.Fatal(err)
	}
	m.expectFind(0, Installation{BinDir: bin, Version: "15.1", Major: 15})
}

func TestFind_IncompleteAndClosedInstallationsArePassedOver(t *testing.T) {
	m := newMachine(t)
	for _, missing := range []string{"initdb", "pg_ctl"} {
		dir := m.install("opt/without-"+missing, "15.1")
		if err := os.Remove(filepath.Join(dir, missing)); err != nil {
			t.Fatal(err)
		}
		m.env["PATH"] += dir + string(filepath.ListSeparator)
	}
	closed := m.install("root/bin", "15.1")
	m.env["PATH"] += closed
	m.host.enter = func(dir string) error {
		if dir == closed {
			return &ReachError{Path: dir, Dir: m.path("root"), Account: "postgres"}
		}
		return nil
	}
	_, err := m.find(0)
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("find: %v, want ErrNotFound", err)
	}
	for _, want := range []string{"without-initdb/initdb", "without-pg_ctl/pg_ctl", m.path("root") + ","} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message lacks %q: %v", want, err)
		}
	}
	good := m.install("usr/lib/postgresql/15/bin", "15.9")
	m.expectFind(0, Installation{BinDir: good, Version: "15.9", Major: 15})
}

func TestFind_NamedDirectoryIsTheOnlyOne(t *testing.T) {
	m := newMachine(t)
	m.debian("15")
	m.install("usr/lib/postgresql/15/bin", "15.9")
	for dir, want := range map[string]string{
		m.path("nowhere"):                   "no such file",
		m.install("opt/old/bin", "14.3"):    "version 14.3",
		m.install("opt/new/bin", "19beta1"): "version 19beta1",
	} {
		m.env["EVENTLY_PG_BIN"] = dir
		if got, err := m.find(0); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "EVENTLY_PG_BIN") {
			t.Errorf("%s: %+v, %v, want an error with %q", dir, got, err, want)
		}
	}
	if len(m.commands) != 0 {
		t.Errorf("installed instead: %q", m.commands)
	}
}

func TestInstall_RootOnDebianOnce(t *testing.T) {
	m := newMachine(t)
	m.debian("15")
	noCluster := m.path("etc/postgresql-common/createcluster.d/evently.conf")
	installs := m.aptGet
	m.aptGet = func(args []string) (string, error) {
		if content, err := os.ReadFile(noCluster); err != nil || string(content) != "create_main_cluster = false\n" {
			t.Errorf("during apt-get %v: %q, %v", args, content, err)
		}
		return installs(args)
	}
	want := Installation{BinDir: m.path("usr/lib/postgresql/15/bin"), Version: "15.1", Major: 15}
	m.expectFind(0, want)
	m.expectFind(0, want)
	if want := []string{"update", "install -y --no-install-recommends -o DPkg::Lock::Timeout=300 postgresql"}; !slices.Equal(m.commands, want) {
		t.Errorf("apt-get was called with %q, want %q", m.commands, want)
	}
	if _, err := os.Stat(noCluster); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s after the installation: %v", noCluster, err)
	}
	if got := strings.Count(m.log.String(), "installing it with apt-get"); got != 1 {
		t.Errorf("logged %d times:\n%s", got, m.log.String())
	}
}

func TestInstall_WaitsForAnotherProcess(t *testing.T) {
	m := newMachine(t)
	m.debian("15")
	if err := os.MkdirAll(m.path("run/lock"), 0o755); err != nil {
		t.Fatal(err)
	}
	other, err := filelock.Try(m.path("run/lock/evently-postgres.lock"))
	if err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	live := m.host.run
	// The search has found nothing; now the waiting begins.
	m.host.run = func(ctx context.Context, name string, args ...string) (string, error) {
		cancel()
		return live(t.Context(), name, args...)
	}
	if _, err := m.host.find(canceled, 0, true, slog.New(slog.DiscardHandler)); !errors.Is(err, context.Canceled) {
		t.Errorf("find beside an installation: %v, want context.Canceled", err)
	}
	m.host.run = live
	m.install("usr/lib/postgresql/15/bin", "15.1") // by the other
	if err := other.Unlock(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.host.install(t.Context(), 0, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	if len(m.commands) != 0 {
		t.Errorf("installed again: %q", m.commands)
	}
}

func TestInstall_FailureShowsWhatAptSaid(t *testing.T) {
	m := newMachine(t)
	m.debian("15")
	m.aptGet = func([]string) (string, error) { return "E: Temporary failure resolving", errors.New("exit status 100") }
	_, err := m.find(0)
	if err == nil || !strings.Contains(err.Error(), "Temporary failure resolving") || !strings.Contains(err.Error(), "exit status 100") {
		t.Errorf("find: %v, want what apt-get said", err)
	}
	if _, err := os.Stat(m.path("etc/postgresql-common/createcluster.d/evently.conf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the drop-in is left: %v", err)
	}
}

func TestInstall_UnsupportedVersionIsNoSuccess(t *testing.T) {
	m := newMachine(t)
	m.debian("15")
	m.aptGet = func([]string) (string, error) {
		m.install("usr/bin", "13.4")
		m.env["PATH"] = m.path("usr/bin")
		return "", nil
	}
	if _, err := m.find(0); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "version 13.4") {
		t.Errorf("find: %v, want ErrNotFound that names version 13.4", err)
	}
}

func TestInstall_Refusals(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*machine)
		forbid  bool
		want    string
	}{
		"by environment":   {prepare: func(m *machine) { m.env["EVENTLY_PG_PROVISION"] = "never" }, want: "EVENTLY_PG_PROVISION=never"},
		"unknown policy":   {prepare: func(m *machine) { m.env["EVENTLY_PG_PROVISION"] = "maybe" }, want: "want never or auto"},
		"by configuration": {prepare: func(*machine) {}, forbid: true, want: "the configuration forbids it"},
		"not root":         {prepare: func(m *machine) { m.host.isRoot = false }, want: "not run by root"},
		"no Debian": {prepare: func(m *machine) {
			if err := os.Remove(m.path("etc/debian_version")); err != nil {
				m.t.Fatal(err)
			}
		}, want: "Debian and Ubuntu only"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.debian("15")
			test.prepare(m)
			_, err := m.host.find(t.Context(), 0, !test.forbid, slog.New(slog.DiscardHandler))
			if !errors.Is(err, ErrNotFound) {
				t.Fatalf("find: %v, want ErrNotFound", err)
			}
			for _, want := range []string{test.want, "apt-get install", "brew install", "EVENTLY_PG_BIN", "DATABASE_URL"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the message lacks %q: %v", want, err)
				}
			}
			if len(m.commands) != 0 {
				t.Errorf("apt-get was called: %q", m.commands)
			}
		})
	}
}

func TestServerLog_KeepsABoundedTail(t *testing.T) {
	log := &serverLog{to: slog.New(slog.DiscardHandler)}
	for i := range 3 * tailLinesMax {
		if _, err := fmt.Fprintf(log, "line %d\nrest ", i); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := log.Write(bytes.Repeat([]byte("x"), 3*lineBytesMax)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(log.String(), "\n")
	if len(lines) > tailLinesMax+1 || slices.ContainsFunc(lines, func(line string) bool { return len(line) > lineBytesMax }) {
		t.Errorf("%d lines, %d bytes", len(lines), len(log.String()))
	}
	if want := fmt.Sprintf("rest line %d", 3*tailLinesMax-1); !slices.Contains(lines, want) {
		t.Errorf("the tail lacks %q: %q", want, lines[:3])
	}
}
