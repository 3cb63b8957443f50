package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// account is the one the server runs as.
type account struct {
	name string              // for messages
	cred *syscall.Credential // nil: this process's own account
}

// serverAccount is this process's account, or for root the owner of pgdata, or for a new one postgres or nobody.
// (initdb wants a name for its account; the server does not.)
func serverAccount(pgdata string) (account, error) {
	if os.Geteuid() != 0 {
		return account{name: fmt.Sprintf("uid %d", os.Geteuid())}, nil
	}
	if info, err := os.Stat(pgdata); err == nil {
		owner := info.Sys().(*syscall.Stat_t)
		if owner.Uid == 0 {
			return account{}, fmt.Errorf("embedded: %s belongs to root, as whom Postgres refuses to run: "+
				"chown -R it to the account it was made by", pgdata)
		}
		return account{name: fmt.Sprintf("uid %d", owner.Uid), cred: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return account{}, fmt.Errorf("embedded: %w", err)
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if errors.As(err, new(user.UnknownUserError)) {
			continue
		}
		if err != nil {
			return account{}, fmt.Errorf("embedded: look up account %s: %w", name, err)
		}
		uid, errUID := strconv.ParseUint(found.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(found.Gid, 10, 32)
		if err := errors.Join(errUID, errGID); err != nil {
			return account{}, fmt.Errorf("embedded: account %s: %w", name, err)
		}
		return account{name: name, cred: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, errors.New("embedded: Postgres refuses to run as root, and there is neither an account postgres nor nobody")
}

// command is name run as the account, in dir, in a process group of its own (a Ctrl-C at the terminal is for
// the caller, who stops the server in order) and with nothing of the caller's environment that could steer it.
func (a account) command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: a.cred}
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	return cmd
}

// makeDir makes a directory of mode 0700 that belongs to the account.
func (a account) makeDir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return a.give(path)
}

// give makes the account the owner of path.
func (a account) give(path string) error {
	if a.cred == nil {
		return nil
	}
	return os.Lchown(path, int(a.cred.Uid), int(a.cred.Gid))
}

// ReachError says that the server's account cannot enter Dir, a parent of Path.
type ReachError struct {
	Path, Dir, Account string
}

func (e *ReachError) Error() string {
	return fmt.Sprintf("embedded: the account that runs Postgres (%s) cannot enter %s, and so cannot use %s: "+
		"choose another data directory, or allow it with: chmod o+x %s", e.Account, e.Dir, e.Path, e.Dir)
}

// Reachable tells whether a server could use dataDir, which need not exist: it returns a ReachError if the account
// that would run Postgres cannot enter one of its parents.
func Reachable(dataDir string) error {
	dir, err := dataDirAt(dataDir)
	if err != nil {
		return err
	}
	acc, err := serverAccount(dir.pgdata())
	if err != nil {
		return err
	}
	return acc.reach(string(dir))
}

// reach checks the existing part of path by trying it as the account, since mode bits do not tell the whole truth.
func (a account) reach(path string) error {
	var existing []string
	for dir := path; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			existing = append(existing, dir)
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if a.canEnter(existing[0]) == nil {
		return nil
	}
	for _, dir := range slices.Backward(existing) {
		err := a.canEnter(dir)
		if errors.As(err, new(*exec.ExitError)) {
			return &ReachError{Path: path, Dir: dir, Account: a.name}
		}
		if err != nil {
			return fmt.Errorf("embedded: switch to the account that runs Postgres (%s): %w", a.name, err)
		}
	}
	return nil
}

func (a account) canEnter(dir string) error {
	child, err := spawn(a.command("/", "/bin/sh", "-c", `cd -- "$1" 2>/dev/null`, "sh", dir), nil)
	if err != nil {
		return err
	}
	return child.wait(context.Background())
}
